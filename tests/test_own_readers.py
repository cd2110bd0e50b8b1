"""Readers that keep their own channels, from call to files: report, ONNX, recipe, verification, weights, library."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import secateur
from secateur.ir import Graph, InputError
from secateur.passes.recipe import Recipe
from support.network import Net

POLICY = "obs,knapsack{macs=45%,readers=own,loss=sum,round_to=1},refit"


def fork() -> Graph:
    """Two branches of what a stem makes, each of which needs other channels of it; then a layer of DenseNet."""
    net = Net(4, 3, 6, 6, seed=7)
    stem = net.relu(net.bn(net.conv("x", 16)))
    left, right = net.conv(stem, 8), net.conv(stem, 8)
    net.weights[f"{left}.weight"][:, :8] *= 0.01
    net.weights[f"{right}.weight"][:, 8:] *= 0.01
    x = str(net.node("concat", left, right, axis=1))
    x = str(net.node("concat", x, net.relu(net.conv(net.relu(x), 8, 1)), axis=1))
    mean = str(net.node("reduce_mean", x, axes=(2, 3), keepdims=False))
    return net.graph(net.linear(mean, 5))


@pytest.fixture(scope="module")
def done() -> secateur.Compiled:
    data = [np.random.default_rng(k).standard_normal((4, 3, 6, 6)).astype(np.float32) for k in range(16)]
    return secateur.compile(fork(), POLICY, calibration=data)


def test_report_and_recipe_state_what_each_reader_keeps(done: secateur.Compiled) -> None:
    layers = {row.name: row.widths[1] for row in done.report.layers}
    stem, left, right = layers["conv0"], layers["conv3"], layers["conv4"]
    assert stem is not None
    assert left is not None
    assert right is not None
    assert left[0] < stem[1] > right[0]
    assert any("2 layers keep their own channels" in remark for remark in done.report.remarks)
    assert done.recipe.own == ("conv3.weight", "conv4.weight")
    (group,) = (g for g in done.report.groups if tuple(g.slots) == ("conv3.weight[1]",))
    assert (group.size, group.kept) == (16, left[0])


def test_the_recipe_replays_on_bare_weights(done: secateur.Compiled) -> None:
    """By name, without a graph: what a state dict holds after the cut has the shapes of the slim network."""
    cut = done.recipe.apply_state_dict(fork().weights)
    assert {name: w.shape for name, w in cut.items()} == {
        name: w.shape for name, w in done.graph.weights.items() if not name.startswith("const.")
    }


def test_files_are_judged_and_a_wrong_index_is_refused(done: secateur.Compiled, tmp_path: Path) -> None:
    done.save(tmp_path / "slim.onnx")
    done.recipe.save(tmp_path / "slim.json")
    recipe = Recipe.load(tmp_path / "slim.json")
    assert secateur.verify(fork(), tmp_path / "slim.onnx", recipe).passed
    again = secateur.apply(recipe, fork())
    assert [n.op for n in again.graph.nodes] == [n.op for n in done.graph.nodes]
    index = next(name for name in done.graph.weights if name.startswith("const.conv3"))
    weights = {**done.graph.weights, index: done.graph.weights[index][::-1].copy()}
    found = secateur.verify(fork(), done.graph.rewrite(weights=weights), recipe)
    assert not found.passed


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ([], "axis [01] (is not listed|keeps channels)"),
        (["lost.weight"], "'own' names weight 'lost.weight', which is not listed under 'weights'"),
        (["bn1.bias"], "'bn1.bias' stands under 'own', but no layer of 'net' reads channels with it"),
    ],
)
def test_recipes_that_untie_by_mistake_are_refused(done: secateur.Compiled, own: list[str], message: str) -> None:
    """Without ``own`` lists that differ are what they were, a removal that leaves something out."""
    body = json.loads(done.recipe.to_json())
    body["own"] = [*body["own"], *own] if own else []
    with pytest.raises(InputError, match=message):
        secateur.apply(Recipe.from_json(json.dumps(body)), fork())


def test_own_channels_of_a_reader_that_keeps_all_are_refused() -> None:
    """A recipe unties what it says and no more."""
    body = json.loads(secateur.compile(fork(), "l1,uniform{macs=60%,round_to=1}").recipe.to_json())
    body["own"] = ["conv3.weight"]
    with pytest.raises(InputError, match=r"'conv3\.weight' stands under 'own', but keeps all that is left of what it"):
        secateur.apply(Recipe.from_json(json.dumps(body)), fork())


def test_the_library_computes_what_the_network_does(done: secateur.Compiled) -> None:
    x = np.random.default_rng(5).standard_normal((4, 3, 6, 6)).astype(np.float32)
    np.testing.assert_allclose(done.build(threads=1)(x), done(x), rtol=1e-4, atol=1e-5)
