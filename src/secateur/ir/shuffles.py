"""Channel shuffles: reshape, transpose and reshape back, which together permute one axis and move nothing else."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .followed import said
from .graph import Array, Graph, Node
from .infer_movement import slice_range

PIECES = 128  # as many as channels are put together from at most
FEW = 8  # which even a narrow value may be


@dataclass(frozen=True, slots=True)
class Shuffle:
    """A permutation of axis ``axis`` of the value ``source``: split into ``parts``, which change places as ``turn``.

    ``inner`` are the values between, which nothing may read where the chain is to be replaced.
    """

    source: str
    axis: int
    parts: tuple[int, ...]
    turn: tuple[int, ...]
    inner: tuple[str, str]

    @property
    def order(self) -> Array:
        """i64[size of the axis]: which position of the source each position of the result has."""
        size = math.prod(self.parts)
        order: Array = np.arange(size).reshape(self.parts).transpose(self.turn).reshape(-1)
        return order


def shuffle_ending_in(graph: Graph, node: Node, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Shuffle | None:
    """The shuffle whose last operator is ``node``, if it is one.

    ``shapes``: those of ``followed_shapes``, where a dimension that follows the inputs is to be compared at every size
    that it may have; without them, shapes are compared as the graph was captured.
    """
    if node.op not in ("reshape", "flatten"):
        return None
    middle = graph.producer.get(node.inputs[0] or "")
    if middle is None or middle.op != "transpose":
        return None
    first = graph.producer.get(middle.inputs[0] or "")
    if first is None or first.op != "reshape" or first.inputs[0] is None:
        return None
    source = first.inputs[0]
    start, split, end = (_shape(graph, name, shapes) for name in (source, first.name, node.name))
    found = _permuted(start, split, tuple(middle.attrs["perm"]), end)
    return None if found is None else Shuffle(source, *found, (first.name, middle.name))


def grid_of(order: Array) -> int | None:
    """The g for which a permutation i64[n] is that of a [g, n/g] grid read by columns; None where it is no such one."""
    size = len(order)
    if size < 4 or order[0] != 0:
        return None
    width = int(order[1])  # the step from row to row
    if width < 2 or width == size or size % width:
        return None
    return size // width if np.array_equal(order, np.arange(size).reshape(-1, width).T.reshape(-1)) else None


def runs_of(order: Array) -> list[tuple[int, int]]:
    """The (first, end) of consecutive positions that an order i64[n] is made of, in its order."""
    breaks = np.flatnonzero(np.diff(order) != 1) + 1
    return [(int(part[0]), int(part[-1]) + 1) for part in np.split(order, breaks)]


def parts_of(graph: Graph, node: Node, axis: int) -> dict[str, tuple[int, int]] | None:
    """Which positions along ``axis`` of its operand a split or a plain slice hands on; None of other nodes."""
    if node.op == "split" and node.attrs["axis"] == axis:
        ends = list(itertools.accumulate(int(v.shape[axis]) for v in node.outputs))
        return {v.name: (s, e) for v, s, e in zip(node.outputs, [0, *ends], ends, strict=False)}
    if node.op == "slice" and tuple(node.attrs["axes"]) == (axis,) and node.attrs["steps"][0] == 1:
        size = int(graph.value(str(node.inputs[0])).shape[axis])
        taken = slice_range(size, node.attrs["starts"][0], node.attrs["ends"][0], 1)
        return {node.name: (taken.start, taken.stop)} if taken else None
    return None


def read_whole(graph: Graph, shuffle: Node) -> bool:
    """Is a shuffle's result read whole, or in parts of one size?"""
    parts: dict[str, tuple[int, int]] = {}
    for user in graph.users.get(shuffle.name, ()):
        parts |= parts_of(graph, user, shuffle.attrs["axis"]) or {}
    return len({end - start for start, end in parts.values()}) < 2


def few_enough(pieces: int, size: int) -> bool:
    """May ``size`` channels be written in so many pieces? Where it would be most of them singly, an index is better."""
    return pieces <= min(PIECES, max(FEW, size // 2))


def is_permutation(order: Array, size: int) -> bool:
    """Does an index name each of ``size`` positions once, counted from the beginning?"""
    return bool(order.ndim == 1 and len(order) == size and np.array_equal(np.sort(order), np.arange(size)))


def _shape(graph: Graph, name: str, shapes: Mapping[str, tuple[int, ...]] | None) -> tuple[int, ...]:
    shape = graph.value(name).shape
    if shapes is None:
        return shape
    found: tuple[int, ...] = said(shapes.get(name, shape))
    return found


def _permuted(
    shape: tuple[int, ...], split: tuple[int, ...], perm: tuple[int, ...], end: tuple[int, ...]
) -> tuple[int, tuple[int, ...], tuple[int, ...]] | None:
    """(axis, parts, turn) if reshape to ``split``, transpose and reshape to ``end`` permute one axis of fixed size.

    What lies after that axis may be one axis in between: reshapes keep the number of elements, so it is a product.
    """
    if shape != end:
        return None
    for axis, size in enumerate(shape):
        behind = len(shape) - axis - 1
        for tail in {behind, min(behind, 1)}:
            count = len(split) - axis - tail
            parts = split[axis : axis + count]
            if count < 2 or not all(type(d) is int for d in (size, *parts)) or math.prod(parts) != size:
                continue
            if split[:axis] != shape[:axis] or (tail == behind and split[axis + count :] != shape[axis + 1 :]):
                continue
            inner = perm[axis : axis + count]
            outside = [p for p in perm if not axis <= p < axis + count]
            if sorted(inner) == list(range(axis, axis + count)) and outside == sorted(outside):
                return axis, parts, tuple(p - axis for p in inner)
    return None
