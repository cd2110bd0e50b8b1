"""Frees the batch: two graphs of one network, traced with different batches, become one.

The graphs must agree node by node. Where only a reshape's or expand's target differs, and only in
one dimension, that dimension is the batch and is respelled so that it follows the input.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from secateur.ir.graph import Graph, Node, Sym, Value
from secateur.ir.infer import infer_node
from secateur.ir.ops import END
from secateur.ir.text import reinfer
from secateur.ir.verify import verify


class _Static(Exception):
    """The traces differ in more than the batch."""


def free_batch(graph: Graph, other: Graph) -> Graph:
    """The graph with a symbolic batch ``N``; the graph as it is where that would not be sound."""
    try:
        freed = _merge(graph, other)
        grown = reinfer(freed.rewrite(inputs=other.inputs))
        if [grown.value(o).shape for o in grown.outputs] != [other.value(o).shape for o in other.outputs]:
            return graph
        return verify(freed)
    except (_Static, ValueError, KeyError, IndexError):
        return graph


def _merge(graph: Graph, other: Graph) -> Graph:
    inputs = tuple(
        Value(a.name, tuple(Sym(m, "N") if m != n else m for m, n in zip(a.shape, b.shape, strict=True)), a.dtype)
        for a, b in zip(graph.inputs, other.inputs, strict=True)
    )
    if len(graph.nodes) != len(other.nodes) or graph.outputs != other.outputs:
        raise _Static
    _same_weights(graph, other)
    known = {v.name: v for v in inputs}
    carrier = next(v for v in inputs if type(v.shape[0]) is Sym)
    nodes: list[Node] = []
    for mine, theirs in zip(graph.nodes, other.nodes, strict=True):
        if mine.op != theirs.op or mine.inputs != theirs.inputs or _moved(mine, theirs):
            raise _Static
        for node in _respelled(mine, theirs, graph, other, carrier):
            ins = [None if i is None else known[i] if i in known else graph.value(i) for i in node.inputs]
            outputs = infer_node(node, ins)
            known.update((v.name, v) for v in outputs)
            nodes.append(Node(node.op, node.inputs, outputs, node.attrs, node.source))
    return graph.rewrite(inputs=inputs, nodes=nodes)


def _moved(mine: Node, theirs: Node) -> bool:
    """An opaque node records its shapes, so it may not see the batch."""
    return mine.op == "opaque" and [v.shape for v in mine.outputs] != [v.shape for v in theirs.outputs]


def _same_weights(graph: Graph, other: Graph) -> None:
    if graph.weights.keys() != other.weights.keys():
        raise _Static
    for name, array in graph.weights.items():
        match = other.weights[name]
        if array.shape != match.shape:
            raise _Static
        if name.startswith("const.") and not np.array_equal(array, match):
            raise _Static


def _respelled(mine: Node, theirs: Node, graph: Graph, other: Graph, carrier: Value) -> Sequence[Node]:
    if mine.attrs == theirs.attrs:
        return (mine,)
    changed = {key for key in mine.attrs if mine.attrs[key] != theirs.attrs.get(key)}
    if changed == {"ends"} and mine.op == "slice":
        return (_slice(mine, theirs, graph, other),)
    if changed != {"shape"} or len(mine.attrs["shape"]) != len(theirs.attrs["shape"]):
        raise _Static
    target = list(mine.attrs["shape"])
    axes = [i for i, (m, n) in enumerate(zip(target, theirs.attrs["shape"], strict=True)) if m != n]
    if len(axes) != 1:
        raise _Static
    if mine.op == "expand":
        return _expand(mine, axes[0], graph, carrier)
    return (_reshape(mine, axes[0], graph, other),)


def _reshape(node: Node, axis: int, graph: Graph, other: Graph) -> Node:
    name = node.inputs[0] or ""
    before, after = graph.value(name).shape, other.value(name).shape
    target = list(node.attrs["shape"])
    follows = axis < len(before) and before[axis] == target[axis] and before[axis] != after[axis]
    if -1 in target and not follows:
        target[target.index(-1)] = node.out.shape[target.index(-1)]
    target[axis] = 0 if follows and -1 in target else -1
    return node.with_attrs(shape=tuple(target))


def _slice(mine: Node, theirs: Node, graph: Graph, other: Graph) -> Node:
    """A slice that ends at its axis' end in both traces ends there always."""
    name, ends = mine.inputs[0] or "", list(mine.attrs["ends"])
    for i, axis in enumerate(mine.attrs["axes"]):
        if ends[i] != theirs.attrs["ends"][i]:
            if (ends[i], theirs.attrs["ends"][i]) != (graph.value(name).shape[axis], other.value(name).shape[axis]):
                raise _Static
            ends[i] = END
    return mine.with_attrs(ends=tuple(ends))


def _expand(node: Node, axis: int, graph: Graph, carrier: Value) -> Sequence[Node]:
    """Repeat a tensor along the batch: ``where(c, x, x)`` broadcasts it to a condition of the batch's shape."""
    name, out = node.inputs[0] or "", node.out
    source = graph.value(name)
    target = list(node.attrs["shape"])
    lead = len(target) - len(source.shape)
    have = source.shape[axis - lead] if axis >= lead else 1
    if have != 1 or int(carrier.shape[0]) != target[axis]:
        raise _Static
    rank = len(carrier.shape)
    base = f"{out.name}.batch"
    rest = tuple(range(1, rank))
    made: list[Node] = []

    def add(op: str, suffix: str, inputs: tuple[str, ...], **attrs: object) -> str:
        made.append(Node(op, inputs, (Value(base + suffix, ()),), attrs, node.source))
        return base + suffix

    row = carrier.name
    if rest:
        ones = (1,) * len(rest)
        row = add("slice", "0", (row,), axes=rest, starts=(0,) * len(rest), ends=ones, steps=ones)
    shape = tuple(-1 if i == axis else 1 for i in range(len(target)))
    row = add("reshape", "1", (row,), shape=shape)
    row = add("eq", "2", (row, row))
    target[axis] = -1
    spread = name
    if any(d != -1 for d in target):
        wide = tuple(1 if d == -1 and i < lead else d for i, d in enumerate(target))
        spread = add("expand", "3", (name,), shape=wide)
    made.append(Node("where", (row, spread, spread), node.outputs, {}, node.source))
    return made
