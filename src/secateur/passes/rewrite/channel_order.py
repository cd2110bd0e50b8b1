"""Who reads a value, and in which other order of channels they could read it.

A **passage** says what a reader does with the channels of an operand: the order may go on to its outputs, its own
weights take it, and positions may change places only inside of their block.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from secateur.ir import BINARY, REDUCE, UNARY, Array, Graph, Node
from secateur.ir.infer_movement import slice_range
from secateur.ir.shuffles import is_permutation

OWN = "const."  # what a cut's own constants are called, which no recipe can list
_SPATIAL = frozenset({"max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "resize"})


@dataclass(frozen=True)
class Run:
    """``length`` channels from ``start`` of an operand, which stand from ``place`` on along ``axis`` of ``value``."""

    value: str
    axis: int
    start: int
    place: int
    length: int


@dataclass(frozen=True)
class Columns:
    """An axis of a weight that has the operand's channels; ``groups``: its positions count inside of a group."""

    weight: str
    axis: int
    groups: int = 1


@dataclass(frozen=True, eq=False)
class Passage:
    """Where channels go on to, the weights that follow their order, and the block of each (i64[channels])."""

    block: Array
    runs: tuple[Run, ...] = ()
    weights: tuple[Columns, ...] = ()


def freedom(graph: Graph, name: str, axis: int) -> Array:
    """i64[channels]: positions with the same number may change places, as far as all that reads the value goes."""
    size = graph.value(name).shape[axis]
    block: Array = np.arange(size) if name in graph.outputs else np.zeros(size, np.int64)
    for user in graph.users.get(name, ()):
        for index, operand in enumerate(user.inputs):
            if operand != name:
                continue
            found = passage(graph, user, index, axis)
            if found is None:
                return np.arange(size)
            parts = [block, found.block]
            for run in found.runs:
                part = np.full(size, -1)
                part[run.start : run.start + run.length] = freedom(graph, run.value, run.axis)[
                    run.place : run.place + run.length
                ]
                parts.append(part)
            block = np.unique(np.stack(parts), axis=1, return_inverse=True)[1].reshape(-1)
    return block


def destinations(graph: Graph, name: str, axis: int, places: Mapping[str, int]) -> Array:
    """i64[channels]: positions with the same number are read by the same layers, after joins, shuffles and splits.

    ``places``: where each node stands in the graph; what is read sooner has the lower number.
    """
    size = int(graph.value(name).shape[axis])
    found = [np.zeros(size, np.int64)]
    for user in graph.users.get(name, ()):
        index = user.inputs.index(name)
        order = graph.weights.get(str(user.inputs[1])) if user.op == "gather" and index == 0 else None
        part = np.full(size, -1)
        if order is not None and user.attrs["axis"] == axis and is_permutation(order, size):
            part = destinations(graph, user.name, axis, places)[np.argsort(order)]
        elif user.op in ("concat", "split", "slice") and (on := passage(graph, user, index, axis)) is not None:
            for run in on.runs:
                far = destinations(graph, run.value, run.axis, places)
                part[run.start : run.start + run.length] = far[run.place : run.place + run.length]
        else:
            part[:] = places[user.name]
        found.append(part)
    if len(found) == 2:
        return found[1]
    return np.unique(np.stack(found), axis=1, return_inverse=True)[1].reshape(-1)


def passage(graph: Graph, node: Node, index: int, axis: int) -> Passage | None:
    """What this reader does with channels along ``axis`` of its operand ``index``; None where their order must stay."""
    name = str(node.inputs[index])
    size = int(graph.value(name).shape[axis])
    one = np.zeros(size, np.int64)
    if node.op == "concat" and node.attrs["axis"] == axis:
        place = sum(int(graph.value(str(i)).shape[axis]) for i in node.inputs[:index])
        return Passage(one, (Run(node.name, axis, 0, place, size),))
    if node.op in BINARY:
        return _binary(graph, node, index, axis)
    if index:
        return None
    on = (Run(node.name, axis, 0, 0, size),)
    if node.op in UNARY or node.op == "cast" or (node.op in _SPATIAL and axis == 1):
        return Passage(one, on)
    if node.op == "transpose":
        return Passage(one, (Run(node.name, node.attrs["perm"].index(axis), 0, 0, size),))
    if node.op == "gather" and node.attrs["axis"] == axis:
        return Passage(one) if node.inputs[1] in graph.weights else None
    if node.op in ("split", "slice"):
        return _part(graph, node, axis, size)
    if node.op in REDUCE or node.op == "flatten":
        return _flatter(graph, node, axis, size)
    return _with_weights(graph, node, axis, size)


@dataclass(frozen=True, eq=False)
class Rows:
    """Layers whose rows make ``length`` channels of a value from ``start`` on, and all that follows their order.

    ``block`` (i64[length]): positions with the same number may change places.
    """

    start: int
    block: Array
    weights: tuple[Columns, ...]


def made_by(graph: Graph, name: str, axis: int, start: int = 0) -> tuple[Rows, ...]:
    """The layers that make a value whose channels nothing else reads: through joins, and what keeps channels apart."""
    weights: list[Columns] = []
    while len(graph.users.get(name, ())) == 1 and name not in graph.outputs and name in graph.producer:
        node = graph.producer[name]
        shape = graph.value(name).shape
        size, given = int(shape[axis]), [str(w) for w in node.inputs[1:] if w is not None]
        groups = int(node.attrs["groups"]) if node.op == "conv" else 1
        if node.op == "concat" and node.attrs["axis"] == axis and len(set(node.inputs)) == len(node.inputs):
            if weights:
                return ()
            widths = [int(graph.value(str(i)).shape[axis]) for i in node.inputs]
            starts = np.cumsum([start, *widths[:-1]]).tolist()
            return tuple(r for i, s in zip(node.inputs, starts, strict=True) for r in made_by(graph, str(i), axis, s))
        if (node.op == "conv" and axis == 1 and groups < size) or (node.op == "linear" and axis == len(shape) - 1):
            rows = 1 if node.attrs.get("transposed") else 0
            weights += [Columns(given[0], rows), *(Columns(w, 0) for w in given[1:])]
            plain = [Columns(c.weight, c.axis) for c in weights]
            return (Rows(start, np.arange(size) // (size // groups), tuple(plain)),) if _own(graph, plain) else ()
        found = passage(graph, node, 0, axis) if node.inputs and node.inputs[0] is not None else None
        if found is None or found.runs != (Run(name, axis, 0, 0, size),) or found.block.any():
            return ()
        weights += found.weights
        name = str(node.inputs[0])
    return ()


def _own(graph: Graph, weights: Iterable[Columns]) -> bool:
    """Do these belong to one reader alone, and to the network that was cut?"""
    names = [c.weight for c in weights]
    return all(n in graph.weights and len(graph.users[n]) == 1 and not n.startswith(OWN) for n in names) and len(
        set(names)
    ) == len(names)


def _binary(graph: Graph, node: Node, index: int, axis: int) -> Passage | None:
    """An element-wise operator with a constant, which takes the order along its own axis."""
    name, other = str(node.inputs[index]), str(node.inputs[1 - index])
    rank, size = len(node.out.shape), int(graph.value(name).shape[axis])
    if other not in graph.weights:
        return None
    out = axis + rank - len(graph.value(name).shape)
    local = out - rank + graph.weights[other].ndim
    runs = (Run(node.name, out, 0, 0, size),)
    if local < 0 or graph.weights[other].shape[local] == 1:
        return Passage(np.zeros(size, np.int64), runs)
    columns = (Columns(other, local),)
    return Passage(np.zeros(size, np.int64), runs, columns) if _own(graph, columns) and size > 1 else None


def _part(graph: Graph, node: Node, axis: int, size: int) -> Passage | None:
    """Split and slice: each part keeps its own channels."""
    block = np.full(size, -1)
    if node.op == "split":
        ends = [int(v.shape[node.attrs["axis"]]) for v in node.outputs]
        if node.attrs["axis"] != axis:
            return Passage(np.zeros(size, np.int64), tuple(Run(v.name, axis, 0, 0, size) for v in node.outputs))
        starts = np.cumsum([0, *ends[:-1]]).tolist()
        runs = tuple(Run(v.name, axis, s, 0, n) for v, s, n in zip(node.outputs, starts, ends, strict=True))
    else:
        a = node.attrs
        if axis not in a["axes"]:
            return Passage(np.zeros(size, np.int64), (Run(node.name, axis, 0, 0, size),))
        k = a["axes"].index(axis)
        taken = slice_range(size, a["starts"][k], a["ends"][k], a["steps"][k])
        if a["axes"].count(axis) > 1 or a["steps"][k] != 1 or not len(taken):
            return None
        runs = (Run(node.name, axis, taken[0], 0, len(taken)),)
    for number, run in enumerate(runs):
        block[run.start : run.start + run.length] = number
    return Passage(block, runs)


def _flatter(graph: Graph, node: Node, axis: int, size: int) -> Passage | None:
    """Reductions over other axes, and flattening of what has one position for each channel."""
    shape = graph.value(str(node.inputs[0])).shape
    if node.op == "flatten":
        start, end = node.attrs["start"], node.attrs["end"] % len(shape)
        fits = start == axis and all(type(d) is int and d == 1 for d in shape[axis + 1 : end + 1])
        return Passage(np.zeros(size, np.int64), (Run(node.name, axis, 0, 0, size),)) if fits else None
    axes = {a % len(shape) for a in node.attrs["axes"]}
    if axis in axes or not axes:
        return None
    out = axis if node.attrs["keepdims"] else axis - sum(a < axis for a in axes)
    return Passage(np.zeros(size, np.int64), (Run(node.name, out, 0, 0, size),))


def _with_weights(graph: Graph, node: Node, axis: int, size: int) -> Passage | None:
    """Layers: a channel's parameters go with it, and columns take the order in which they are read."""
    given = [str(w) for w in node.inputs[1:] if w is not None]
    block: Array = np.zeros(size, np.int64)
    runs: tuple[Run, ...] = (Run(node.name, axis, 0, 0, size),)
    rank = len(graph.value(str(node.inputs[0])).shape)
    if node.op == "batch_norm" and axis == 1:
        columns = tuple(Columns(w, 0) for w in given)
    elif node.op == "conv" and axis == 1 and node.attrs["groups"] == size == node.out.shape[1]:
        columns = tuple(Columns(w, 0) for w in given)
    elif node.op == "conv" and axis == 1 and node.attrs["groups"] < size:
        groups = int(node.attrs["groups"])
        block, runs = np.arange(size) // (size // groups), ()
        columns = (Columns(given[0], 1, groups),)
    elif node.op == "linear" and axis == rank - 1:
        columns, runs = (Columns(given[0], 0 if node.attrs["transposed"] else 1),), ()
    elif node.op == "prelu" and axis == 1 and given[0] in graph.weights:
        columns = () if graph.weights[given[0]].size == 1 else (Columns(given[0], 0),)
    else:
        return None
    return Passage(block, runs, columns) if _own(graph, columns) else None
