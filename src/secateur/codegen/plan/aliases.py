"""Values that are other lists of blocks that are there already, and the halos they share with them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from secateur.ir import RESHAPES, Node
from secateur.ir.shuffles import shuffle_ending_in

from .axes import Axes

ALIAS = frozenset({"identity", "dropout"})


def shuffles(axes: Axes) -> dict[str, tuple[str, int]]:
    """Channel shuffles spelt reshape, transpose, reshape: the result's name -> (input, groups)."""
    found: dict[str, tuple[str, int]] = {}
    for node in axes.graph.nodes:
        shuffle = shuffle_ending_in(axes.graph, node)
        if shuffle is None or shuffle.turn != (1, 0) or shuffle.axis != 1:
            continue
        ends = (shuffle.source, node.out.name)
        if all(axes.blockable(name) and axes.channel[name] == 1 for name in ends):
            found[node.out.name] = (shuffle.source, shuffle.parts[0])
    return found


def aliases(axes: Axes) -> Mapping[str, tuple[str, ...]]:
    """Values that are other lists of the same blocks, of the same spatial extent: result -> what it is made of."""
    found: dict[str, tuple[str, ...]] = {name: (x,) for name, (x, _) in shuffles(axes).items()}
    for node in axes.graph.nodes:
        data = [n for n in node.inputs if n is not None]
        if not data or not axes.blockable(data[0]) or not all(axes.blockable(v.name) for v in node.outputs):
            continue
        if node.op == "concat":
            if all(axes.blockable(n) and axes.channel[n] == node.attrs["axis"] for n in data):
                found[node.out.name] = tuple(data)
        elif _is_alias(axes, node, data):
            found.update({v.name: (data[0],) for v in node.outputs})
    return found


def _is_alias(axes: Axes, node: Node, data: list[str]) -> bool:
    """Is this node with one input of data free: a choice among its channels, or the same values under another name?"""
    a, axis, name = node.attrs, axes.channel[data[0]], node.out.name
    if node.op in ALIAS:
        return True
    if node.op == "split":
        return bool(a["axis"] == axis)
    if node.op == "slice":
        return tuple(a["axes"]) == (axis,) and a["steps"][0] > 0
    if node.op == "gather":
        index = axes.graph.weights.get(node.inputs[1] or "")
        if a["axis"] != axis or index is None or index.ndim != 1:
            return False
        return bool(np.unique(index % axes.graph.value(data[0]).shape[axis]).size == index.size)
    if node.op not in RESHAPES | {"transpose"} or axes.nchw(data[0]) != axes.nchw(name):
        return False
    before, after, to = axes.graph.value(data[0]).shape, node.out.shape, axes.channel[name]
    if node.op in RESHAPES:
        return math.prod(before[axis + 1 :]) == math.prod(after[to + 1 :])
    order = [p for p in a["perm"] if p != axis and before[p] != 1]
    return order == sorted(order) and a["perm"][to] == axis


def halos(axes: Axes, same: Mapping[str, tuple[str, ...]], read: Iterable[tuple[str, int]]) -> dict[str, int]:
    """The halo each value's blocks need, by value: the widest of those that kernels ``read`` around a value."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.get(name, name) != name:
            parent[name] = parent.get(parent[name], parent[name])
            name = parent[name]
        return name

    for name, sources in same.items():
        for source in sources:
            parent[root(name)] = root(source)
    need: dict[str, int] = {}
    for name, halo in read:
        at = root(name)
        need[at] = max(need.get(at, 0), halo)
    return {name: need.get(root(name), 0) for name in axes.graph.values}
