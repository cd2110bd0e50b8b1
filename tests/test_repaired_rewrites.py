"""Repairs between rewrites and scoring: what a policy with them does, and leaves in the recipe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import secateur
from secateur.ir import Array, Graph, InputError
from secateur.ir.exporters.torch.module import evaluate
from secateur.passes.compensate import Refit
from secateur.passes.context import Calibration, in_context
from secateur.passes.recipe import Recipe
from secateur.passes.rewrite.canonicalize import Canonicalize
from secateur.passes.rewrite.low_rank import LowRank
from secateur.policy import from_spec, from_toml
from secateur.restructure import restructure
from secateur.run import Runner
from support.network import Net

RNG = np.random.default_rng(0)
MIXED = RNG.standard_normal((4, 4)) * np.geomspace(3, 0.05, 4)
X = np.einsum("nchw,cd->ndhw", RNG.standard_normal((64, 4, 6, 6)) + 0.5, MIXED).astype(np.float32)
REPAIRED = "low_rank{rank=3,layers=[0]},refit{positions=1000},l1,uniform{macs=30%,round_to=1},slim"


def network() -> tuple[Graph, str]:
    """Two 3x3 layers and a head, and the name of the second layer."""
    net = Net(64, 4, 6, 6)
    second = net.conv(net.relu(net.conv("x", 12)), 12)
    return net.graph(net.head(net.relu(second))), second


def compiled(graph: Graph, policy: str) -> secateur.Compiled:
    return secateur.compile(graph, policy, calibration=[X], holdout=0)


def error(one: Graph, two: Graph) -> float:
    """The squared error of the first output."""
    return float(((evaluate(one, {"x": X})[0] - evaluate(two, {"x": X})[0]).astype(np.float64) ** 2).sum())


def policy_for(layer: str, repaired: bool = True) -> str:
    text = REPAIRED.replace("[0]", f"[{layer}]")
    return text if repaired else text.replace("refit{positions=1000},", "")


def test_a_policy_reads_and_writes_repairs_where_they_stand() -> None:
    policy = from_spec("low_rank{rank=3},refit,l1,slim,refit{ridge=auto}")
    assert policy.rewrites == (LowRank(rank=3), Refit())
    assert policy.compensate == (Refit(ridge="auto"),)
    assert from_spec(policy.spec) == policy
    assert from_toml(policy.to_toml()) == policy
    assert policy.uses_data
    alone = from_spec("low_rank{rank=3},refit,grouped{groups=2},refit{ridge=auto},reestimate_bn")
    assert [step.name for step in alone.rewrites] == ["low_rank", "refit", "grouped"]
    assert [step.name for step in alone.compensate] == ["refit", "reestimate_bn"]
    assert from_spec(alone.spec) == from_toml(alone.to_toml()) == alone


def test_channels_are_scored_in_the_network_that_was_repaired() -> None:
    """What remains computes what it does with the weights that the repair solved, cut: nothing else changed them."""
    graph, layer = network()
    repaired = compiled(graph, policy_for(layer).partition(",l1")[0]).graph
    done = compiled(graph, policy_for(layer))
    kept = done.recipe.weights
    assert kept, "the rewrite alone does not meet the budget"
    for name, weight in done.graph.weights.items():
        whole = repaired.weights[name]
        for axis, indices in kept.get(name, {}).items():
            whole = whole.take(np.asarray(indices), axis)
        np.testing.assert_array_equal(weight, whole, err_msg=name)
    bare = compiled(graph, policy_for(layer, repaired=False))
    assert bare.recipe.weights != kept, "other channels are the least in the network by weights alone"
    assert error(graph, done.graph) < 0.8 * error(graph, bare.graph)
    assert done.report.verification is not None
    assert done.report.verification["passed"]
    assert "after refit" in done.report.remarks[0]


def test_the_recipe_says_where_the_repair_was_and_is_verified(tmp_path: Path) -> None:
    graph, layer = network()
    done = compiled(graph, f"{policy_for(layer)},refit")
    low = f"low_rank{{rank=3,layers=[{layer}]}}"
    assert done.recipe.rewrites == (low, "refit{positions=1000}", "slim", "refit")
    done.recipe.save(tmp_path / "slim.json")
    known = Recipe.load(tmp_path / "slim.json")
    assert known.steps == done.recipe.steps
    found = secateur.verify(graph, done.graph, known)
    assert found.passed
    assert "that refit may change by their digests" in found.compared
    assert set(found.changed) == set(done.recipe.digests)
    replayed = secateur.apply(known, graph)
    assert replayed.recipe.rewrites == (low, "slim")
    assert any("not repeated, since it needs data: refit{positions=1000},refit" in r for r in replayed.report.remarks)
    assert secateur.verify(graph, replayed.graph, replayed.recipe).passed


@pytest.mark.parametrize("end", ["", ",refit"])
def test_a_repaired_weight_that_was_touched_since_is_found(end: str) -> None:
    """Also where the repair before the cut was the last: its weights are known by their digests."""
    graph, layer = network()
    done = compiled(graph, policy_for(layer) + end)
    found = secateur.verify(graph, done.graph, done.recipe)
    assert found.passed
    assert f"{len(found.changed)} that refit may change by their digests" in found.compared
    for name in done.recipe.digests:
        weight: Array = done.graph.weights[name].copy()
        weight.reshape(-1)[0] += 0.01
        wrong = done.graph.rewrite(weights={**done.graph.weights, name: weight})
        found = secateur.verify(graph, wrong, done.recipe)
        assert not found.passed
        assert found.reason is not None
        assert f"weight '{name}' differs" in found.reason


def test_a_pair_whose_outputs_were_cut_below_its_rank_is_solved() -> None:
    """Ten directions where four outputs are left: as many as there are outputs suffice, so these are the original's."""
    net = Net(64, 4, 6, 6)
    layer = net.conv("x", 12)
    graph = net.graph(net.head(net.relu(layer)))
    rank = f"low_rank{{rank=10,layers=[{layer}],always=true}}"
    done = secateur.compile(
        graph, f"{rank},l1,slim,refit{{positions=1000,ridge=0}}", calibration=[X], holdout=0, widths={layer: 4}
    )
    kept = done.recipe.weights[str(done.graph.producer[layer].inputs[1])][0]
    assert len(kept) == 4
    given, left = (evaluate(g.rewrite(outputs=[layer]), {"x": X})[0] for g in (graph, done.graph))
    np.testing.assert_allclose(left, given[:, np.asarray(kept)], atol=1e-3 * float(np.abs(given).max()))


def test_a_repair_before_the_cut_asks_for_data() -> None:
    graph, layer = network()
    with pytest.raises(InputError, match="'refit' compares the slim network with the original on data"):
        secateur.compile(graph, policy_for(layer))


def test_a_long_repair_before_the_cut_keeps_its_state(tmp_path: Path) -> None:
    """``distill`` after a rewrite: a folder of checkpoints serves it, and the same call ends with the same weights."""
    graph, layer = network()
    policy = policy_for(layer).replace("refit{positions=1000}", "distill{steps=3}")
    runs = [
        secateur.compile(graph, policy, calibration=[X], holdout=0, checkpoint=folder)
        for folder in (None, tmp_path / "kept", tmp_path / "kept")
    ]
    assert len(list((tmp_path / "kept").iterdir())) == 1
    for again in runs[1:]:
        for name, weight in runs[0].graph.weights.items():
            np.testing.assert_array_equal(again.graph.weights[name], weight)


class Shuffled(nn.Module):
    """A shuffle that was captured with one example: its view says so."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(4, 12, 3, padding=1), nn.Conv2d(12, 12, 3, groups=2)
        self.three, self.last = nn.Conv2d(12, 12, 3, padding=1), nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.one(x).relu()
        y = y.view(y.shape[0], 2, 6, y.shape[2], y.shape[3]).transpose(1, 2).reshape(y.shape)
        scores: torch.Tensor = self.last(self.three(self.two(y).relu()).relu().mean((2, 3)))
        return scores


@pytest.mark.parametrize(
    "policy",
    [
        "low_rank{rank=3},refit",
        f"{REPAIRED},refit,distill{{steps=2}}",
        "low_rank{rank=3,layers=[one]},refit,grouped{groups=2,layers=[three]},refit,l1,uniform{macs=25%,round_to=1},slim",
        "low_rank{rank=3,layers=[three]},refit,fold_shuffle,refit,l1,uniform{macs=40%,round_to=1},slim,refit",
    ],
)
def test_repairs_of_a_network_with_shuffles_take_batches_of_any_size(policy: str) -> None:
    """Also several, between rewrites: who verifies runs these without what the repairs saw, and comes to the same."""
    policy, module, one = policy.replace("layers=[0]", "layers=[one]"), Shuffled().eval(), torch.from_numpy(X[:1])
    done = secateur.compile(module, policy, example_inputs=(one,), calibration=[X], holdout=0)
    assert done.report.verification is not None
    assert done.report.verification["passed"]
    assert bool(done.recipe.weights) == ("uniform" in policy), "the rewrites alone do not meet the budget"
    assert secateur.verify(module, done.graph, done.recipe, example_inputs=(one,)).passed


def test_a_repair_between_rewrites_sees_a_canonical_network() -> None:
    """A shuffle that says one example's sizes would have it run example by example."""
    seen: list[Graph] = []
    graph = in_context(secateur.trace(Shuffled().eval(), (torch.from_numpy(X[:1]),)), calibration=Calibration([X]))
    steps = from_spec("low_rank{rank=3,layers=[one]},refit,fold_bn").rewrites
    restructure(graph, steps, lambda ran: seen.append(ran.before), Runner())
    assert [before.nodes == Canonicalize()(before).nodes for before in seen[:2]] == [False, True]
