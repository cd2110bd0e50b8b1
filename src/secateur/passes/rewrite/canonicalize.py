"""``canonicalize``: say the same thing with fewer and plainer operators.

* A chain of reshape and transpose that only permutes channels becomes one ``gather`` along them, so
  that a channel shuffle is an index map whatever survives of it.
* An ``expand`` that only feeds broadcasting element-wise operators goes away.

Before::

    %a = reshape(%x) shape=[1,2,4,8,8] : f32[1, 2, 4, 8, 8]
    %b = transpose(%a) perm=[0,2,1,3,4] : f32[1, 4, 2, 8, 8]
    %y = reshape(%b) shape=[1,8,8,8] : f32[1, 8, 8, 8]

After::

    %y = gather(%x, @y.index) axis=1 : f32[1, 8, 8, 8]
    weights @y.index i64[8] = [0, 4, 1, 5, 2, 6, 3, 7]
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import BINARY, COMPARE, Array, Graph, Node, prune_dead


@dataclass(frozen=True, slots=True)
class Canonicalize:
    """Shuffles to index maps, needless expands away; the graph computes what it did."""

    name: ClassVar[str] = "canonicalize"

    def __call__(self, graph: Graph) -> Graph:
        weights = dict(graph.weights)
        nodes = [_shuffle(graph, node, weights) for node in graph.nodes]
        if any(new is not old for new, old in zip(nodes, graph.nodes, strict=True)):
            graph = graph.rewrite(nodes=nodes, weights=weights)
        return prune_dead(_drop_expands(graph))


def _shuffle(graph: Graph, node: Node, weights: dict[str, Array]) -> Node:
    """The gather that stands for the movement chain which ends in this node, if that is one."""
    if node.op not in ("reshape", "flatten"):
        return node
    middle = _single(graph, node.inputs[0], "transpose")
    first = middle and _single(graph, middle.inputs[0], "reshape")
    if middle is None or first is None or first.inputs[0] is None:
        return node
    source = graph.value(first.inputs[0])
    index = _permutation(source.shape, first.out.shape, middle.attrs["perm"], node.out.shape)
    if index is None:
        return node
    axis, order = index
    name = f"{node.name}.index"
    weights[name] = order
    return dataclasses.replace(node, op="gather", inputs=(source.name, name), attrs={"axis": axis})


def _single(graph: Graph, name: str | None, op: str) -> Node | None:
    """The node that makes ``name``, if it is an ``op`` whose result is used once."""
    if name is None or name in graph.outputs or len(graph.users.get(name, ())) != 1:
        return None
    maker = graph.producer.get(name)
    return maker if maker is not None and maker.op == op else None


def _permutation(
    shape: tuple[int, ...], split: tuple[int, ...], perm: tuple[int, ...], end: tuple[int, ...]
) -> tuple[int, Array] | None:
    """(axis, order) if reshape to ``split``, transpose and reshape back permute one axis only."""
    if shape != end:
        return None
    extra = len(split) - len(shape)
    if extra < 1:
        return None
    for axis, size in enumerate(shape):
        parts = split[axis : axis + extra + 1]
        if split[:axis] != shape[:axis] or split[axis + extra + 1 :] != shape[axis + 1 :] or math.prod(parts) != size:
            continue
        inner = perm[axis : axis + extra + 1]
        outside = [p for p in perm if not axis <= p <= axis + extra]
        if sorted(inner) != list(range(axis, axis + extra + 1)) or outside != sorted(outside):
            continue
        order = np.arange(size).reshape(parts).transpose([p - axis for p in inner]).reshape(-1)
        return axis, order
    return None


def _drop_expands(graph: Graph) -> Graph:
    """Rename an expand's uses to its operand where every user broadcasts it to the same shape."""
    alias: dict[str, str] = {}
    for node in graph.nodes:
        if node.op == "expand" and node.inputs[0] is not None and _broadcasts(graph, node):
            alias[node.name] = alias.get(node.inputs[0], node.inputs[0])
    if not alias:
        return graph
    nodes = [
        dataclasses.replace(n, inputs=tuple(alias.get(i, i) if i else i for i in n.inputs))
        for n in graph.nodes
        if n.name not in alias
    ]
    return graph.rewrite(nodes=nodes)


def _broadcasts(graph: Graph, node: Node) -> bool:
    if node.name in graph.outputs:
        return False
    for user in graph.users.get(node.name, ()):
        if user.op not in BINARY | COMPARE:
            return False
        other = [i for i in user.inputs if i != node.name]
        if not other or other[0] is None:
            return False
        shape = graph.value(other[0]).shape
        maker = graph.producer.get(other[0])
        if shape != user.out.shape or (maker is not None and maker.op == "expand"):
            return False
    return True
