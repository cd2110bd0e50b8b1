"""``verify``: what is what the recipe makes of its original passes, and nothing else does."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import secateur
from bench.reach import verify_sabotage as sabotage
from secateur.ir import Graph, InputError
from secateur.ir.compare import align
from secateur.passes import AFTER_CUT, PASSES, Pipeline, parse_spec
from secateur.passes.recipe import Recipe
from secateur.save import save_onnx
from support.nets import chain, draw

# One recipe of each kind; bench/reach/verify_sabotage.py goes through all of them.
KINDS = (sabotage.KINDS[0], sabotage.KINDS[2], sabotage.KINDS[9], sabotage.KINDS[-3])


@pytest.mark.parametrize("line", KINDS)
def test_no_changed_network_passes(line: str) -> None:
    for row in sabotage.cases(0, (line,)):
        assert row["verdict"].startswith("passed") == (row["changed"] == "nothing"), row


def test_what_was_changed_on_purpose_is_named() -> None:
    done = sabotage.compiled(f"{sabotage.CUT},refit")
    found = secateur.verify(sabotage.network(), done, done.recipe)
    assert found.passed
    assert set(found.changed) == set(done.recipe.digests) != set()
    assert found.distance is not None
    assert found.distance > 1e-3
    assert "that refit may change by their digests" in found.compared
    assert set(found.to_dict()) == {
        "law", "passed", "max_rel_err", "inputs", "reference", "compared", "changed", "distance",
    }  # fmt: skip


def test_a_weight_that_the_pass_may_not_change_is_refused() -> None:
    done = sabotage.compiled(f"{sabotage.CUT},refit")
    moved = done.graph.weights["n.mean"] + 1
    graph = done.graph.rewrite(weights={**done.graph.weights, "n.mean": moved})
    found = secateur.verify(sabotage.network(), graph, done.recipe)
    assert not found.passed
    assert found.reason is not None
    assert "'n.mean' differs by up to 1" in found.reason
    assert "no pass that the recipe lists changes it" in found.reason


@pytest.mark.parametrize("name", sorted(AFTER_CUT))
def test_every_pass_after_the_cut_declares_what_it_changes(name: str) -> None:
    done = sabotage.compiled(f"{sabotage.CUT},{name}" + ("{steps=3}" if name == "distill" else ""))
    assert set(done.recipe.digests) <= set(AFTER_CUT[name].may_change(done.graph))
    assert done.recipe.digests


def another_tools(graph: Graph) -> Graph:
    """The network with batch norms folded and every name another one's."""
    graph = Pipeline(parse_spec("fold_bn", PASSES))(graph)
    names = {n: f"v{i}" for i, n in enumerate([*graph.values, *graph.weights])}
    nodes = [
        dataclasses.replace(
            n,
            inputs=tuple(names[i] if i else i for i in n.inputs),
            outputs=tuple(dataclasses.replace(v, name=names[v.name]) for v in n.outputs),
        )
        for n in graph.nodes
    ]
    return Graph(
        "other", tuple(dataclasses.replace(v, name=names[v.name]) for v in graph.inputs), tuple(nodes),
        tuple(names[o] for o in graph.outputs), {names[n]: w for n, w in graph.weights.items()},
    )  # fmt: skip


def test_a_file_of_another_tool_is_compared_by_what_it_computes(tmp_path: Path) -> None:
    done = secateur.compile(chain())
    other = another_tools(done.graph)
    save_onnx(other, tmp_path / "other.onnx")
    found = secateur.verify(chain(), tmp_path / "other.onnx", done.recipe)
    assert (found.passed, found.compared) == (True, "function; the structure is another tool's")
    name = next(n for n, w in other.weights.items() if w.ndim == 4)
    spoilt = other.rewrite(weights={**other.weights, name: other.weights[name] * 1.01})
    found = secateur.verify(chain(), spoilt, done.recipe)
    assert not found.passed
    assert "computes something else" in (found.reason or "")


def test_names_and_order_do_not_count(tmp_path: Path) -> None:
    done = secateur.compile(chain())
    assert align(done.graph, done.graph).difference is None
    graph = draw(str(chain()).replace("%r2", "%other"))
    assert align(chain(), graph).difference is None
    changed = chain().rewrite(nodes=[n.with_attrs(pad=(0, 0, 0, 0)) if n.op == "conv" else n for n in chain().nodes])
    assert "has pad (0, 0, 0, 0) instead of (1, 1, 1, 1)" in (align(chain(), changed).difference or "")


def torch_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3)).eval()


def test_torch_modules_are_verified_at_their_example_inputs(tmp_path: Path) -> None:
    net, x = torch_net(), torch.randn(2, 3, 8, 8)
    slim = secateur.compile(net, example_inputs=(x,))
    slim.save(tmp_path / "slim.onnx")
    for other in (slim, slim.module(), tmp_path / "slim.onnx"):
        found = secateur.verify(net, other, slim.recipe, example_inputs=(x,))
        assert found.passed
        assert "8 weights to the last bit" in found.compared
    with torch.no_grad():
        slim.module().get_parameter("3.weight").mul_(1.001)
    assert not secateur.verify(net, slim.module(), slim.recipe, example_inputs=(x,)).passed
    with pytest.raises(InputError, match="pass example_inputs"):
        secateur.verify(net, slim.module(), slim.recipe)


def test_the_wrong_original_is_refused_or_named() -> None:
    done = secateur.compile(chain())
    other = draw(str(chain()).replace("@c1.w", "@first.w"))
    with pytest.raises(InputError, match=r"has no weight 'c1\.w'.*made for another network"):
        secateur.verify(other, done.graph, done.recipe)
    retrained = chain().rewrite(weights={n: w * 1.5 for n, w in chain().weights.items()})
    found = secateur.verify(retrained, done.graph, done.recipe)
    assert not found.passed
    assert "the original is not the one that the recipe was made of" in (found.reason or "")


def test_recipes_without_digests_are_judged_by_the_law() -> None:
    """As written before there were digests, or where another machine rounds the factors otherwise."""
    done = secateur.compile(chain(), "low_rank{ratio=0.5},l1,uniform{macs=30%,round_to=1},slim")
    assert done.recipe.weights
    old = dataclasses.replace(done.recipe, digests={})
    name = next(iter(done.recipe.digests))
    near = done.graph.rewrite(weights={**done.graph.weights, name: done.graph.weights[name] * np.float32(1 + 1e-6)})
    found = secateur.verify(chain(), near, old)
    assert found.passed
    assert "1 of rewrites by what they compute" in found.compared
    assert not secateur.verify(chain(), near, done.recipe).passed
    far = done.graph.rewrite(weights={**done.graph.weights, name: done.graph.weights[name] * np.float32(1.1)})
    assert not secateur.verify(chain(), far, old).passed


def test_digests_survive_the_file(tmp_path: Path) -> None:
    done = sabotage.compiled(f"{sabotage.CUT},refit")
    done.recipe.save(tmp_path / "r.json")
    assert Recipe.load(tmp_path / "r.json").digests == done.recipe.digests != {}
    assert "digests" not in sabotage.compiled(sabotage.CUT).recipe.to_json()
