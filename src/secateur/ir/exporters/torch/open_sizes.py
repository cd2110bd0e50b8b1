"""Sizes in a written module: literals that follow its inputs, and a guard before those that are fixed."""

from __future__ import annotations

import operator
from collections.abc import Sequence, Set

from torch import fx

from secateur.ir.expr import Atom, Expr
from secateur.ir.expr_text import parse
from secateur.ir.graph import Node, Sym
from secateur.ir.symbolic import has_sizes, map_sizes
from secateur.ir.torch_origin import Literal

from . import functional as T
from .emitter import Emitter, Operand

# What takes sizes that are computed in a run; other operators want numbers when the module is made.
OPEN = frozenset(
    {"reshape", "expand", "slice", "pad", "tile", "resize", "split", "adaptive_avg_pool", "adaptive_max_pool", "opaque"}
)


def guard(e: Emitter) -> None:
    """Let inputs whose sizes are fixed through a check of them."""
    _guard_sizes(e)
    origin = e.origin
    if origin is None:
        return
    values = set(e.graph.values)
    lost = any(one.value and one.value not in values for many in origin.follows.values() for one in many)
    why = origin.why or ("a literal follows what is no longer part of the network" if lost else "")
    for value in e.graph.inputs:
        axes = [axis for name, axis in origin.fixed if name == value.name]
        if why and axes:
            shape = [int(d) if axis in axes else None for axis, d in enumerate(value.shape)]
            e.env[value.name] = e.call(T.expect_sizes, e.env[value.name], value.name, shape, why)


def _guard_sizes(e: Emitter) -> None:
    """A check of the sizes that attributes follow where torch wants numbers for them."""
    bound: dict[str, str] = {}
    for node in e.graph.nodes:
        for sym in _sizes(node):
            expr = parse(sym.name)
            if node.op not in OPEN or not expr.known:
                bound |= {a.name: f"{node.op} {node.source} is written for one size" for a in expr.atoms() if a.name}
    for value in e.graph.inputs:
        axes = {axis: d.name for axis, d in enumerate(value.shape) if isinstance(d, Sym) and d.name in bound}
        if axes:
            shape = [int(d) if axis in axes else None for axis, d in enumerate(value.shape)]
            why = bound[next(iter(axes.values()))]
            e.env[value.name] = e.call(T.expect_sizes, e.env[value.name], value.name, shape, why)


def _sizes(node: Node) -> list[Sym]:
    found: list[Sym] = []
    for attr in node.attrs.values():
        map_sizes(attr, lambda sym: found.append(sym) or sym)  # type: ignore[func-returns-value]
    return found


def _open_sizes(e: Emitter, node: Node) -> Node:
    """The node with sizes that follow the inputs computed from these, or as numbers where torch wants those."""
    if not any(map(has_sizes, node.attrs.values())):
        return node
    there = {d.name for v in e.graph.inputs for d in v.shape if isinstance(d, Sym)}
    known = node.op in OPEN and all(_written(parse(sym.name), there) for sym in _sizes(node))
    attrs = {k: _opened(e, a) if known else map_sizes(a, int) for k, a in node.attrs.items()}
    return node.with_attrs(**attrs)


def _written(expr: Expr, there: Set[str]) -> bool:
    """Can it be computed from the sizes that the inputs of this graph, which may be a part, have open?"""
    return expr.known and all(atom.kind != "size" or atom.name in there for atom in expr.atoms())


def _opened(e: Emitter, attr: Operand) -> Operand:
    if isinstance(attr, tuple):
        return tuple(_opened(e, a) for a in attr)
    return _computed(e, parse(attr.name)) if isinstance(attr, Sym) else attr


def _computed(e: Emitter, expr: Expr) -> Operand:
    """A whole-numbered expression as calls on the inputs' sizes."""
    total: Operand = None
    for monomial, c in expr.terms:
        term: Operand = int(c)
        for atom in monomial:
            factor = _atom(e, atom)
            term = factor if isinstance(term, int) and term == 1 else e.call(operator.mul, factor, term)
        total = term if total is None else e.call(operator.add, total, term)
    return 0 if total is None else total


def _atom(e: Emitter, atom: Atom) -> Operand:
    if atom.kind == "size":
        places = ((v.name, i) for v in e.graph.inputs for i, d in enumerate(v.shape)
                  if isinstance(d, Sym) and d.name == atom.name)  # fmt: skip
        name, axis = next(places)
        return e.method("size", e.env[name], axis)
    if atom.kind == "floor":
        (inner,) = atom.args
        return e.call(operator.floordiv, _computed(e, inner * inner.denominator), inner.denominator)
    return e.call(min if atom.kind == "min" else max, *(_computed(e, a) for a in atom.args))


def opened(e: Emitter, node: Node) -> Node:
    """The node with its literals taken from the sizes that they follow; constants that it reads are spread to them."""
    node = _open_sizes(e, node)
    if e.origin is None or not e.origin.follows:
        return node
    for name in node.inputs:
        if name is not None and name in e.graph.weights and name in e.origin.follows and name not in e.env:
            _spread(e, name, e.origin.follows[name])
    attrs = dict(node.attrs)
    for one in e.origin.follows.get(node.name, ()):
        value = attrs.get(one.attr)
        if not isinstance(value, tuple) or one.index >= len(value) or (value[one.index] in (0, -1) and not one.modulo):
            continue  # it follows by itself
        if one.value and one.value not in e.env:
            continue
        attrs[one.attr] = (*value[: one.index], _number(e, one), *value[one.index + 1 :])
    return node.with_attrs(**attrs)


def _number(e: Emitter, one: Literal) -> Operand:
    if not one.value:
        return -1
    found: fx.Node = e.method("size", e.env[one.value], one.axis)
    for axis in one.also:
        found = e.call(operator.mul, found, e.method("size", e.env[one.value], axis))
    if one.modulo:
        found = e.call(operator.mod, e.call(operator.neg, found), one.modulo)
    for function, amount, neutral in (
        (operator.mul, one.times, 1), (operator.floordiv, one.over, 1), (operator.add, one.plus, 0)
    ):  # fmt: skip
        found = found if amount == neutral else e.call(function, found, amount)
    return found


def _spread(e: Emitter, name: str, literals: Sequence[Literal]) -> None:
    whole = e.arg(name)
    axes = {one.index: one for one in literals}
    rank = e.graph.weights[name].ndim
    ones = [1] * len(axes)
    row = e.call(T.slice_tensor, whole, list(axes), [0] * len(axes), ones, ones)
    e.env[name] = e.call(T.expand, row, [_number(e, axes[i]) if i in axes else -1 for i in range(rank)])
