"""Where channels are read: the read sites of a graph, and a graph that hands out what flows through them."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np

from secateur.ir import Array, Graph, Node, Source, Value
from secateur.passes.notes import Coupling

from .needs import ReadSite, Sizes


def read_sites(graph: Graph, coupling: Coupling) -> tuple[ReadSite, ...]:
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
                found.append(ReadSite(node.name, index))
    return tuple(found)


def units_at(graph: Graph, coupling: Coupling, site: ReadSite) -> tuple[int, Array]:
    """(axis, unit of each position along it or -1) of what flows through a site."""
    track = coupling.channels[source(graph, site)]
    return track.axis, track.units


def source(graph: Graph, site: ReadSite) -> str:
    """The value that flows through a site."""
    return site.node if site.input < 0 else graph.producer[site.node].inputs[site.input] or ""


def outputs_of(graph: Graph, coupling: Coupling, ops: Collection[str]) -> tuple[ReadSite, ...]:
    """What the nodes of these operators put out, where it has channels that could be dropped."""
    nodes = [n for n in graph.nodes if n.op in ops and n.name in coupling.channels]
    return tuple(ReadSite(n.name, -1) for n in nodes if (coupling.channels[n.name].units >= 0).any())


def consumers(graph: Graph, coupling: Coupling, ops: Sequence[str] = ("conv", "linear")) -> tuple[ReadSite, ...]:
    """The read sites of layers with a constant weight [O, I / groups, ..] as input 1: their inputs can be refitted."""
    found = []
    for site in read_sites(graph, coupling):
        node = graph.producer[site.node]
        if site.input == 0 and node.op in ops and len(node.inputs) > 1 and node.inputs[1] in graph.weights:
            found.append(site)
    return tuple(found)


def channel_axis(graph: Graph, layer: str) -> int:
    """Along which axis of what it puts out a convolution or linear layer has its channels."""
    node = graph.producer[layer]
    return len(node.out.shape) - 1 if node.op == "linear" else 1


def exposed(graph: Graph, which: Sequence[ReadSite]) -> Graph:
    """The graph with a value of its own at each site, as further outputs: its gradient is that of one reader alone."""
    wanted: dict[str, list[int]] = {}
    for site in which:
        if site.input >= 0:
            wanted.setdefault(site.node, []).append(site.input)
    nodes: list[Node] = []
    for node in graph.nodes:
        inputs = list(node.inputs)
        for index in wanted.get(node.name, ()):
            value = graph.value(inputs[index] or "")
            seen = Value(site_name(ReadSite(node.name, index)), value.shape, value.dtype)
            nodes.append(Node("identity", (value.name,), (seen,), {}, Source(f"{node.label}.site")))
            inputs[index] = seen.name
        nodes.append(dataclasses.replace(node, inputs=tuple(inputs)))
    return graph.rewrite(nodes=nodes, outputs=[*graph.outputs, *map(site_name, which)])


def site_name(site: ReadSite) -> str:
    """The name of the value at a site in the exposed graph."""
    return site.node if site.input < 0 else f"{site.node}.site{site.input}"


def window(graph: Graph, site: ReadSite) -> tuple[int, int]:
    """(groups, taps of the window) of the layer that reads through a site."""
    node = graph.producer[site.node]
    weight = graph.weights[node.inputs[1] or ""]
    return int(node.attrs.get("groups", 1)), int(np.prod(weight.shape[2:], dtype=np.int64))


def sizes(graph: Graph, coupling: Coupling, examples: int) -> Sizes:
    """What the memory of a sweep over this graph depends on."""

    def positions(site: ReadSite) -> int:
        axis, _ = units_at(graph, coupling, site)
        return int(graph.value(source(graph, site)).shape[axis])

    def columns(site: ReadSite) -> tuple[int, int, int]:
        groups, k = window(graph, site)
        return groups, positions(site) // groups * k, k

    domains = tuple(np.bincount(coupling.domain[~coupling.frozen]).tolist()) if coupling.size else ()

    def channels(layer: str) -> int:
        return int(graph.value(layer).shape[channel_axis(graph, layer)])

    return Sizes(positions, columns, lambda name: int(graph.weights[name].size), channels, domains, examples)


__all__ = [
    "channel_axis",
    "consumers",
    "outputs_of",
    "sizes",
    "source",
    "site_name",
    "exposed",
    "read_sites",
    "units_at",
    "window",
]
