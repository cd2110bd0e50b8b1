"""Which sizes of its inputs a captured network leaves free: it is captured at others too, and the two compared.

A trace holds literal sizes. Where both traces agree, or where the IR can say that a number follows what it is read
from, the graph holds at all sizes, and they are symbols (``open_shapes``). A literal that follows a dimension where
they cannot be is noted for the torch module, which takes it from there. What is left is fixed: the module refuses other
sizes, and the report says why.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from itertools import combinations
from math import gcd

import numpy as np

from secateur.ir.graph import Graph, Node, Value
from secateur.ir.ops import END
from secateur.ir.torch_origin import Literal, TorchOrigin

from .batch import free_batch
from .examples import Arguments, behind, changed, more, other_sizes
from .open_shapes import open_shapes

Read = Callable[[Arguments], Graph]

# What an exporter may be handed numbers for that are known when the module runs.
_OPEN = frozenset({"shape", "size", "starts", "ends", "sizes", "repeats", "pads"})


_NEAR = 3  # a distance that windows and paddings make


class Disagree(Exception):
    """A literal of the trace depends on the sizes in a way that nothing here can say. Its text: where."""


def free_sizes(graph: Graph, args: Arguments, read: Read) -> Graph:
    """The graph that holds at every size the network takes; else its note says what is fixed and why.

    ``read`` captures the network with other arguments and raises whatever it likes where it does not take them.
    """
    wide = next((g for g in (_try(read, other) for other in other_sizes(args)) if g is not None), None)
    third = _Third(args, read)
    if wide is not None and (freed := free_batch(graph, wide)) is not None:
        return open_shapes(freed, graph, wide, {}) or freed
    if wide is not None and (opened := _opened(graph, wide, third)) is not None:
        return opened
    longer = more(args)
    tall = _try(read, longer) if longer is not None else None
    freed = free_batch(graph, tall) if tall is not None else None
    if freed is None and tall is not None and wide is not None and _says_no(graph, wide, third):
        freed = _opened(graph, tall, third)  # a batch alone, that literals follow
    return _noted(graph, freed or graph, wide or tall, third)


class _Third:
    """The network at sizes that are one more than a multiple of 192: what lacks to a multiple of k is k - 1."""

    def __init__(self, args: Arguments, read: Read) -> None:
        self._args, self._read = args, read
        self._graph: Graph | None = None

    def __call__(self) -> Graph | None:
        if self._graph is None:
            given = changed(self._args, lambda size, back: (size // 192 + 1 + back % 2) * 192 + 1, behind)
            self._graph = _try(self._read, given) if given is not None else None
        return self._graph


def _opened(graph: Graph, other: Graph, third: _Third) -> Graph | None:
    try:
        return open_shapes(graph, graph, other, _follows(graph, other, third))
    except Disagree:
        return None


def _says_no(graph: Graph, other: Graph, third: _Third) -> bool:
    try:
        _follows(graph, other, third)
    except Disagree:
        return True
    return False


def _noted(graph: Graph, freed: Graph, other: Graph | None, third: _Third) -> Graph:
    origin = freed.note(TorchOrigin)
    if other is None or origin is None:
        return freed
    try:
        follows = _follows(graph, other, third)
        # A batch that is spelt -1 may have put a number where -1 stood: then the trace itself is opened.
        opened = open_shapes(freed, graph, other, follows) or open_shapes(graph, graph, other, follows)
        return opened or freed.with_note(dataclasses.replace(origin, follows=follows))
    except Disagree as found:
        free = {v.name for v in freed.inputs if v.shape and type(v.shape[0]) is not int}
        fixed = tuple(
            (a.name, i)
            for a, b in zip(graph.inputs, other.inputs, strict=False)
            for i, (m, n) in enumerate(zip(a.shape, b.shape, strict=False))
            if m != n and not (i == 0 and a.name in free)
        )
        if not fixed:
            return freed
        sizes = ", ".join(f"{v.name} {list(map(int, v.shape))}" for v in graph.inputs)
        which = "batch" if all(axis == 0 for _, axis in fixed) else "size"
        remark = f"the {which} of the input is fixed to that of the example ({sizes}): {found}"
        return freed.with_note(
            dataclasses.replace(origin, fixed=fixed, why=str(found), capture_remarks=(*origin.capture_remarks, remark))
        )


def _try(read: Read, args: Arguments) -> Graph | None:
    try:
        return read(args)
    except Exception:  # whatever the user's own code raises at a size that it does not take
        return None


def _follows(graph: Graph, other: Graph, third: _Third) -> dict[str, tuple[Literal, ...]]:
    """Every literal in which the traces differ, by what it follows. Raises Disagree."""
    if [v.name for v in graph.inputs] != [v.name for v in other.inputs] or graph.outputs != other.outputs:
        raise Disagree("the network has other inputs or outputs at another size")
    known = _Known()
    for a, b in zip(graph.inputs, other.inputs, strict=True):
        known.add(a, b)
    found: dict[str, tuple[Literal, ...]] = {}
    for place, (mine, theirs) in enumerate(zip(graph.nodes, other.nodes, strict=False)):
        if mine.op != theirs.op or mine.inputs != theirs.inputs or len(graph.nodes) != len(other.nodes):
            raise Disagree(f"forward takes another path at another size, from {_place(mine)} on")
        for name in filter(None, mine.inputs):
            if name in graph.weights and name not in found:
                found.update(_constant(graph, other, name, mine, known))
        pads = mine.op == "pad" and mine.attrs != theirs.attrs
        literals = _pads(place, graph, other, third) if pads else _literals(mine, theirs, graph, other, known)
        if literals:
            found[mine.name] = literals
        for a, b in zip(mine.outputs, theirs.outputs, strict=True):
            known.add(a, b)
    return found


def _place(node: Node) -> str:
    """The node in the user's words."""
    name = f" in '{node.source.name}'" if node.source.name else ""
    return f"{node.op}{name}{f' ({node.source.where})' if node.source.where else ''}"


def _literals(mine: Node, theirs: Node, graph: Graph, other: Graph, known: _Known) -> tuple[Literal, ...]:
    found: list[Literal] = []
    for attr, value in mine.attrs.items():
        match = theirs.attrs.get(attr)
        if value == match:
            continue
        if (
            attr not in _OPEN
            or not isinstance(value, tuple)
            or not isinstance(match, tuple)
            or len(value) != len(match)
        ):
            raise Disagree(f"'{attr}' of {_place(mine)} depends on it")
        open_: list[int] = []
        for i, (p, q) in enumerate(zip(value, match, strict=True)):
            if p == q:
                continue
            if attr == "ends":
                p, q = _end(p, mine, graph, i), _end(q, theirs, other, i)
            literal = known.find(attr, i, p, q)
            if literal is None:
                open_.append(i)
            else:
                found.append(literal)
        if open_ and (len(open_) > 1 or mine.op != "reshape" or -1 in value):
            raise Disagree(f"'{attr}' of {_place(mine)} depends on it")
        found += [Literal(attr, i) for i in open_]
    return tuple(found)


def _pads(place: int, graph: Graph, other: Graph, third: _Third) -> tuple[Literal, ...]:
    """What is padded to a multiple of a number. Raises Disagree."""
    mine, theirs = graph.nodes[place], other.nodes[place]
    name = str(mine.inputs[0])
    rank = len(mine.out.shape)
    found = []
    for i, (p, q) in enumerate(zip(mine.attrs["pads"], theirs.attrs["pads"], strict=True)):
        if p == q:
            continue
        sizes = [(graph.value(name).shape[i % rank], p), (other.value(name).shape[i % rank], q)]
        fits = _moduli(sizes)
        again = third() if len(fits) > 1 else None
        if again is not None and len(again.nodes) == len(graph.nodes) and again.nodes[place].op == "pad":
            fits = _moduli([*sizes, (again.value(name).shape[i % rank], again.nodes[place].attrs["pads"][i])])
        if len(fits) != 1:
            raise Disagree(f"'pads' of {_place(mine)} depends on it")
        found.append(Literal("pads", i, name, i % rank, modulo=fits[0]))
    return tuple(found)


def _moduli(sizes: Sequence[tuple[int, int]]) -> list[int]:
    """The numbers to whose next multiple each size lacks what stands next to it."""
    whole = gcd(*(size + lack for size, lack in sizes))
    return [k for k in range(2, whole + 1) if whole % k == 0 and all(-size % k == lack for size, lack in sizes)]


def _end(end: int, node: Node, graph: Graph, index: int) -> int:
    """The end of a slice as a number."""
    return int(graph.value(node.inputs[0] or "").shape[node.attrs["axes"][index]]) if end == END else end


def _constant(graph: Graph, other: Graph, name: str, user: Node, known: _Known) -> dict[str, tuple[Literal, ...]]:
    """A constant that repeats along what follows a size, such as zeros for a first state."""
    a, b = graph.weights[name], other.weights.get(name)
    if b is not None and (a.ctypes.data == b.ctypes.data or (a.shape == b.shape and np.array_equal(a, b))):
        return {}
    if b is not None and a.ndim == b.ndim and name.startswith("const."):
        axes = [i for i in range(a.ndim) if a.shape[i] != b.shape[i]]
        row = tuple(slice(0, 1) if i in axes else slice(None) for i in range(a.ndim))
        literals = [known.find("shape", i, a.shape[i], b.shape[i]) for i in axes]
        if axes and all(literals) and np.array_equal(a, np.broadcast_to(a[row], a.shape)):
            if np.array_equal(b, np.broadcast_to(a[row], b.shape)):
                return {name: tuple(one for one in literals if one is not None)}
    raise Disagree(f"{_place(user)} reads a constant that is computed from it")


class _Known:
    """Dimensions seen so far that differ between the traces, each by its two sizes."""

    def __init__(self) -> None:
        self._dims: dict[tuple[int, int], tuple[str, int]] = {}
        self._products: dict[tuple[int, int], tuple[str, tuple[int, ...]]] = {}

    def add(self, a: Value, b: Value) -> None:
        differ = [axis for axis, (m, n) in enumerate(zip(a.shape, b.shape, strict=False)) if m != n]
        for axes in combinations(differ, 2):
            sizes = math.prod(int(a.shape[i]) for i in axes), math.prod(int(b.shape[i]) for i in axes)
            self._products.setdefault(sizes, (a.name, axes))
        for axis, (m, n) in enumerate(zip(a.shape, b.shape, strict=False)):
            if m != n:
                self._dims.setdefault((int(m), int(n)), (a.name, axis))

    def find(self, attr: str, index: int, p: int, q: int) -> Literal | None:
        """The dimension that this number is: itself, a distance from it, a multiple or a whole part of it."""
        if (p, q) in self._dims:
            return Literal(attr, index, *self._dims[p, q])
        if p <= 0 or q <= 0:
            return None
        away = [(abs(p - m), p - m, found) for (m, n), found in self._dims.items() if p - m == q - n]
        near = min(away, default=None)
        if near is None or near[0] > _NEAR:  # half of a height may also be six more than the batch
            for (m, n), (value, axis) in self._dims.items():
                common = gcd(p, m)
                times, over = p // common, m // common
                if min(times, over) == 1 and n * times // over == q:
                    return Literal(attr, index, value, axis, times, over)
        if near is None:
            return self._further(attr, index, p, q)
        _, plus, (value, axis) = near
        return Literal(attr, index, value, axis, plus=plus)

    def _further(self, attr: str, index: int, p: int, q: int) -> Literal | None:
        """The product of two dimensions of one value, or a multiple and a little more or less."""
        for (m, n), (value, axes) in self._products.items():
            if p % m == 0 and q % n == 0 and p // m == q // n:
                return Literal(attr, index, value, axes[0], p // m, also=axes[1:])
        for (m, n), (value, axis) in self._dims.items():
            times = (q - p) // (n - m)
            if times > 1 and times * (n - m) == q - p and abs(p - times * m) <= times:
                return Literal(attr, index, value, axis, times, plus=p - times * m)
        return None
