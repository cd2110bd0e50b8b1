"""A captured graph whose sizes are open: symbols in its inputs, and expressions of them where literals stood.

Two traces at different sizes say which dimensions of the inputs vary and what every literal follows. Written as
expressions this holds in every exporter, files included. What was built is laid next to the second trace: each value
must come out with the shape that was recorded there.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence

import numpy as np

from secateur.ir.errors import Error
from secateur.ir.graph import Array, Graph, Node, Sym, Value
from secateur.ir.infer import infer_node
from secateur.ir.symbolic import as_size, as_sym, has_sizes, map_sizes, resized
from secateur.ir.text import reinfer
from secateur.ir.torch_origin import Literal, TorchOrigin
from secateur.ir.verify import verify

Follows = Mapping[str, Sequence[Literal]]
_SHORT: Mapping[int, tuple[str, ...]] = {3: ("L",), 4: ("H", "W"), 5: ("D", "H", "W")}


def open_shapes(freed: Graph, graph: Graph, other: Graph, follows: Follows) -> Graph | None:
    """The graph ``freed`` with open sizes; None where some size cannot be said to follow the inputs.

    ``graph`` and ``other`` are the traces, ``follows`` the literals in which they differ. ``freed`` is ``graph``, or
    that with a free batch.
    """
    try:
        opened = _Opening(freed, graph, other, follows).graph()
        return verify(opened) if _holds(opened, other) else None
    except (Error, ValueError, KeyError, IndexError, ZeroDivisionError):
        return None


def _holds(opened: Graph, other: Graph) -> bool:
    """At the sizes of the other trace, is every value of the shape that it has there?"""
    pairs = [
        (d, n) for a, b in zip(opened.inputs, other.inputs, strict=True) for d, n in zip(a.shape, b.shape, strict=True)
    ]
    there = reinfer(_recorded(resized(opened, {d.name: int(n) for d, n in pairs if isinstance(d, Sym)}), other))
    return all(other.values[v.name].shape == v.shape for v in there.values.values() if v.name in other.values)


def _recorded(graph: Graph, other: Graph) -> Graph:
    """Opaque nodes give what was recorded of them."""
    nodes = [
        dataclasses.replace(n, outputs=tuple(other.value(v.name) for v in n.outputs)) if n.op == "opaque" else n
        for n in graph.nodes
    ]
    return graph.rewrite(nodes=nodes)


# How a size follows another: times, over, plus. The first that fits is taken.
_PARTS = ((1, 1, 0), (1, 2, 0), (2, 1, 0), (1, 2, 1), *((1, 1, p) for p in (1, -1, 2, -2)), (1, 4, 0), (4, 1, 0))


def short_time(node: Node, shapes: Sequence[tuple[int, ...]]) -> Mapping[int, int]:
    """By axis of the result: how many frames a short-time Fourier transform makes, how long the wave after one is."""
    kind = str(node.attrs["target"])
    if kind not in ("aten.stft.default", "aten.istft.default"):
        return {}
    given = json.loads(node.attrs["payload"])["args"]
    n = int(given[1])
    hop = int(given[2] if len(given) > 2 and given[2] else n // 4)
    rank = len(node.out.shape)
    if kind == "aten.stft.default":
        return {len(shapes[0]): (shapes[0][-1] - n) // hop + 1}
    whole = shapes[0][-1] * hop + (n - hop)
    center = len(given) < 6 or given[5]
    return {rank - 1: whole - 2 * (n // 2) if center else whole}


class _Opening:
    """One walk over the nodes; ``known`` are the values with expressions in their shapes."""

    def __init__(self, freed: Graph, graph: Graph, other: Graph, follows: Follows) -> None:
        self.freed, self.other, self.follows = freed, other, follows
        self.weights: dict[str, Array] = dict(freed.weights)
        self.inputs = _inputs(freed, graph, other)
        self.known = {v.name: _sized(v) for v in self.inputs}

    def graph(self) -> Graph:
        """The graph with symbols, its note without the literals that follow."""
        nodes: list[Node] = []
        for node in self.freed.nodes:
            spread = (i for i in node.inputs if i is not None and i in self.weights and i in self.follows)
            nodes += [self._spread(name, node) for name in spread]
            nodes.append(self._opened(node))
            self._infer(nodes[-1])
        origin = self.freed.note(TorchOrigin)
        assert origin is not None
        made = self.freed.rewrite(inputs=self.inputs, nodes=nodes, weights=self.weights)
        return reinfer(made).with_note(dataclasses.replace(origin, follows={}))

    def _opened(self, node: Node) -> Node:
        attrs = dict(node.attrs)
        for one in self.follows.get(node.name, ()):
            value = attrs.get(one.attr)  # a batch that is spread has other nodes here
            if value is not None and (one.modulo or value[one.index] not in (0, -1)):  # else it follows by itself
                attrs[one.attr] = (*value[: one.index], self._number(one), *value[one.index + 1 :])
        outputs = node.outputs
        if node.op == "opaque":
            known = short_time(node, [self.known[i].shape for i in node.inputs if i in self.known])
            outputs = tuple(self._found(v, known) for v in outputs)
        return dataclasses.replace(node, attrs=attrs, outputs=outputs)

    def _number(self, one: Literal) -> int:
        if not one.value:
            return -1
        shape = self.known[one.value].shape
        dim = shape[one.axis]
        for axis in one.also:
            dim = dim * shape[axis]
        if one.modulo:
            dim = (dim + one.modulo - 1) // one.modulo * one.modulo - dim
        number = dim * one.times // one.over + one.plus
        return as_sym(number) if isinstance(number, Sym) else number

    def _found(self, value: Value, known: Mapping[int, int]) -> Value:
        """The recorded result of an opaque node: its sizes are known by axis, or those of values before it."""
        shape = []
        for i, (d, n) in enumerate(zip(value.shape, self.other.value(value.name).shape, strict=True)):
            if isinstance(d, Sym) or d == n:
                shape.append(d)
                continue
            size = known.get(i)
            shape.append(as_sym(size) if isinstance(size, Sym) else self._like(int(d), int(n)))
        return Value(value.name, tuple(shape), value.dtype)

    def _like(self, size: int, there: int) -> int:
        """A dimension seen before that was ``size`` and is ``there``, else a part or a multiple of one, as pools give.

        Where that is a wrong guess, checks at other sizes say so. Raises ValueError.
        """
        seen = [
            (d, int(n))
            for name, value in self.known.items()
            for d, n in zip(value.shape, self.other.value(name).shape, strict=True) if isinstance(d, Sym)
        ]  # fmt: skip
        for times, over, plus in _PARTS:
            for d, n in seen:
                if (int(d) * times // over + plus, n * times // over + plus) == (size, there):
                    found = d * times // over + plus
                    return as_sym(found) if isinstance(found, Sym) else found
        raise ValueError(f"no dimension is {size} here and {there} there")

    def _spread(self, name: str, user: Node) -> Node:
        """A constant that repeats along sizes, as one row of it that is expanded."""
        axes = {one.index: one for one in self.follows[name]}
        array = self.weights.pop(name)
        row = f"{name}.row"
        self.weights[row] = np.ascontiguousarray(array[tuple(slice(0, 1) if i in axes else slice(None)
                                                             for i in range(array.ndim))])  # fmt: skip
        shape = tuple(self._number(axes[i]) if i in axes else n for i, n in enumerate(array.shape))
        out = self.freed.value(name)
        node = Node("expand", (row,), (out,), {"shape": shape}, user.source)
        self.known[row] = Value(row, self.weights[row].shape, out.dtype)
        self._infer(node)
        return node

    def _infer(self, node: Node) -> None:
        ins = [None if i is None else self.known.get(i) or self.freed.value(i) for i in node.inputs]
        if any(map(has_sizes, node.attrs.values())):
            node = node.with_attrs(**{k: map_sizes(a, as_size) for k, a in node.attrs.items()})
        self.known.update((v.name, _sized(v)) for v in infer_node(node, ins))


def _sized(value: Value) -> Value:
    return Value(value.name, tuple(as_size(d) if isinstance(d, Sym) else d for d in value.shape), value.dtype)


def _inputs(freed: Graph, graph: Graph, other: Graph) -> tuple[Value, ...]:
    """The inputs with a symbol for each dimension in which the traces differ; equal pairs are one size."""
    symbols: dict[tuple[int, int], Sym] = {}
    made = []
    for given, a, b in zip(freed.inputs, graph.inputs, other.inputs, strict=True):
        shape = list(given.shape)
        for axis, (m, n) in enumerate(zip(a.shape, b.shape, strict=True)):
            if m != n and not isinstance(shape[axis], Sym):
                taken = {s.name for s in symbols.values()} | {d.name for v in freed.inputs for d in v.shape
                                                               if isinstance(d, Sym)}  # fmt: skip
                key = (int(m), int(n))
                shape[axis] = symbols.setdefault(key, Sym(int(m), _name(given, axis, taken)))
        made.append(Value(given.name, tuple(shape), given.dtype))
    return tuple(made)


def _name(value: Value, axis: int, taken: set[str]) -> str:
    """N, H, W and the like; with the input's name before it where that is taken."""
    short = _SHORT.get(len(value.shape), ())
    back = axis - len(value.shape)
    wanted = "N" if axis == 0 else short[back] if -back <= len(short) else f"d{axis}"
    if wanted in taken:
        wanted = "".join(c if c.isalnum() else "_" for c in value.name) + f"_{wanted}"
    while wanted in taken:
        wanted += "_"
    return wanted
