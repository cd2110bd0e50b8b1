"""Contributions in Gram form against the direct computation, and the criteria that stand on them."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from secateur.ir import Array, Graph, PassError
from secateur.ir.exporters.torch.module import evaluate
from secateur.passes import CRITERIA
from secateur.passes.context import Calibration, in_context
from secateur.passes.coupling.couple import Couple
from secateur.passes.notes import Coupling, Importance
from secateur.passes.score.reconstruction import contributions
from secateur.passes.score.thinet import removal_order
from secateur.passes.sweep import Statistics
from secateur.passes.sweep.gather import Gather
from support.network import Net

# Columns a = (3, 0), b = (-3, 1), d = (1, 1).
COLUMNS = np.array([[3.0, -3, 1], [0, 1, 1]])


def gathered(graph: Graph, name: str, data: list[Array]) -> Graph:
    return Gather((CRITERIA[name](),))(in_context(Couple()(graph), calibration=Calibration(data)))


def grouped(batch: int = 3) -> Graph:
    net = Net(batch, 3, 5, 5, seed=5)
    x = net.relu(net.bn(net.conv("x", 8)))
    return net.graph(net.head(net.conv(x, 6, groups=2)))


def data(batch: int = 3) -> list[Array]:
    return [np.random.default_rng(0).standard_normal((batch, 3, 5, 5)).astype(np.float32)]


def test_leaving_a_set_out_costs_what_the_matrix_says() -> None:
    """The reader's own output, with those inputs at zero, against 1' G 1."""
    graph = gathered(grouped(), "thinet", data())
    coupling, statistics = graph.note(Coupling), graph.note(Statistics)
    assert coupling is not None
    assert statistics is not None
    reader = [n for n in graph.nodes if n.op == "conv"][1]
    weight = str(reader.inputs[1])
    inside = Graph(graph.name, graph.inputs, graph.nodes, (reader.name,), dict(graph.weights))
    full = evaluate(inside, {"x": data()[0]})[0].astype(np.float64)
    bias = graph.weights[str(reader.inputs[2])].reshape(1, -1, 1, 1)
    (slot,) = [s for s in coupling.slots if s.weight == weight and s.role == "in"]
    domain = int(coupling.domain[slot.units[0]])
    part = contributions(graph, coupling, statistics)[domain]
    assert len(part.units) == 8
    np.testing.assert_allclose(part.target, part.gram.sum(1) + np.zeros(8), rtol=1e-4, atol=1e-6)
    for gone in ([0], [1, 5], [2, 3, 4], list(range(8))):
        w = graph.weights[weight].copy()
        for position in np.flatnonzero(np.isin(slot.units, part.units[gone])):
            group, column = divmod(int(position), w.shape[1])
            rows = w.shape[0] // slot.groups
            w[group * rows : (group + 1) * rows, column] = 0
        less = evaluate(inside.rewrite(weights={**graph.weights, weight: w}), {"x": data()[0]})[0]
        error = ((full - less) ** 2).sum() / ((full - bias) ** 2).sum()
        np.testing.assert_allclose(part.gram[np.ix_(gone, gone)].sum(), error, rtol=1e-4)


def test_thinet_takes_the_next_cheapest_and_not_the_cheapest_alone() -> None:
    gram = COLUMNS.T @ COLUMNS
    np.testing.assert_array_equal(gram, [[9, -9, 3], [-9, 10, -2], [3, -2, 2]])
    order, added = removal_order(gram)
    assert order.tolist() == [2, 1, 0]  # d first (2), then b: together 8; the two smallest diagonals would give 17
    np.testing.assert_allclose(np.cumsum(added), [2, 8, 5])  # all three: (3-3+1)^2 + (0+1+1)^2


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 7), st.integers(1, 9), st.integers(0, 2**16))
def test_thinet_is_greedy_on_the_real_error(width: int, samples: int, seed: int) -> None:
    a = np.random.default_rng(seed).standard_normal((samples, width))
    order, added = removal_order(a.T @ a)
    assert sorted(order.tolist()) == list(range(width))
    gone: list[int] = []
    for j, total in zip(order, np.cumsum(added), strict=True):
        values = {k: float((a[:, [*gone, k]].sum(1) ** 2).sum()) for k in set(range(width)) - set(gone)}
        assert values[int(j)] <= min(values.values()) + 1e-9
        gone.append(int(j))
        np.testing.assert_allclose(total, values[int(j)], rtol=1e-9, atol=1e-9)


def test_a_unit_that_contributes_nothing_goes_first() -> None:
    graph = grouped()
    weights = dict(graph.weights)
    second = [n for n in graph.nodes if n.op == "conv"][1].inputs[1]
    w = weights[str(second)].copy()
    w[:, 1] = 0  # column 1 of both groups: channels 1 and 5
    scored = CRITERIA["thinet"]()(gathered(graph.rewrite(weights={**weights, str(second): w}), "thinet", data()))
    importance = scored.note(Importance)
    assert importance is not None
    known = importance.scores[~np.isnan(importance.scores)]
    assert set(np.argsort(known)[:2].tolist()) == {1, 5}


@pytest.mark.parametrize("name", ["thinet"])
def test_statistics_must_be_there(name: str) -> None:
    with pytest.raises(PassError, match="put 'gather' before it"):
        CRITERIA[name]()(Couple()(grouped()))


def test_pairs_by_hand() -> None:
    gram = COLUMNS.T @ COLUMNS
    best = min(itertools.combinations(range(3), 2), key=lambda t: gram[np.ix_(t, t)].sum())
    assert best == (0, 1)
    assert gram[:2, :2].sum() == 1
