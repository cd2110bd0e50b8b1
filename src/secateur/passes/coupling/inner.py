"""Hidden units along another axis than the channels: two linear layers over tokens, as MLP-Mixers have them.

The first layer's outputs lie along one axis and the channels of its input along another. From the first layer to the
second a value has both: the hidden units are its track, the channels its second one; after the second layer its track
is the channels again. This is done only where everything that reads what lies between treats every element alike, and
the end of each path is a linear layer over the hidden units.
"""

from __future__ import annotations

from dataclasses import dataclass

from secateur.ir import BINARY, UNARY, Graph, Node

from .flow import Flow, Rule, Tracks
from .recorded import Track

_ALIKE = frozenset(UNARY) | BINARY | {"cast", "transpose"}


@dataclass(frozen=True)
class Inner:
    """What lies between layers over another axis: the nodes, and where paths stop that end in no such layer."""

    nodes: frozenset[str]
    obstacle: str = ""


def inner(graph: Graph, first: Node) -> Inner:
    """The nodes after a linear layer up to those that contract its outputs."""
    places = {first.name: len(first.out.shape) - 1}
    found: set[str] = set()
    work = [first.name]
    if first.name in graph.outputs:
        return Inner(frozenset(), "the network puts it out")
    while work:
        value = work.pop()
        axis = places[value]
        for node in graph.users.get(value, ()):
            if node.op == "linear" and node.inputs[0] == value and node.inputs[1] in graph.weights:
                if axis != len(node.out.shape) - 1:
                    return Inner(frozenset(), _reads(node))
                continue
            if not _alike(graph, node, value) or node.name in graph.outputs:
                return Inner(frozenset(), _reads(node))
            here = node.attrs["perm"].index(axis) if node.op == "transpose" else axis
            if places.setdefault(node.name, here) != here:
                return Inner(frozenset(), _reads(node))
            if node.name not in found:
                found.add(node.name)
                work.append(node.name)
    strange = [graph.producer[name] for name in found if not _inside(graph, graph.producer[name], places)]
    return Inner(frozenset(), _reads(strange[0])) if strange else Inner(frozenset(found))


def _reads(node: Node) -> str:
    return f"{node.op} {node.label} reads all of it"


def _alike(graph: Graph, node: Node, value: str) -> bool:
    """Does the node treat every element alike, and give what is as large as this value?"""
    return node.op in _ALIKE and sorted(node.out.shape) == sorted(graph.values[value].shape)


def _inside(graph: Graph, node: Node, places: dict[str, int]) -> bool:
    """Are other operands of the same kind, or constants that are the same for all channels?"""
    axis = places[node.name]
    for name in node.inputs:
        if name in places and name is not None:
            continue
        weight = graph.weights.get(name or "")
        if weight is None or any(
            d != 1 for i, d in enumerate(weight.shape) if i - weight.ndim != axis - len(node.out.shape)
        ):
            return False
    return True


def linear_across(flow: Flow, node: Node, track: Track, rows: Rule) -> Tracks:
    """A layer over another axis than the channels: its outputs are hidden units where all that reads them ends in one.

    ``rows``: makes the hidden units.
    """
    weight = node.inputs[1]
    between = inner(flow.graph, node) if weight in flow.graph.weights else Inner(frozenset(), "its weight is computed")
    if between.obstacle:
        flow.blocked[node.name] = (
            f"its outputs lie along another axis than its input's channels, and {between.obstacle}"
        )
        return [track]
    flow.inner |= between.nodes
    made = rows(flow, node)
    if made[0] is not None:
        flow.seconds[node.name] = track
        return made
    return [track]


def inside(flow: Flow, node: Node, rule: Rule) -> Tracks:
    """An operator between such layers: hidden units by its own rule, and channels as they were."""
    tracks = rule(flow, node)
    second = next(flow.seconds[i] for i in node.inputs if i in flow.seconds and not flow.is_const(i))
    if node.op == "transpose":
        second = second.moved(node.attrs["perm"].index(second.axis))
    flow.seconds[node.name] = second
    return tracks
