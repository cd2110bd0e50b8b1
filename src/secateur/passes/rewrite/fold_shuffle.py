"""``fold_shuffle``: permutations of channels into the weights around them.

A permutation moves through whatever works channel by channel and ends in the rows of the layer before or the columns of
those after. What stands between two grouped convolutions, or before a split, can end nowhere: it stays an index map,
which generated code carries along without moving anything.

Before::

    %c = conv(%x, @c.weight) groups=1 .. : f32[1, 8, 4, 4]
    %s = gather(%c, @s.index) axis=1 : f32[1, 8, 4, 4]
    %y = conv(%s, @d.weight) groups=2 .. : f32[1, 8, 4, 4]
    weights @s.index i64[8] = [0, 4, 1, 5, 2, 6, 3, 7]

After, with the rows of ``@c.weight`` in that order::

    %c = conv(%x, @c.weight) groups=1 .. : f32[1, 8, 4, 4]
    %y = conv(%c, @d.weight) groups=2 .. : f32[1, 8, 4, 4]
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from secateur.ir import UNARY, Array, Graph, Node, prune_dead

from .canonicalize import Canonicalize
from .layers import Row, noted

POOLS = frozenset({"max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "resize", "cast"})
AXIS = 1  # channels


@dataclass(frozen=True)
class FoldShuffle:
    """Permutations of channels in the weights around them; exact up to the order in which sums run.

    Chains of movement operators become permutations first, as ``canonicalize`` does it.
    """

    name: ClassVar[str] = "fold_shuffle"
    reorders: ClassVar[bool] = True

    def __call__(self, graph: Graph) -> Graph:
        """Never refuses: a permutation that must stay is named in the report with the reason."""
        graph = Canonicalize()(graph)
        rows: list[Row] = []
        for name in [n.name for n in graph.nodes if permutation(graph, n) is not None]:
            node = graph.producer.get(name)
            order = None if node is None else permutation(graph, node)
            if node is None or order is None:  # merged into another one
                continue
            done = absorb(graph, node, order)
            where = Row(node.label, node.name, self.name, error=0.0, measure="exact")
            rows.append(dataclasses.replace(where, error=None, reason=done) if isinstance(done, str) else where)
            graph = graph if isinstance(done, str) else done
        return noted(graph, rows)


def permutation(graph: Graph, node: Node) -> Array | None:
    """The order of channels that a gather puts its input in, if it keeps all."""
    if node.op != "gather" or node.attrs["axis"] != AXIS or node.inputs[1] not in graph.weights:
        return None
    order = graph.weights[str(node.inputs[1])]
    size = graph.value(str(node.inputs[0])).shape[AXIS]
    if order.ndim != 1 or not np.array_equal(np.sort(order), np.arange(size)):
        return None
    return order


def absorb(graph: Graph, node: Node, order: Array) -> Graph | str:
    """The graph without this permutation, or why it has to stay."""
    found = _Move(graph)
    up = found.up(str(node.inputs[0]), order)
    if up is None:
        return found.without(node)
    found = _Move(graph)
    down = found.down(node.name, np.argsort(order), order)
    if down is None:
        return found.without(node)
    return f"before it {up}, after it {down}"


@dataclass
class _Move:
    """Weights in their new order, gathered while a permutation is followed; nothing happens until ``without``."""

    graph: Graph
    weights: dict[str, Array] = field(default_factory=dict)

    def without(self, gather: Node) -> Graph:
        """The graph with the new weights, and the gather's readers reading what it read; an output keeps its name."""
        source = gather.inputs[0]
        named = [Node("identity", (source,), gather.outputs, {}, gather.source)]
        nodes: list[Node] = []
        for n in self.graph.nodes:
            moved = dataclasses.replace(n, inputs=tuple(source if i == gather.name else i for i in n.inputs))
            nodes += [moved] if n is not gather else named if gather.name in self.graph.outputs else []
        return prune_dead(self.graph.rewrite(nodes=nodes, weights={**self.graph.weights, **self.weights}))

    def take(self, weight: str | None, order: Array, axis: int = 0) -> str | None:
        """Permute a weight along an axis; answers with the reason why it cannot be."""
        if weight is None:
            return None
        if weight not in self.graph.weights:
            return f"'{weight}' is computed by the network"
        if len(self.graph.users[weight]) > 1:
            return f"weight '{weight}' is shared"
        old = self.weights.get(weight, self.graph.weights[weight])
        self.weights[weight] = np.take(old, order, axis=axis)
        return None

    def parameters(self, node: Node, order: Array) -> str | None:
        """Permute what a node applies channel by channel; the reason where it does not work so."""
        if node.op in UNARY or node.op in POOLS:
            return None
        width = len(order)
        if node.op == "batch_norm":
            return next(filter(None, [self.take(w, order) for w in node.inputs[1:5]]), None)
        if node.op == "conv" and node.attrs["groups"] == width == node.out.shape[AXIS]:
            return next(filter(None, [self.take(w, order) for w in node.inputs[1:]]), None)
        if node.op == "prelu" and node.inputs[1] in self.graph.weights:
            shape = self.graph.weights[str(node.inputs[1])].shape
            return self.take(node.inputs[1], order) if shape == (width,) else None if shape in ((), (1,)) else "prelu"
        if node.op == "reduce_mean" and AXIS not in [a % 4 for a in node.attrs["axes"]] and len(node.out.shape) >= 2:
            return None
        return f"'{node.label}' ({node.op}) does not work channel by channel"

    def up(self, name: str, order: Array) -> str | None:
        """Follow the value back to the layer that makes it, whose rows take the order. The reason if that fails."""
        while True:
            node = self.graph.producer.get(name)
            if node is None:
                return "stands the network's input"
            if name in self.graph.outputs or len(self.graph.users.get(name, ())) > 1:
                return f"'{node.label}' is read by others too"
            if node.op == "conv" and _within(order, node.attrs["groups"]):
                return next(filter(None, [self.take(w, order) for w in node.inputs[1:]]), None)
            why = self.parameters(node, order)
            if why is not None:
                return why if node.op != "conv" else f"'{node.label}' works in groups"
            name = str(node.inputs[0])

    def down(self, name: str, back: Array, order: Array) -> str | None:
        """Follow the value to all that read it, whose columns take the inverse order. The reason if one cannot."""
        todo = [name]
        while todo:
            name = todo.pop()
            if name in self.graph.outputs:
                return "stands the network's output"
            for user in self.graph.users.get(name, ()):
                if [i for i in user.inputs if i == name] != [user.inputs[0]]:
                    return f"'{user.label}' ({user.op}) joins it with another value"
                ends, why = self.columns(user, back, order)
                if why is not None:
                    return why
                if not ends:
                    todo.append(user.name)
        return None

    def columns(self, user: Node, back: Array, order: Array) -> tuple[bool, str | None]:
        """Permute what a reader takes in. (does the permutation end here, the reason if it cannot)"""
        width = len(order)
        if user.op == "conv" and user.attrs["groups"] < width:
            groups = user.attrs["groups"]
            if groups == 1:
                return True, self.take(user.inputs[1], back, 1)
            return True, self.grouped_columns(user, back, groups)
        if user.op == "linear" and len(self.graph.value(str(user.inputs[0])).shape) == 2:
            return True, self.take(user.inputs[1], back, 0 if user.attrs["transposed"] else 1)
        if user.op == "gather" and user.attrs["axis"] == AXIS and user.inputs[1] in self.graph.weights:
            index = str(user.inputs[1])
            if len(self.graph.users[index]) > 1:
                return True, f"weight '{index}' is shared"
            self.weights[index] = order[self.weights.get(index, self.graph.weights[index])]
            return True, None
        shape = self.graph.value(str(user.inputs[0])).shape
        if user.op == "flatten" and user.attrs["start"] == 1 and int(np.prod(shape[2:])) == 1:
            return False, None
        return False, self.parameters(user, back)

    def grouped_columns(self, node: Node, back: Array, groups: int) -> str | None:
        """Columns that stay in their groups may change places."""
        weight = str(node.inputs[1])
        if not _within(back, groups):
            return f"'{node.label}' works in groups"
        if weight not in self.graph.weights or len(self.graph.users[weight]) > 1:
            return f"weight '{weight}' is shared or computed"
        old = self.weights.get(weight, self.graph.weights[weight])
        size = len(back) // groups
        local = back.reshape(groups, size) % size
        rows = old.reshape(groups, -1, *old.shape[1:])
        self.weights[weight] = np.stack([r[:, order] for r, order in zip(rows, local, strict=True)]).reshape(old.shape)
        return None


def _within(order: Array, groups: int) -> bool:
    """Does every channel stay in its group?"""
    size = len(order) // groups
    return bool((order // size == np.arange(len(order)) // size).all())
