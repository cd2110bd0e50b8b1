"""Sensitivity allocation: measured by hand, what its order guarantees, and that it says what it measured on."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from secateur.ir import Graph, InputError
from secateur.ir.exporters.torch.module import evaluate
from secateur.passes import Pipeline
from secateur.passes.allocate import Allocation, Sensitivity
from secateur.passes.allocate.select import Ladder, climb
from secateur.passes.allocate.sensitivity import STAY, by_change, changes
from secateur.passes.analysis.cost import cost
from secateur.passes.context import Calibration, in_context
from secateur.passes.coupling.couple import Couple
from secateur.passes.notes import Coupling, Importance, KeepMask
from secateur.passes.rewrite.slim import Slim
from secateur.passes.score import L1
from support.nets import chain, residual

X = np.random.default_rng(3).standard_normal((4, 3, 8, 8)).astype(np.float32)


def scored(graph: Graph) -> tuple[Graph, Ladder]:
    done = Pipeline((Couple(), L1()))(graph)
    coupling, importance = done.note(Coupling), done.note(Importance)
    assert coupling is not None
    assert importance is not None
    return done, climb(coupling, importance.scores)


def test_changes_are_those_of_columns_set_to_zero() -> None:
    """Of c2's 32 outputs, which the classifier alone reads, the weakest 8, 16 and 24 go."""
    graph, ladder = scored(chain())
    found = changes(graph, ladder, [X[:1]], 1)
    coupling = graph.note(Coupling)
    assert coupling is not None
    units = coupling.channels["r2"].units
    orbit = int(ladder.orbit[ladder.rung[units[0]]])
    strength = np.abs(graph.weights["c2.w"]).sum((1, 2, 3))
    wanted = evaluate(graph, {"x": X[:1]})[0]
    for column, gone in enumerate((0, 8, 16, 24)):
        fc = graph.weights["fc.w"].copy()
        fc[:, np.argsort(strength)[:gone]] = 0
        had = evaluate(graph.rewrite(weights={**graph.weights, "fc.w": fc}), {"x": X[:1]})[0]
        direct = np.linalg.norm(had - wanted) / np.linalg.norm(wanted)
        assert found[orbit, column] >= direct - 1e-6  # made monotone
        if column in (0, 1):
            assert found[orbit, column] == pytest.approx(direct, abs=1e-6)


def ladder_of(lengths: list[int]) -> Ladder:
    """Orbits of so many rungs, each of one unit, one of which must stay."""
    orbit = np.repeat(np.arange(len(lengths)), lengths)
    rank = np.concatenate([np.arange(n) for n in lengths])
    ones = np.ones(len(orbit), np.int64)
    return Ladder(
        np.arange(len(orbit)), orbit, rank, -rank.astype(float), np.array(lengths), ones[: len(lengths)], ones
    )


CURVE = st.lists(st.floats(0, 1), min_size=3, max_size=3)


@given(CURVE, CURVE, st.integers(2, 20), st.data())
@settings(deadline=None)
def test_the_more_sensitive_set_keeps_more(
    steps: list[float], more: list[float], length: int, data: st.DataObject
) -> None:
    mild = np.cumsum([0.0, *steps])
    strong = mild + np.cumsum([0.0, *more])  # steeper everywhere
    ladder = ladder_of([length, length])
    order = by_change(ladder, np.stack([mild, strong]))
    kept = ladder.kept(order, data.draw(st.integers(0, len(order))))
    assert kept[1] >= kept[0] - 1


@given(st.lists(CURVE, min_size=1, max_size=4), st.integers(2, 12))
def test_a_set_gives_up_its_ranks_from_the_last(steps: list[list[float]], length: int) -> None:
    ladder = ladder_of([length] * len(steps))
    order = by_change(ladder, np.cumsum([[0.0, *s] for s in steps], axis=1))
    assert sorted(order.tolist()) == ladder.free().tolist()
    for orbit in range(len(steps)):
        ranks = ladder.rank[order[ladder.orbit[order] == orbit]]
        assert ranks.tolist() == sorted(ranks.tolist())


@given(st.sampled_from(["macs", "params", "bytes"]), st.floats(0.3, 0.9), st.integers(0, 3))
@settings(max_examples=12, deadline=None)
def test_the_budget_is_met_to_within_a_step(kind: str, share: float, seed: int) -> None:
    graph = in_context(residual(), calibration=Calibration([X], seed))
    done = Pipeline((Couple(), L1(), Sensitivity(**{kind: share}, round_to=1)))(graph)  # type: ignore[arg-type]
    slim, whole = getattr(cost(Slim()(done)), kind), getattr(cost(graph), kind)
    assert slim <= share * whole
    assert slim > (share - 0.1) * whole  # one step of the widest domain is 4 of 16 channels' cells


def test_changes_never_fall_and_begin_at_nothing() -> None:
    graph, ladder = scored(residual())
    found = changes(graph, ladder, [X], 4)
    assert found.shape == (len(ladder.length), len(STAY))
    assert (found[:, 0] == 0).all()
    assert (np.diff(found, axis=1) >= 0).all()
    assert found.max() > 0


def test_it_says_what_it_measured_on() -> None:
    given = in_context(chain(), calibration=Calibration([X[:1]]))
    for graph, words in ((chain(), "random inputs"), (given, "calibration data")):
        done = Pipeline((Couple(), L1(), Sensitivity(macs=0.5)))(graph)
        note = done.note(Allocation)
        assert note is not None
        assert any(words in remark for remark in note.remarks)


def test_it_is_deterministic() -> None:
    masks = [Pipeline((Couple(), L1(), Sensitivity(macs=0.5)))(chain()).note(KeepMask) for _ in range(2)]
    assert masks[0] is not None
    assert masks[1] is not None
    assert np.array_equal(masks[0].mask, masks[1].mask)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"floor": 2.0}, "floor"), ({"examples": 0}, "examples"), ({"params": 0.5}, "macs and params")],
)
def test_senseless_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Pipeline((Couple(), L1(), Sensitivity(**{"macs": 0.5, **options})))(chain())  # type: ignore[arg-type]


@pytest.mark.parametrize(("data", "message"), [([], "no example"), ([X[:, :2]], "shape"), ([X * np.nan], "NaN")])
def test_unusable_data_is_refused(data: list[np.ndarray], message: str) -> None:
    graph = in_context(chain(), calibration=Calibration(data))
    with pytest.raises(InputError, match=message):
        Pipeline((Couple(), L1(), Sensitivity(macs=0.5)))(graph)
