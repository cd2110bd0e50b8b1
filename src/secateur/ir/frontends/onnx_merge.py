"""Two conversions of one model at different input sizes become one that holds for both.

Whatever the two spell differently followed the input's size. Where the IR can say so (0 or -1 in a reshape,
an open end of a slice, a scale instead of a size) it is said; else ``Disagree`` names the node.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from secateur.ir.graph import Node, Sym, Value
from secateur.ir.infer import infer_node
from secateur.ir.ops import END

from .onnx_builder import Builder

Shape = tuple[int, ...]
Pair = tuple[Node, Node]


class Disagree(Exception):
    """A node depends on the input's size in a way that the IR cannot say."""


def merge(a: Builder, b: Builder, syms: Mapping[str, Sym]) -> list[Node]:
    """The nodes of ``a``, respelled so that they hold at the sizes of ``b`` too. Raises Disagree."""
    if len(a.nodes) != len(b.nodes):
        raise Disagree("the number of nodes depends on it")
    merged = [_merge_node(x, y, a, b, syms) for x, y in zip(a.nodes, b.nodes, strict=True)]
    for name in a.outputs:
        if name in a.consts and not _same_const(a, b, name):
            raise Disagree(f"output '{name}' depends on it")
    return merged


def _same_const(a: Builder, b: Builder, name: str) -> bool:
    x, y = a.consts[name], b.consts.get(name)
    return x is y or (y is not None and x.shape == y.shape and bool(np.array_equal(x, y)))


def _merge_node(x: Node, y: Node, a: Builder, b: Builder, syms: Mapping[str, Sym]) -> Node:
    if x.op != y.op or x.inputs != y.inputs or [v.name for v in x.outputs] != [v.name for v in y.outputs]:
        raise Disagree(f"the structure at '{x.label}' depends on it")
    for name in x.inputs:
        if name in a.consts and not _same_const(a, b, name):
            raise Disagree(f"'{x.label}' ({x.op}) reads the constant '{name}', which depends on it")
    if x.op == "opaque":
        return dataclasses.replace(x, outputs=tuple(map(_symbolic(syms), x.outputs, y.outputs)))
    if x.attrs != y.attrs:
        respell = RESPELL.get(x.op)
        if respell is None:
            raise Disagree(f"'{x.label}' ({x.op}) has attributes that depend on it")
        x = respell(x, y, _shapes(x, a), _shapes(y, b))
    for builder, node in ((a, x), (b, y)):
        inputs = [None if i is None else builder.value(i) for i in x.inputs]
        try:
            shapes = [v.shape for v in infer_node(x, inputs)]
        except ValueError as error:
            raise Disagree(f"'{x.label}' ({x.op}): {error}") from error
        if shapes != [v.shape for v in node.outputs]:
            raise Disagree(f"'{x.label}' ({x.op}) gives shapes that depend on it")
    return x


def _symbolic(syms: Mapping[str, Sym]) -> Callable[[Value, Value], Value]:
    def rename(x: Value, y: Value) -> Value:
        if x.shape == y.shape or len(x.shape) != len(y.shape):
            return x
        dims: list[int] = []
        for d, e in zip(x.shape, y.shape, strict=True):
            same = next((s for s in syms.values() if s == d), None)
            dims.append(d if d == e else same if same is not None else Sym(d, "any"))
        return Value(x.name, tuple(dims), x.dtype)

    return rename


def _shapes(node: Node, builder: Builder) -> Shape:
    assert node.inputs[0] is not None
    return builder.shape(node.inputs[0])


def _reshape(x: Node, y: Node, sx: Shape, sy: Shape) -> Node:
    return x.with_attrs(shape=_spell(sx, sy, x.out.shape, y.out.shape, f"'{x.label}' (reshape)"))


def _spell(sx: Shape, sy: Shape, ox: Shape, oy: Shape, where: str) -> Shape:
    if len(ox) != len(oy):
        raise Disagree(f"{where} makes another rank")
    target: list[int] = []
    for i, (d, e) in enumerate(zip(ox, oy, strict=True)):
        if d == e:
            target.append(int(d))
        elif i < len(sx) and sx[i] == d and sy[i] == e:
            target.append(0)
        elif -1 not in target:
            target.append(-1)
        else:
            raise Disagree(f"{where} has two dimensions that follow it")
    return tuple(target)


def _expand(x: Node, y: Node, sx: Shape, sy: Shape) -> Node:
    target: list[int] = []
    want, other = x.attrs["shape"], y.attrs["shape"]
    if len(want) != len(other):
        raise Disagree(f"'{x.label}' (expand) makes another rank")
    lead = len(want) - len(sx)
    for i, (d, e) in enumerate(zip(want, other, strict=True)):
        if d == e:
            target.append(d)
        elif i >= lead and d in (1, sx[i - lead]) and e in (1, sy[i - lead]):
            target.append(-1)
        else:
            raise Disagree(f"'{x.label}' (expand) repeats along it")
    return x.with_attrs(shape=tuple(target))


def _slice(x: Node, y: Node, sx: Shape, sy: Shape) -> Node:
    spelled: dict[str, list[int]] = {"starts": [], "ends": []}
    if x.attrs["axes"] != y.attrs["axes"] or x.attrs["steps"] != y.attrs["steps"]:
        raise Disagree(f"'{x.label}' (slice) depends on it")
    for key, out in spelled.items():
        for i, (p, q) in enumerate(zip(x.attrs[key], y.attrs[key], strict=True)):
            axis = x.attrs["axes"][i]
            if p == q:
                out.append(p)
            elif p >= sx[axis] and q >= sy[axis]:
                out.append(END)
            elif p - sx[axis] == q - sy[axis]:  # a fixed distance from the end
                out.append(p - int(sx[axis]))
            else:
                raise Disagree(f"'{x.label}' (slice) cuts at a place that depends on it")
    return x.with_attrs(starts=tuple(spelled["starts"]), ends=tuple(spelled["ends"]))


def _resize(x: Node, y: Node, sx: Shape, sy: Shape) -> Node:
    rest_x = {k: v for k, v in x.attrs.items() if k not in ("size", "scales")}
    rest_y = {k: v for k, v in y.attrs.items() if k not in ("size", "scales")}
    if rest_x != rest_y or x.attrs["size"] is None or y.attrs["size"] is None:
        raise Disagree(f"'{x.label}' (resize) depends on it")
    d = len(x.attrs["size"])
    ratios = [tuple(o / n for o, n in zip(v.attrs["size"], s[-d:], strict=True)) for v, s in ((x, sx), (y, sy))]
    if ratios[0] != ratios[1]:
        raise Disagree(f"'{x.label}' (resize) has no fixed scale")
    return x.with_attrs(size=None, scales=ratios[0])


RESPELL: dict[str, Callable[[Node, Node, Shape, Shape], Node]] = {
    "reshape": _reshape, "expand": _expand, "slice": _slice, "resize": _resize,
}  # fmt: skip


def changed_constants(a: Builder, b: Builder, names: Sequence[str]) -> set[str]:
    """Which of these folded constants differ between the two conversions."""
    return {n for n in names if n in a.consts and not _same_const(a, b, n)}
