"""Where channels are read: the taps of a graph, and a graph that hands out what flows through them."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np

from secateur.ir import Array, Graph, Node, Source, Value
from secateur.passes.notes import Coupling

from .needs import Sizes, Tap


def taps(graph: Graph, coupling: Coupling) -> tuple[Tap, ...]:
    """Every input through which a node reads channels that could be dropped, in the order of the nodes.

    These are the consumers that the law speaks of: layers whose weight has columns for the channels, and nodes that
    mix channels without one.
    """
    readers = {s.node for s in coupling.slots if s.role == "in"}
    mixing = {(m.node, m.input) for m in coupling.mixing}
    found = []
    for node in graph.nodes:
        for index, name in enumerate(node.inputs):
            if name is None or name in graph.weights or name not in coupling.channels:
                continue
            if node.name in readers or (node.name, index) in mixing:
                found.append(Tap(node.name, index))
    return tuple(found)


def units_at(graph: Graph, coupling: Coupling, tap: Tap) -> tuple[int, Array]:
    """(axis, unit of each position along it or -1) of what flows through a tap."""
    track = coupling.channels[source(graph, tap)]
    return track.axis, track.units


def source(graph: Graph, tap: Tap) -> str:
    """The value that flows through a tap."""
    return tap.node if tap.input < 0 else graph.producer[tap.node].inputs[tap.input] or ""


def outputs_of(graph: Graph, coupling: Coupling, ops: Collection[str]) -> tuple[Tap, ...]:
    """What the nodes of these operators put out, where it has channels that could be dropped."""
    nodes = [n for n in graph.nodes if n.op in ops and n.name in coupling.channels]
    return tuple(Tap(n.name, -1) for n in nodes if (coupling.channels[n.name].units >= 0).any())


def consumers(graph: Graph, coupling: Coupling, ops: Sequence[str] = ("conv", "linear")) -> tuple[Tap, ...]:
    """The taps of layers with a constant weight [O, I / groups, ..] as input 1: those whose inputs can be refitted."""
    found = []
    for tap in taps(graph, coupling):
        node = graph.producer[tap.node]
        if tap.input == 0 and node.op in ops and len(node.inputs) > 1 and node.inputs[1] in graph.weights:
            found.append(tap)
    return tuple(found)


def tapped(graph: Graph, which: Sequence[Tap]) -> Graph:
    """The graph with a value of its own at each tap, as further outputs: its gradient is that of one reader alone."""
    wanted: dict[str, list[int]] = {}
    for tap in which:
        if tap.input >= 0:
            wanted.setdefault(tap.node, []).append(tap.input)
    nodes: list[Node] = []
    for node in graph.nodes:
        inputs = list(node.inputs)
        for index in wanted.get(node.name, ()):
            value = graph.value(inputs[index] or "")
            seen = Value(tap_name(Tap(node.name, index)), value.shape, value.dtype)
            nodes.append(Node("identity", (value.name,), (seen,), {}, Source(f"{node.label}.tap")))
            inputs[index] = seen.name
        nodes.append(dataclasses.replace(node, inputs=tuple(inputs)))
    return graph.rewrite(nodes=nodes, outputs=[*graph.outputs, *map(tap_name, which)])


def tap_name(tap: Tap) -> str:
    """The name of the value at a tap in the tapped graph."""
    return tap.node if tap.input < 0 else f"{tap.node}.tap{tap.input}"


def window(graph: Graph, tap: Tap) -> tuple[int, int]:
    """(groups, taps of the window) of the layer that reads through a tap."""
    node = graph.producer[tap.node]
    weight = graph.weights[node.inputs[1] or ""]
    return int(node.attrs.get("groups", 1)), int(np.prod(weight.shape[2:], dtype=np.int64))


def sizes(graph: Graph, coupling: Coupling, examples: int) -> Sizes:
    """What the memory of a sweep over this graph depends on."""

    def positions(tap: Tap) -> int:
        axis, _ = units_at(graph, coupling, tap)
        return int(graph.value(source(graph, tap)).shape[axis])

    def columns(tap: Tap) -> tuple[int, int, int]:
        groups, k = window(graph, tap)
        return groups, positions(tap) // groups * k, k

    pools = tuple(np.bincount(coupling.pool[~coupling.frozen]).tolist()) if coupling.size else ()
    return Sizes(positions, columns, lambda name: int(graph.weights[name].size), pools, examples)


__all__ = ["consumers", "outputs_of", "sizes", "source", "tap_name", "tapped", "taps", "units_at", "window"]
