"""Coupling: what is tied, what is frozen and why, worked by hand on small networks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from secateur.ir import OPS, Graph, InputError, PassError
from secateur.passes.coupling.couple import COUPLE, Couple, couple
from secateur.passes.coupling.rules_movement import blocks
from secateur.passes.notes import Coupling, Group
from secateur.passes.rewrite.canonicalize import Canonicalize
from secateur.passes.rewrite.slim import slim
from support.network import Net


def group_of(coupling: Coupling, slot: str) -> Group:
    return next(g for g in coupling.groups if slot in g.slots)


def test_every_operator_has_a_rule() -> None:
    assert set(COUPLE) == OPS


def test_a_residual_ties_producers_and_consumers() -> None:
    net = Net(1, 3, 4, 4)
    a = net.conv("x", 6)  # conv0
    b = net.conv(net.relu(a), 6)  # conv2
    y = net.node("add", a, b)
    coupling = couple(net.graph(net.head(str(y))))
    group = group_of(coupling, "conv0.weight[0]")
    assert {"conv2.weight[0]", "conv2.weight[1]", "conv0.bias[0]"} <= set(group.slots)
    assert group.size == 6 and group.frozen is None
    assert any("add" in why for why in group.why)
    # Flattening 4x4 maps: 16 columns of the classifier belong to each channel.
    column = next(s for s in coupling.slots if s.weight.startswith("linear") and s.axis == 1)
    assert np.array_equal(np.bincount(column.units), np.full(6, 16))


def test_outputs_are_frozen_with_the_reason() -> None:
    net = Net(1, 3, 4, 4)
    coupling = couple(net.graph(net.conv("x", 6)))
    assert group_of(coupling, "conv0.weight[0]").frozen == "graph output"


def test_adding_the_input_picks_from_it() -> None:
    net = Net(1, 3, 4, 4)
    y = net.node("add", net.conv("x", 3), "x")
    coupling = couple(net.graph(net.head(str(y))))
    group = group_of(coupling, "conv0.weight[0]")
    assert group.frozen is None
    (mixing,) = (m for m in coupling.mixing if m.node == y)
    assert (mixing.mode, mixing.input, mixing.axis, mixing.units.tolist()) == ("pick", 1, 1, group.units.tolist())


def test_an_opaque_consumer_reads_all_channels() -> None:
    net = Net(1, 3, 4, 4)
    a = net.conv("x", 6)
    net.known["odd"] = net.known[a]
    odd = net.node("relu", a, name="odd")
    graph = net.graph(net.head(str(odd)))
    nodes = [
        dataclasses.replace(n, op="opaque", attrs={"kind": "onnx", "target": "com.acme::Odd", "payload": ""})
        if n.name == "odd"
        else n
        for n in graph.nodes
    ]
    coupling = couple(graph.rewrite(nodes=nodes))
    assert group_of(coupling, "conv0.weight[0]").frozen is None
    assert [(m.node, m.input, m.mode) for m in coupling.mixing if m.node == "odd"] == [("odd", 0, "expand")]


def test_protection_freezes_by_pattern_and_unknown_patterns_are_refused() -> None:
    net = Net(1, 3, 4, 4)
    graph = net.graph(net.head(net.conv(net.conv("x", 6), 7)))
    coupling = Couple(protect=("conv0*",))(graph).note(Coupling)
    assert coupling is not None
    assert group_of(coupling, "conv0.weight[0]").frozen == "protected by 'conv0*'"
    assert group_of(coupling, "conv1.weight[0]").frozen is None
    with pytest.raises(InputError, match=r"'nothing\*' matches no layer; layers are named conv0, conv1"):
        couple(graph, ("nothing*",))


def test_depthwise_passes_its_units_on() -> None:
    net = Net(1, 3, 4, 4)
    coupling = couple(net.graph(net.head(net.conv(net.conv("x", 6), 6, groups=6))))
    group = group_of(coupling, "conv0.weight[0]")
    assert "conv1.weight[0]" in group.slots and "conv1.weight[1]" not in group.slots


def shuffled() -> Graph:
    """Two grouped convolutions of 2 groups with a shuffle between them."""
    net = Net(1, 3, 4, 4)
    a = net.conv(net.conv("x", 8), 8, groups=2)
    return Canonicalize()(net.graph(net.head(net.conv(net.shuffle(a, 2), 8, groups=2))))


def test_crossing_partitions_meet_in_their_common_refinement() -> None:
    coupling = couple(shuffled())
    units = next(s for s in coupling.slots if s.weight == "conv1.weight" and s.axis == 0).units
    cells = [frozenset(units[coupling.cell[units] == c].tolist()) for c in np.unique(coupling.cell[units])]
    # Rows 0-3 and 4-7 are the groups of the first; after the shuffle even rows feed the first group.
    base = units[0]
    assert {frozenset(int(u - base) for u in cell) for cell in cells} == {
        frozenset({0, 1}), frozenset({2, 3}), frozenset({4, 5}), frozenset({6, 7}),
    }  # fmt: skip
    assert len(np.unique(coupling.orbit[units])) == 1


def test_uneven_partitions_get_levels_that_satisfy_them_all() -> None:
    """Producer groups of 6 and 6, consumer groups of 8 and 8 over 4 + 6 + 6 channels, worked by hand."""
    net = Net(1, 3, 4, 4)
    stem = net.conv("x", 4)
    joined = net.node("concat", stem, net.conv(net.conv("x", 8), 12, groups=2), axis=1)
    coupling = couple(net.graph(net.head(net.conv(str(joined), 8, 1, groups=2))))
    (levels,) = coupling.levels.values()
    sizes = {int((coupling.cell == c).sum()): i for i, c in enumerate(levels.cells)}
    # Cells: 4 of the stem and 4 of the first group feed the first consumer group; 2 and 6 the second.
    assert sorted(int((coupling.cell == c).sum()) for c in levels.cells) == [2, 4, 4, 6]
    assert levels.counts[-1].sum() == 16
    assert (np.diff(levels.counts, axis=0) >= 0).all()
    assert len(levels.counts) >= 3
    for row in levels.counts:
        six, two = row[sizes[6]], row[sizes[2]]
        fours = [row[i] for i, c in enumerate(levels.cells) if (coupling.cell == c).sum() == 4]
        assert any(two + a == six and a + b == two + six for a, b in (fours, fours[::-1]))


def test_levels_meet_every_width_of_a_group() -> None:
    """A shuffle cuts 3 groups of 20 into cells of 6 and 7, which can keep equally many at every width from 3 up."""
    net = Net(1, 3, 4, 4)
    x = net.shuffle(str(net.conv(net.conv("x", 6), 60, 1, groups=3)), 3)
    coupling = couple(Canonicalize()(net.graph(net.head(net.conv(x, 6, 1, groups=3)))))
    (levels,) = coupling.levels.values()
    assert levels.counts.sum(axis=1).tolist() == [9, *range(12, 61, 3)]


def test_slim_refuses_what_cannot_be_expressed() -> None:
    graph = shuffled()
    coupling = couple(graph)
    coupled = graph.with_note(coupling)
    units = next(s for s in coupling.slots if s.weight == "conv1.weight" and s.axis == 0).units
    keep = np.ones(coupling.size, bool)
    keep[units[0]] = False
    with pytest.raises(PassError, match=r"grouped layer conv1 \(output side\).*keep equally many"):
        slim(coupled, keep)
    frozen = np.ones(coupling.size, bool)
    frozen[np.flatnonzero(coupling.frozen)[0]] = False
    with pytest.raises(PassError, match="is frozen: graph output"):
        slim(coupled, frozen)
    empty = np.ones(coupling.size, bool)
    empty[next(s for s in coupling.slots if s.weight == "conv0.weight").units] = False
    with pytest.raises(PassError, match="left with no channel"):
        slim(coupled, empty)
    with pytest.raises(PassError, match="expected bool"):
        slim(coupled, np.ones(3, bool))
    with pytest.raises(PassError, match="run couple before"):
        slim(graph, keep)


def test_a_weight_that_one_use_cuts_picks_from_the_full_input_of_another() -> None:
    net = Net(1, 4, 4, 4)
    a = net.conv("x", 4)
    name = next(n for n in net.weights if n.endswith("conv0.weight"))
    second = net.node("conv", a, name, None, stride=(1, 1), dilation=(1, 1), pad=(1, 1, 1, 1), groups=1)
    coupling = couple(net.graph(net.head(net.relu(str(second)))))
    assert group_of(coupling, "conv0.weight[0]").frozen is None
    assert [(m.node, m.input, m.mode) for m in coupling.mixing] == [("conv0", 0, "pick")]


def test_heads_of_attention_keep_a_grid() -> None:
    net = Net(1, 3, 2, 2)
    coupling = couple(net.graph(net.head(net.attention(net.conv("x", 8), 2))))
    query = next(s for s in coupling.slots if s.weight.startswith("linear") and s.axis == 0 and s.role == "out")
    # 2 heads of 4: position j of every head is one unit.
    assert np.array_equal(query.units[:4], query.units[4:]) and len(set(query.units.tolist())) == 4


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ((1, 8, 4), (1, 2, 4, 4), [((0,), (0,)), ((1,), (1, 2)), ((2,), (3,))]),
        ((2, 3, 4), (6, 4), [((0, 1), (0,)), ((2,), (1,))]),
        ((1, 6), (6,), [((0, 1), (0,))]),
        ((4, 6), (6, 4), [((0, 1), (0, 1))]),
    ],
)
def test_reshapes_are_matched_axis_by_axis(old: tuple[int, ...], new: tuple[int, ...], expected: object) -> None:
    assert [(tuple(a), tuple(b)) for a, b in blocks(old, new)] == expected


def test_the_text_form_tells_slots_and_reasons() -> None:
    net = Net(1, 3, 4, 4)
    text = str(Couple()(net.graph(net.head(net.conv("x", 4)))))
    assert "group g0: 4 channels" in text
    assert "slots  conv0.weight[0] conv0.bias[0] linear2.weight[1]" in text
    assert "frozen graph output" in text
