"""Pruning in rounds: one mask in the original's units, scores that are seen anew, and the law at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest

import secateur
from secateur.ir import Graph, InputError, PassError
from secateur.passes import Pipeline
from secateur.passes.allocate import Allocation, Global, Rounds
from secateur.passes.allocate.rounds import carried
from secateur.passes.analysis.cost import cost
from secateur.passes.compensate import Refit
from secateur.passes.context import Calibration, context_of, in_context
from secateur.passes.coupling.couple import Couple
from secateur.passes.notes import Coupling, KeepMask
from secateur.passes.rewrite.slim import Slim, slim
from secateur.passes.score import L1
from secateur.policy import Policy
from support.nets import chain, residual


@dataclass(frozen=True)
class Watched:
    """L1 that notes what it was asked to score."""

    name: ClassVar[str] = "watched"
    seen: list[Graph] = field(default_factory=list)

    def __call__(self, graph: Graph) -> Graph:
        self.seen.append(graph)
        return L1()(graph)


@pytest.mark.parametrize("make", [chain, residual])
@pytest.mark.parametrize("method", ["global{rounds=3}", "uniform{rounds=3}", "knapsack{rounds=2}"])
def test_the_law_holds_against_the_original(make: object, method: str) -> None:
    graph = make()  # type: ignore[operator]
    done = secateur.compile(graph, Policy("l1", method), round_to=1, macs=0.5)
    assert done.report.verification is not None
    assert done.report.verification["passed"]
    assert done.report.budget is not None
    assert 0.35 < done.report.budget["achieved"] <= 0.5
    assert done.report.budget["achieved"] == cost(done.graph).macs / cost(graph).macs
    assert secateur.verify(graph, done.graph, done.recipe).passed


def test_every_round_scores_a_smaller_network() -> None:
    watched, graph = Watched(), residual()
    step = Rounds(3, Global(macs=0.4, round_to=1), (Couple(), watched))
    done = Pipeline((Couple(), watched, step, Slim()))(graph)
    shares = [cost(g).macs / cost(graph).macs for g in watched.seen]
    assert len(shares) == 3
    assert shares[0] == 1
    for share, most in zip(shares[1:], (0.4 ** (1 / 3), 0.4 ** (2 / 3)), strict=True):
        assert most - 0.15 < share <= most
    assert 0.3 * cost(graph).macs < cost(done).macs <= 0.4 * cost(graph).macs


def test_one_round_is_the_allocation_itself() -> None:
    scored = Pipeline((Couple(), L1()))(residual())
    plain, one = Global(macs=0.5)(scored), Rounds(1, Global(macs=0.5), (Couple(), L1()))(scored)
    np.testing.assert_array_equal(plain.note(KeepMask).mask, one.note(KeepMask).mask)  # type: ignore[union-attr]
    assert plain.note(Allocation) == one.note(Allocation)


@pytest.mark.parametrize("make", [chain, residual])
def test_two_cuts_are_the_one_they_are_told_as(make: object) -> None:
    """Weights of a network cut twice equal those of the original cut once by the carried mask."""
    first = Pipeline((Couple(), L1(), Global(macs=0.7, round_to=1)))(make())  # type: ignore[operator]
    coupling, keep = first.note(Coupling), first.note(KeepMask)
    assert coupling is not None
    assert keep is not None
    second = Pipeline((Couple(), L1(), Global(macs=0.5, round_to=1)))(slim(first, keep.mask))
    twice = slim(second, second.note(KeepMask).mask)  # type: ignore[union-attr]
    once = slim(first, keep.mask & carried(second, coupling, keep.mask))
    assert twice.weights.keys() == once.weights.keys()
    for name, weight in twice.weights.items():
        np.testing.assert_array_equal(weight, once.weights[name])


def test_what_is_scored_again_was_repaired_and_the_cut_is_of_the_original() -> None:
    """``refit`` comes between rounds as it does in the end; ``distill``, which takes as long as it may, does not."""
    policy = Policy("taylor", "global{rounds=2}", round_to=1, compensate=("refit", "distill{steps=1}"))
    (step,) = [p for p in policy.passes() if isinstance(p, Rounds)]
    assert [p.name for p in step.again] == ["refit", "couple", "gather", "taylor"]
    batch, watched = np.random.default_rng(0).standard_normal((16, 3, 8, 8)).astype(np.float32), Watched()
    graph = in_context(chain(), calibration=Calibration([batch]))
    again = (Refit(), Couple(), watched)
    done = Pipeline((Couple(), watched, Rounds(2, Global(macs=0.5, round_to=1), again), Slim()))(graph)
    _, second = watched.seen
    first = Pipeline((Couple(), L1(), Global(macs=0.5**0.5, round_to=1), Slim()))(graph)
    assert {n: w.shape for n, w in first.weights.items()} == {n: w.shape for n, w in second.weights.items()}
    assert any(not np.array_equal(w, second.weights[n]) for n, w in first.weights.items())
    assert context_of(done).original is not None
    for name, weight in done.weights.items():
        assert np.isin(weight, graph.weights[name]).all(), "no weight of the result was repaired"


def test_rounds_score_from_data_again() -> None:
    batch = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
    done = secateur.compile(chain(), "apoz,global{macs=50%,rounds=2},slim", calibration=[batch], round_to=1)
    assert done.report.verification is not None
    assert done.report.verification["passed"]


def test_senseless_rounds_are_refused() -> None:
    with pytest.raises(InputError, match="rounds=0"):
        secateur.compile(chain(), "l1,global{macs=50%,rounds=0},slim")
    with pytest.raises(PassError, match="one round"):
        Global(macs=0.5, rounds=2)(Pipeline((Couple(), L1()))(chain()))
    with pytest.raises(PassError, match="couple"):
        Rounds(2, Global(macs=0.5), (Couple(), L1()))(chain())


def test_more_rounds_than_channels_are_refused() -> None:
    with pytest.raises(InputError, match=r"rounds=1000000\}.*at most \d+"):
        secateur.compile(chain(), "l1,global{macs=60%,rounds=1000000},slim")
