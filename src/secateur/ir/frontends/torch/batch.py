"""Frees the batch: two graphs of one network, traced with different batches, become one.

The graphs must agree node by node. Where a reshape's or expand's target or the end of a slice differs, it is
respelled so that it follows what it reads. Sizes besides the batch may differ as well: then the one graph holds at
all sizes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from secateur.ir.graph import Graph, Node, Sym, Value
from secateur.ir.infer import infer_node
from secateur.ir.ops import END
from secateur.ir.text import reinfer
from secateur.ir.verify import verify


class _Static(Exception):
    """The traces differ in more than the IR can say."""


def free_batch(graph: Graph, other: Graph) -> Graph | None:
    """The graph with a symbolic batch ``N``, which holds at the other's sizes too; None where that cannot be said."""
    try:
        freed = _merge(graph, other)
        grown = _at_sizes_of(freed, other)
        if [grown.value(o).shape for o in grown.outputs] != [other.value(o).shape for o in other.outputs]:
            return None
        return verify(freed)
    except (_Static, ValueError, KeyError, IndexError):
        return None


def _at_sizes_of(freed: Graph, other: Graph) -> Graph:
    """The graph at the other's sizes; opaque nodes have the shapes that the other recorded."""
    nodes = [
        dataclasses.replace(n, outputs=tuple(other.value(v.name) for v in n.outputs)) if n.op == "opaque" else n
        for n in freed.nodes
    ]
    return reinfer(freed.rewrite(inputs=other.inputs, nodes=nodes))


def _merge(graph: Graph, other: Graph) -> Graph:
    inputs = tuple(
        Value(a.name, tuple(Sym(m, "N") if m != n and not i else m for i, (m, n) in _pairs(a, b)), a.dtype)
        for a, b in zip(graph.inputs, other.inputs, strict=True)
    )
    if len(graph.nodes) != len(other.nodes) or graph.outputs != other.outputs:
        raise _Static
    _same_weights(graph, other)
    known = {v.name: v for v in inputs}
    carrier = next((v for v in inputs if v.shape and type(v.shape[0]) is Sym), None)
    if carrier is None:  # the traces have the same batch
        raise _Static
    nodes: list[Node] = []
    for mine, theirs in zip(graph.nodes, other.nodes, strict=True):
        if mine.op != theirs.op or mine.inputs != theirs.inputs:
            raise _Static
        if mine.op == "opaque":
            mine = dataclasses.replace(mine, outputs=_recorded(mine, theirs, carrier, other))
        for node in _respelled(mine, theirs, graph, other, carrier):
            ins = [None if i is None else known[i] if i in known else graph.value(i) for i in node.inputs]
            outputs = infer_node(node, ins)
            known.update((v.name, v) for v in outputs)
            nodes.append(Node(node.op, node.inputs, outputs, node.attrs, node.source))
    return graph.rewrite(inputs=inputs, nodes=nodes)


def _pairs(a: Value, b: Value) -> Iterator[tuple[int, tuple[int, int]]]:
    return enumerate(zip(a.shape, b.shape, strict=True))


def _recorded(mine: Node, theirs: Node, carrier: Value, other: Graph) -> tuple[Value, ...]:
    """What an opaque node gives: its shapes are records, in which only the batch may follow the input."""
    batch = (int(carrier.shape[0]), other.value(carrier.name).shape[0])
    outputs = []
    for a, b in zip(mine.outputs, theirs.outputs, strict=True):
        if any(m != n and (i or (m, n) != batch) for i, (m, n) in _pairs(a, b)):
            raise _Static
        outputs.append(Value(a.name, tuple(carrier.shape[0] if m != n else m for _, (m, n) in _pairs(a, b)), a.dtype))
    return tuple(outputs)


def _same_weights(graph: Graph, other: Graph) -> None:
    """Computed weights may depend on the sizes; the module's own are the same memory."""
    if graph.weights.keys() != other.weights.keys():
        raise _Static
    for name, array in graph.weights.items():
        match = other.weights[name]
        if array.shape != match.shape:
            raise _Static
        own = array.ctypes.data == match.ctypes.data and array.strides == match.strides
        if not own and not np.array_equal(array, match):
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
    if mine.op == "expand":
        return _expand(mine, theirs, axes, graph, other, carrier)
    return (_reshape(mine, theirs, axes, graph, other),)


def _reshape(node: Node, theirs: Node, axes: Sequence[int], graph: Graph, other: Graph) -> Node:
    """0 copies a dimension that stands where it stood; one other may be -1."""
    name = node.inputs[0] or ""
    before, after = graph.value(name).shape, other.value(name).shape
    target = list(node.attrs["shape"])
    follow = [i for i in axes if i < len(before) and (before[i], after[i]) == (target[i], theirs.attrs["shape"][i])]
    rest = [i for i in axes if i not in follow]
    if len(rest) > 1:
        raise _Static
    if rest and -1 in target:
        at = target.index(-1)
        if node.out.shape[at] != theirs.out.shape[at]:
            raise _Static
        target[at] = node.out.shape[at]
    if not rest and -1 not in target:
        rest, follow = follow[:1], follow[1:]
    for i in follow:
        target[i] = 0
    for i in rest:
        target[i] = -1
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


def _expand(
    node: Node, theirs: Node, axes: Sequence[int], graph: Graph, other: Graph, carrier: Value
) -> Sequence[Node]:
    """Repeat a tensor along the batch: ``where(c, x, x)`` broadcasts it to a condition of the batch's shape."""
    name, out = node.inputs[0] or "", node.out
    source, grown = graph.value(name), other.value(name)
    target = list(node.attrs["shape"])
    lead = len(target) - len(source.shape)
    for i in axes:
        if i >= lead and (source.shape[i - lead], grown.shape[i - lead]) == (target[i], theirs.attrs["shape"][i]):
            target[i] = -1  # it has this size already
    axes = [i for i in axes if target[i] != -1]
    if not axes:
        return (node.with_attrs(shape=tuple(target)),)
    axis = axes[0]
    have = source.shape[axis - lead] if axis >= lead else 1
    batch = (int(carrier.shape[0]), other.value(carrier.name).shape[0])
    if len(axes) > 1 or have != 1 or batch != (target[axis], theirs.attrs["shape"][axis]):
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
