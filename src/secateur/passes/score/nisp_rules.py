"""How importance goes back through an operator: a row for each kind, Lipschitz bounds with constant factors kept.

Scores are per channel, summed over the picture; a rule yields (input, scores of its positions).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

import numpy as np

from secateur.ir import Array, Graph, Node
from secateur.passes.notes import Coupling

Scores = Mapping[str, Array]
Back = Iterator[tuple[str, Array]]
Rule = Callable[[Graph, Coupling, Node, Scores], Back]


def back(graph: Graph, coupling: Coupling, node: Node, scores: Scores) -> Back:
    """What the node's inputs get of its outputs' scores."""
    return RULES.get(node.op, _carried)(graph, coupling, node, scores)


def _weighted(graph: Graph, coupling: Coupling, node: Node, scores: Scores) -> Back:
    """conv, linear: s_in[j] = sum over o of s_out[o] * sum over taps of abs(W[o, j])."""
    x, weight = node.inputs[0], graph.weights.get(node.inputs[1] or "")
    if weight is None or x is None:
        yield from _carried(graph, coupling, node, scores)
        return
    w = np.abs(weight.astype(np.float64))
    if node.attrs.get("transposed", False):
        w = w.T
    w = w.reshape(*w.shape[:2], -1).sum(2)
    groups = int(node.attrs.get("groups", 1))
    out = scores[node.name]
    if node.op == "linear" and (across := _across(graph, coupling, node, out, w)) is not None:
        yield x, across
        return
    if node.op == "conv_transpose":  # [I, O / groups]
        per_in = w.reshape(groups, w.shape[0] // groups, w.shape[1])
        yield x, np.einsum("go,gio->gi", out.reshape(groups, -1), per_in).reshape(-1)
        return
    per_out = w.reshape(groups, w.shape[0] // groups, w.shape[1])
    yield x, np.einsum("go,goi->gi", out.reshape(groups, -1), per_out).reshape(-1)


def _across(graph: Graph, coupling: Coupling, node: Node, out: Array, w: Array) -> Array | None:
    """A layer over another axis than that of the channels: what one side is worth is shared evenly by the other."""
    last = len(node.out.shape) - 1
    x, y = coupling.channels.get(node.inputs[0] or ""), coupling.channels.get(node.name)
    if x is None or y is None or (x.axis == last and y.axis == last):
        return None
    if x.axis == last:
        return np.asarray(float(out.mean()) * w.sum(0))
    return out if y.axis == x.axis else np.full(len(x.units), float(out.mean()))


def _batch_norm(graph: Graph, coupling: Coupling, node: Node, scores: Scores) -> Back:
    """Times abs(gamma) / sqrt(var + eps)."""
    gamma, variance = (graph.weights.get(node.inputs[i] or "") for i in (1, 4))
    factor = np.ones(1) if gamma is None else np.abs(gamma.astype(np.float64)).reshape(-1)
    if variance is not None:
        factor = factor / np.sqrt(variance.astype(np.float64).reshape(-1) + node.attrs["eps"])
    yield node.inputs[0] or "", scores[node.name] * factor


def _max_pool(graph: Graph, coupling: Coupling, node: Node, scores: Scores) -> Back:
    """Every input of a window may be the largest: each gets the whole score."""
    yield node.inputs[0] or "", scores[node.name] * math.prod(node.attrs["kernel"])


def _lipschitz(graph: Graph, coupling: Coupling, node: Node, scores: Scores) -> Back:
    """Activations: times the steepest slope."""
    slope = STEEPEST.get(node.op) or float(node.attrs["alpha"])
    for name, values in _carried(graph, coupling, node, scores):
        yield name, values * slope


def _sum(graph: Graph, coupling: Coupling, node: Node, scores: Scores) -> Back:
    """A sum over the picture: every position gets the whole score."""
    before, after = graph.value(node.inputs[0] or ""), node.out
    places = math.prod(map(int, before.shape)) / max(math.prod(map(int, after.shape)), 1)
    for name, values in _carried(graph, coupling, node, scores):
        yield name, values * places


def _carried(graph: Graph, coupling: Coupling, node: Node, scores: Scores) -> Back:
    """Everything else: a channel's score goes to the inputs in which its unit lives.

    Element-wise operators copy (a gate counts as a constant), movement carries along, means and average pools share
    out what they take together, concat and split cut: all of it is one rule, by unit. Where an input broadcasts
    along the channels, or has none, there is nothing to carry.
    """
    size = coupling.size
    total = np.zeros(size + 1)
    for value in node.outputs:
        track = coupling.channels.get(value.name)
        if track is None or value.name not in scores or len(track.units) != len(scores[value.name]):
            continue
        units = np.where(track.units < 0, size, track.units)
        np.add.at(total, units, scores[value.name])
    for name in dict.fromkeys(node.inputs):
        track = coupling.channels.get(name or "")
        if track is None or name is None or name in graph.weights:
            continue
        units = np.where(track.units < 0, size, track.units)
        here = np.bincount(units, minlength=size + 1)
        # A unit that lies at several positions shares its score among them: flattening and its reverse.
        yield name, np.where(units < size, total[units] / np.maximum(here[units], 1), 0.0)


# The largest absolute slope of activations where it is not 1.
STEEPEST: Mapping[str, float] = MappingProxyType(
    {"sigmoid": 0.25, "gelu": 1.129, "silu": 1.0998, "hard_swish": 1.5, "mish": 1.0885, "selu": 1.7581}
)

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "conv": _weighted, "conv_transpose": _weighted, "linear": _weighted, "batch_norm": _batch_norm,
        "max_pool": _max_pool, "reduce_sum": _sum, "hard_sigmoid": _lipschitz,
        **dict.fromkeys(STEEPEST, _lipschitz),
    }
)  # fmt: skip
