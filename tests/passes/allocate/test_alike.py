"""Isomorphic pruning: kinds by structure, and every kind cut in one proportion, however its scores compare."""

from __future__ import annotations

import numpy as np

import secateur
from secateur.ir import Array, Graph
from secateur.passes import Pipeline
from secateur.passes.allocate.alike import by_score_within, kinds
from secateur.passes.allocate.select import climb
from secateur.passes.coupling.couple import Couple
from secateur.passes.notes import Coupling, KeepMask
from secateur.passes.pipeline import parse_spec
from secateur.passes.tables import PASSES
from support.network import Net


def bottlenecks() -> Graph:
    """Two residual blocks of one structure and two widths, a depthwise layer between 1x1 layers, and a head."""
    net = Net(1, 3, 8, 8)
    x = net.conv("x", 16)
    for inner in (8, 12):
        y = net.relu(net.conv(net.relu(net.conv(x, inner, 1)), inner, 3))
        x = str(net.node("add", x, net.conv(y, 16, 1)))
    y = net.relu(net.conv(x, 24, 1))
    y = net.relu(net.conv(y, 24, 3, groups=24))
    return Couple()(net.graph(net.head(y)))


def coupling_of(graph: Graph) -> Coupling:
    found = graph.note(Coupling)
    assert found is not None
    return found


def kind_of_layers(graph: Graph) -> dict[str, int]:
    """By layer, the kind of the set of channels that it puts out."""
    coupling = coupling_of(graph)
    ladder = climb(coupling, np.ones(coupling.size))
    kind = kinds(graph, coupling, ladder)
    layers = [s for s in coupling.slots if s.role == "out" and graph.weights[s.weight].ndim == 4]
    return {s.node: int(kind[ladder.orbit[ladder.rung[s.units[0]]]]) for s in layers}


def test_layers_of_one_structure_are_of_one_kind_whatever_their_widths() -> None:
    first, a1, a2, a3, b1, b2, b3, wide = kind_of_layers(bottlenecks()).values()
    assert a1 == b1, "1x1 layers read by a 3x3 one"
    assert a2 == b2, "3x3 layers read by a 1x1 one"
    assert first == a3 == b3, "the sum"
    assert len({first, a1, a2, wide}) == 4


def scored(graph: Graph) -> Array:
    """The second block is a thousand times as important as the first, and the sum a million times."""
    coupling, rng = coupling_of(graph), np.random.default_rng(0)
    scores = rng.uniform(1, 2, coupling.size)
    nodes = [s.node for s in coupling.slots if s.role == "out" and graph.weights[s.weight].ndim == 4]
    for slot in coupling.slots:
        if slot.role == "out" and slot.node in (nodes[0], nodes[4], nodes[5]):
            scores[slot.units] *= 1e6 if slot.node == nodes[0] else 1e3
    return scores


def test_every_kind_shrinks_in_one_proportion_by_its_own_scores() -> None:
    graph = bottlenecks()
    coupling = coupling_of(graph)
    ladder = climb(coupling, scored(graph))
    kind = kinds(graph, coupling, ladder)
    order = by_score_within(ladder, kind)
    assert sorted(order.tolist()) == sorted(ladder.free().tolist())
    half = order[: len(order) // 2]
    for number in np.unique(kind):
        free = np.flatnonzero(kind[ladder.orbit[ladder.free()]] == number)
        kept = np.count_nonzero(kind[ladder.orbit[half]] == number)
        assert abs(kept - len(free) / 2) <= 1
    for orbit in np.unique(ladder.orbit):  # inside a set of channels the best stay
        places = [ladder.rank[r] for r in order if ladder.orbit[r] == orbit]
        assert places == sorted(places)


def test_as_an_option_of_global() -> None:
    graph = Pipeline(parse_spec("l1,global{channels=50%,alike=true,round_to=1,floor=0}", PASSES))(bottlenecks())
    mask = graph.note(KeepMask)
    assert mask is not None
    assert 0.3 < mask.mask.mean() < 0.8
    report = secateur.compile(bottlenecks(), "l1,global{macs=50%,alike=true,round_to=1},slim").report
    assert report.after is not None
    assert report.after.macs <= 0.5 * report.before.macs
