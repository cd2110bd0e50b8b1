"""Which axis of a value is its channels: the one that lies in the lanes of vectors. All others are spatial.

``channel_axes`` follows the channels through the graph, so that [n, c, h, w], the same as [n, h, w, c] and the heads
[n, heads, t, c / heads] of an attention are one and the same memory. It decides about speed alone: whoever needs
another axis gets the value converted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from secateur.ir import RESHAPES, Graph, Node
from secateur.ir.ops import BINARY, UNARY

Shape = tuple[int, ...]
Sizes = tuple[int, int, int]
if TYPE_CHECKING:
    from .family import Accepts

SECOND = frozenset(
    {"conv", "conv_transpose", "batch_norm", "group_norm", "instance_norm", "lrn", "max_pool", "avg_pool",
     "adaptive_avg_pool", "adaptive_max_pool", "depth_to_space", "space_to_depth"}
)  # fmt: skip
LAST = frozenset({"linear", "matmul", "layer_norm", "rms_norm", "lstm", "gru", "rnn"})
SAME = frozenset({"concat", "split", "slice", "pad", "roll", "flip", "tile", "where", "cumsum"}) | set(UNARY)


def default_axis(rank: int) -> int:
    """Where channels are if nothing is known: images are [n, c, h, w], rows [.., c]."""
    return 1 if rank in (2, 4) else max(rank - 1, 0)


def channel_axes(graph: Graph) -> Mapping[str, int]:
    """The channel axis of every value."""
    found = {v.name: _entry(graph, v.name) for v in graph.inputs}
    for node in graph.nodes:
        for value in node.outputs:
            found[value.name] = _axis(graph, node, value.shape, found)
    return found


def _entry(graph: Graph, name: str) -> int:
    """An input lies as its first reader would have it."""
    readers = graph.users.get(name, [])
    rank = len(graph.value(name).shape)
    return 1 if rank > 2 and readers and readers[0].op in SECOND else default_axis(rank)


def _axis(graph: Graph, node: Node, shape: Shape, known: Mapping[str, int]) -> int:
    rank = len(shape)
    if node.op in SECOND:
        return 1 if rank > 1 else 0
    if node.op in LAST:
        return max(rank - 1, 0)
    if node.op in {"softmax", "log_softmax"}:
        return int(node.attrs["axis"]) % max(rank, 1)
    if node.op in BINARY | {"prelu"}:
        return _elementwise(graph, node, shape, known)
    name = node.inputs[0] if node.inputs else None
    if name is None or name not in known:
        return default_axis(rank)
    rule = RULES.get(node.op)
    axis = rule(node, graph.value(name).shape, shape, known[name]) if rule else None
    return default_axis(rank) if axis is None or not 0 <= axis < rank else axis


def _elementwise(graph: Graph, node: Node, shape: Shape, known: Mapping[str, int]) -> int:
    for name in node.inputs:
        if name in known and graph.value(name or "").shape == shape:
            return known[name or ""]
    return default_axis(len(shape))


def _reshape(node: Node, before: Shape, after: Shape, axis: int) -> int | None:
    """The axis with as much after it as there was after the channels: they stay, are split, or take others in."""
    inside = math.prod(before[axis + 1 :])
    fits = [j for j in range(len(after)) if math.prod(after[j + 1 :]) == inside]
    return max(fits, key=lambda j: after[j]) if fits else None


def _expand(node: Node, before: Shape, after: Shape, axis: int) -> int | None:
    return axis + len(after) - len(before)


def _reduce(node: Node, before: Shape, after: Shape, axis: int) -> int | None:
    gone = {a % len(before) for a in node.attrs["axes"]}
    if node.attrs["keepdims"]:
        return axis
    return None if axis in gone else axis - sum(a < axis for a in gone)


def _resize(node: Node, before: Shape, after: Shape, axis: int) -> int | None:
    """Sums of neighbours are made block by block where height and width alone change; copies leave the axis be."""
    return 1 if node.attrs["mode"] != "nearest" and len(after) == 4 and before[:2] == after[:2] else axis


def _gather(node: Node, before: Shape, after: Shape, axis: int) -> int | None:
    at = node.attrs["axis"] % len(before)
    if at == axis:
        return axis if len(before) == len(after) else None
    return axis + (len(after) - len(before) if at < axis else 0)


Rule = Callable[[Node, Shape, Shape, int], "int | None"]
RULES: Mapping[str, Rule] = MappingProxyType(
    {
        **dict.fromkeys(SAME, lambda n, b, a, axis: axis),
        **dict.fromkeys(RESHAPES, _reshape),
        **dict.fromkeys(("reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "reduce_var", "reduce_l2"), _reduce),
        "transpose": lambda n, b, a, axis: list(n.attrs["perm"]).index(axis),
        "expand": _expand,
        "resize": _resize,
        "gather": _gather,
    }
)  # fmt: skip


class Axes:
    """A graph, how its values may lie in blocks, and by operator what kernel families accept (``family.Accepts``)."""

    def __init__(self, graph: Graph, accepts: Mapping[str, Accepts]) -> None:
        self.graph, self.channel, self.accepts = graph, channel_axes(graph), accepts

    def blockable(self, name: str | None) -> bool:
        """Can this value lie in blocks?"""
        if name is None or name in self.graph.weights:
            return False
        value = self.graph.value(name)
        return value.dtype == "f32" and len(value.shape) > 0 and math.prod(value.shape) > 0

    def nchw(self, name: str, axis: int | None = None) -> tuple[int, int, int, int]:
        """[n, c, h, w] of a value."""
        axis = self.channel[name] if axis is None else axis
        return nchw(self.graph.value(name).shape, axis)


def pixels(shape: Shape, axis: int) -> Shape:
    """All dimensions but the channels."""
    return tuple(int(d) for i, d in enumerate(shape) if i != axis)


def nchw(shape: Shape, axis: int) -> tuple[int, int, int, int]:
    """[n, c, h, w]: of one axis besides the channels n, of two n and w, of more than three the first ones as one."""
    n, h, w = _three(pixels(shape, axis))
    return n, int(shape[axis]), h, w


def _three(rest: Shape) -> Sizes:
    if len(rest) == 3:
        return rest[0], rest[1], rest[2]
    if len(rest) > 3:
        return math.prod(rest[:-2]), rest[-2], rest[-1]
    return (rest[0] if rest else 1, 1, rest[1] if len(rest) == 2 else 1)


def broadcast(small: Shape, shape: Shape, axis: int) -> tuple[Sizes, bool] | None:
    """How a value of shape ``small`` (the same rank) spreads over one of ``shape``.

    Which of n, h and w it has (as sizes, 1 where it is repeated), and whether it has channels; None where it does not
    fit, or where it has some of the axes that make up n and not the others.
    """
    if len(small) != len(shape) or any(a not in (1, b) for a, b in zip(small, shape, strict=True)):
        return None
    rest, full = pixels(small, axis), pixels(shape, axis)
    lead = [(a, b) for a, b in zip(rest[:-2], full[:-2], strict=True) if b != 1]
    if len(full) > 3 and any(a == 1 for a, _ in lead) and any(a != 1 for a, _ in lead):
        return None
    return _three(rest), small[axis] == shape[axis]
