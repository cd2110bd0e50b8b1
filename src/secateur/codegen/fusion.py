"""Which operators become one kernel: a producer and the element-wise operators on its way to memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from secateur.ir import Graph, Node

from .specs import FUSABLE_BINARY, FUSABLE_UNARY

ALIAS = frozenset({"identity", "dropout"})


@dataclass(frozen=True)
class Chain:
    """A head and what is applied to its result before it is written."""

    head: Node
    tail: tuple[Node, ...] = ()

    @property
    def last(self) -> Node:
        """The node whose result the kernel writes."""
        return self.tail[-1] if self.tail else self.head


def picture(shape: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    """[n, c, h, w] of a value that can lie in blocks."""
    if len(shape) == 4:
        return shape[0], shape[1], shape[2], shape[3]
    return (shape[0], shape[1], 1, 1) if len(shape) == 2 else None


def blockable(graph: Graph, name: str | None) -> bool:
    """Can this value lie in blocks?"""
    if name is None or name in graph.weights:
        return False
    value = graph.value(name)
    return value.dtype == "f32" and picture(value.shape) is not None and math.prod(value.shape) > 0


def per_channel(graph: Graph, name: str | None, shape: tuple[int, ...]) -> bool:
    """Is this a weight with one number per channel, or one in all, for a value of this shape?"""
    if name is None or name not in graph.weights or graph.value(name).dtype != "f32":
        return False
    weight = graph.weights[name].shape
    full = (1,) * (len(shape) - len(weight)) + tuple(weight)
    return len(full) == len(shape) and all(d == 1 or (i == 1 and d == shape[1]) for i, d in enumerate(full))


def is_vector(graph: Graph, name: str | None, shape: tuple[int, ...]) -> bool:
    """Is this a value with one number per image and channel, for a value [n, c, h, w] of this shape?"""
    if not blockable(graph, name) or len(shape) != 4:
        return False
    return graph.value(name or "").shape == (*shape[:2], 1, 1) != shape


def is_elementwise(graph: Graph, node: Node) -> bool:
    """Can the templates apply this node to vectors?"""
    if not blockable(graph, node.out.name):
        return False
    shape = node.out.shape
    if node.op in FUSABLE_UNARY:
        return blockable(graph, node.inputs[0])
    if node.op == "batch_norm":
        return blockable(graph, node.inputs[0]) and all(
            n is None or (n in graph.weights and graph.weights[n].size in (1, shape[1])) for n in node.inputs[1:]
        )
    if node.op == "prelu":
        w = node.inputs[1]
        fits = w in graph.weights and graph.weights[w or ""].shape in ((shape[1],), (1,))
        return bool(fits or per_channel(graph, w, shape)) and blockable(graph, node.inputs[0])
    if node.op not in FUSABLE_BINARY:
        return False
    base = base_input(graph, node)
    return base is not None and all(i == base or _operand(graph, name, shape) for i, name in enumerate(node.inputs))


def _operand(graph: Graph, name: str | None, shape: tuple[int, ...]) -> bool:
    if blockable(graph, name) and graph.value(name or "").shape == shape:
        return True
    return per_channel(graph, name, shape) or is_vector(graph, name, shape)


def base_input(graph: Graph, node: Node) -> int | None:
    """Which input of a binary operator has the shape of the result and is computed."""
    for i, name in enumerate(node.inputs):
        if blockable(graph, name) and graph.value(name or "").shape == node.out.shape:
            return i
    return None


def is_head(graph: Graph, node: Node) -> bool:
    """Is there a template that computes this node?"""
    x = node.inputs[0] if node.inputs else None
    if node.op not in HEADS or len(node.outputs) != 1 or not (blockable(graph, x) and blockable(graph, node.out.name)):
        return False
    return HEADS[node.op](graph, node, graph.value(x or "").shape)


def _constant(graph: Graph, node: Node) -> bool:
    return all(n is None or n in graph.weights for n in node.inputs[1:])


def _pool(graph: Graph, node: Node, shape: tuple[int, ...]) -> bool:
    a = node.attrs
    divisor_is_known = not a["ceil"] or node.op == "max_pool" or not a["include_pad"]
    return len(shape) == 4 and min(a["pad"]) >= 0 and divisor_is_known


def _reduce(graph: Graph, node: Node, shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and tuple(sorted(node.attrs["axes"])) == (2, 3)


# Nodes that templates compute, by operator: (graph, node, shape of the first input) -> is it of the kind they know?
# ``planners.PLANNERS`` has the same rows.
HEADS: Mapping[str, Callable[[Graph, Node, tuple[int, ...]], bool]] = MappingProxyType(
    {
        "conv": lambda g, n, s: len(s) == 4 and _constant(g, n) and min(n.attrs["pad"]) >= 0,
        "linear": lambda g, n, s: len(s) == 2 and _constant(g, n),
        "max_pool": _pool,
        "avg_pool": _pool,
        "adaptive_avg_pool": lambda g, n, s: len(s) == 4 and _even(s[2:], n.attrs["size"]),
        "reduce_mean": _reduce,
        "reduce_sum": _reduce,
        "reduce_max": _reduce,
    }
)


def _even(size: tuple[int, ...], out: tuple[int, ...]) -> bool:
    return all(s % o == 0 for s, o in zip(size, out, strict=True))


def chains(graph: Graph) -> dict[str, Chain]:
    """The kernels, by the name of the value each writes.

    A value flows into a chain if nobody else reads it. Of two producers the later one takes the operator that joins
    them: what the other has computed is then there.
    """
    outputs = set(graph.outputs)
    order = {node.name: i for i, node in enumerate(graph.nodes)}
    elementwise = {node.name for node in graph.nodes if is_elementwise(graph, node)}
    heads = {node.name for node in graph.nodes if is_head(graph, node)} | elementwise
    previous: dict[str, Node] = {}
    for node in graph.nodes:
        if node.name not in elementwise:
            continue
        candidates = [
            graph.producer[name] for name in dict.fromkeys(node.inputs)
            if name is not None and name in graph.producer and name in heads and name not in outputs
            and graph.value(name).shape == node.out.shape and graph.users[name] == [node]
            and node.inputs.count(name) == 1
        ]  # fmt: skip
        if candidates:
            previous[node.name] = max(candidates, key=lambda n: order[n.name])
    following = {before.name: graph.producer[name] for name, before in previous.items()}
    found: dict[str, Chain] = {}
    for node in graph.nodes:
        if node.name not in heads or node.name in previous:
            continue
        tail: list[Node] = []
        at = node
        while at.name in following:
            at = following[at.name]
            tail.append(at)
        chain = Chain(node, tuple(tail))
        found[chain.last.name] = chain
    return found


def shuffles(graph: Graph) -> dict[str, tuple[str, int]]:
    """Channel shuffles spelt reshape, transpose, reshape: the result's name -> (input, groups)."""
    found: dict[str, tuple[str, int]] = {}
    for node in graph.nodes:
        if node.op not in {"reshape", "flatten"} or not blockable(graph, node.out.name):
            continue
        turn = graph.producer.get(node.inputs[0] or "")
        if turn is None or turn.op != "transpose" or tuple(turn.attrs["perm"]) != (0, 2, 1, 3, 4):
            continue
        cut = graph.producer.get(turn.inputs[0] or "")
        if cut is None or cut.op != "reshape" or not blockable(graph, cut.inputs[0]):
            continue
        x = graph.value(cut.inputs[0] or "")
        split = (cut.out.shape[1] * cut.out.shape[2], *cut.out.shape[3:])
        if x.shape == node.out.shape and split == x.shape[1:]:
            found[node.out.name] = (x.name, int(cut.out.shape[1]))
    return found


def moves(graph: Graph) -> Mapping[str, tuple[str, ...]]:
    """Values that are other lists of the same blocks: result -> what it is made of."""
    found: dict[str, tuple[str, ...]] = {name: (x,) for name, (x, _) in shuffles(graph).items()}
    for node in graph.nodes:
        if not all(blockable(graph, v.name) for v in node.outputs):
            continue
        data = [n for n in node.inputs if n is not None]
        if not data or not blockable(graph, data[0]):
            continue
        a = node.attrs
        if node.op in ALIAS:
            found[node.out.name] = (data[0],)
        elif node.op == "concat" and a["axis"] == 1 and all(blockable(graph, n) for n in data):
            found[node.out.name] = tuple(data)
        elif node.op == "split" and a["axis"] == 1:
            found.update({v.name: (data[0],) for v in node.outputs})
        elif node.op == "slice" and tuple(a["axes"]) == (1,) and a["steps"][0] > 0:
            found[node.out.name] = (data[0],)
        elif node.op == "gather" and a["axis"] == 1 and node.inputs[1] in graph.weights:
            index = graph.weights[node.inputs[1] or ""]
            if index.ndim == 1 and np.unique(index % graph.value(data[0]).shape[1]).size == index.size:
                found[node.out.name] = (data[0],)
        elif node.op in {"reshape", "flatten", "squeeze", "unsqueeze"}:
            before, after = graph.value(data[0]).shape, node.out.shape
            if before[:2] == after[:2] and picture(before) == picture(after):
                found[node.out.name] = (data[0],)
    return found


def margins(graph: Graph, same: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """The margin each value's blocks need, by value: the widest pad of the convolutions that read them."""
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
    for node in graph.nodes:
        if node.op == "conv" and is_head(graph, node):
            at = root(node.inputs[0] or "")
            need[at] = max(need.get(at, 0), *node.attrs["pad"])
    return {name: need.get(root(name), 0) for name in graph.values}
