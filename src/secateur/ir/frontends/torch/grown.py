"""Constants that follow the sizes of the inputs: kept as the calls that make them, not as what these gave.

A grid, a mask, a position: ``torch.arange(x.shape[2])`` is another constant at another size. Two captures at different
sizes say which calls differ in their numbers. Their rules here build them of ``expand`` and ``cumsum``, whose shapes
are literals that ``sizes`` can follow, and what is computed from them is computed in the graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import torch
from torch import fx

from secateur.ir.graph import Value

from .arrays import short_name, to_numpy
from .build import Args, Builder, Rule, Skip, following, positions
from .capture import Capture
from .constants import CREATES

# Calls by name, with the names of the arguments that differ; constants, with the numbers of their elements that do.
Grown = Mapping[str, frozenset[str]]
NOTHING: Grown = MappingProxyType({})
_SHAPES = frozenset({"end", "steps"})  # said by the shape of the result
_LARGEST = 64  # elements of a constant that holds sizes


def differing(mine: Capture, theirs: Capture) -> dict[str, frozenset[str]]:
    """Calls and constants that are not the same in both captures; nothing where these are not the same calls."""
    found: dict[str, frozenset[str]] = {}
    try:
        _compare(mine.module, theirs.module, mine, theirs, found)
    except (ValueError, AttributeError, KeyError):
        return {}
    return {name: what for name, what in found.items() if what}


def _compare(
    a: fx.GraphModule, b: fx.GraphModule, mine: Capture, theirs: Capture, found: dict[str, frozenset[str]]
) -> None:
    for m, n in zip(a.graph.nodes, b.graph.nodes, strict=True):
        if m.name != n.name or m.op != n.op or (m.op == "call_function" and str(m.target) != str(n.target)):
            raise ValueError("other calls")
        left, right = _held(m, a, mine), _held(n, b, theirs)
        if isinstance(left, fx.GraphModule) and isinstance(right, fx.GraphModule):
            _compare(left, right, mine, theirs, found)
        elif isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
            if left is not right and left.shape == right.shape and left.numel() <= _LARGEST:
                found[m.name] = frozenset(map(str, (left != right).reshape(-1).nonzero().reshape(-1).tolist()))
        elif isinstance(m.target, torch._ops.OpOverload):
            found[m.name] = _arguments(m, n)


def _held(node: fx.Node, module: fx.GraphModule, capture: Capture) -> object:
    """The constant or the module that a node stands for."""
    if node.op == "get_attr":
        return getattr(module, str(node.target))
    bound = capture.bound.get(node.name) if node.op == "placeholder" else None
    return bound[1] if bound is not None and bound[2] == "constant" else None


def _arguments(m: fx.Node, n: fx.Node) -> frozenset[str]:
    """The arguments in which two calls differ, and "shape" where one that fills a tensor gives another shape."""
    schema = m.target._schema  # type: ignore[union-attr]
    names = [a.name for a in schema.arguments]
    mine = {**dict(zip(names, m.args, strict=False)), **m.kwargs}
    theirs = {**dict(zip(names, n.args, strict=False)), **n.kwargs}
    found = {name for name in mine if str(mine[name]) != str(theirs.get(name))}
    if schema.name.rpartition("::")[2] in CREATES and m.meta["val"].shape != n.meta["val"].shape:
        found.add("shape")
    return frozenset(found)


def numbers(b: Builder, node: fx.Node, names: frozenset[str], args: Args) -> Args:
    """The arguments of a call with values in the place of numbers that follow a size. Raises Skip."""
    kinds = {a.name: str(a.type) for a in node.target._schema.arguments}  # type: ignore[union-attr]
    made = {}
    for name in names:
        number = args.peek(name)
        kind = kinds.get(name, "")
        if ("number" in kind or "Tensor" in kind) and isinstance(number, int | float) and name not in _SHAPES:
            made[name] = following(b, number)
    return args.with_values(made) if made else args


def constant(b: Builder, tensor: torch.Tensor, other: frozenset[str]) -> Value:
    """A constant whose elements of these numbers follow sizes. Raises Skip where they follow none."""
    array = to_numpy(tensor)
    parts = []
    for i, number in enumerate(array.reshape(-1).tolist()):
        one = following(b, number) if str(i) in other else b.const(np.asarray(number, array.dtype))
        parts.append(b.emit("reshape", [b.cast(one, short_name(tensor.dtype))], shape=(1,)))
    whole = parts[0] if len(parts) == 1 else b.emit("concat", parts, axis=0)
    return b.reshape(whole, array.shape)


def _arange(b: Builder, a: Args) -> Value:
    a.shown("end")
    start, step = a.get("start", 0), a.get("step", 1)
    whole = a.dtype in ("i64", "i32")
    kind = "i64" if whole else a.dtype
    found = b.cast(positions(b, a.shape[0]), kind)
    if isinstance(step, Value) or step != 1:
        found = b.binary("mul", found, step, kind)
    if isinstance(start, Value) or start != 0:
        found = b.binary("add", found, start, kind)
    return b.cast(found, a.dtype)


def _linspace(b: Builder, a: Args) -> Value:
    a.shown("steps")
    count = a.shape[0]
    if count < 2:
        raise Skip("linspace of a single number")
    length = b.binary("sub", b.lift(a.end, a.dtype), a.start, a.dtype)
    step = b.emit("div", [length, b.cast(following(b, count - 1), a.dtype)])
    return b.binary("add", b.emit("mul", [b.cast(positions(b, count), a.dtype), step]), a.start, a.dtype)


def _filled(number: float) -> Rule:
    def rule(b: Builder, a: Args) -> Value:
        a.shown("size", "self", "fill_value")
        value = b.lift(a.get("fill_value", number), a.dtype)
        return b.emit("expand", [value], shape=a.shape) if a.shape else value

    return rule


def _eye(b: Builder, a: Args) -> Value:
    a.shown("n", "m")
    rows, columns = a.shape
    return b.cast(b.emit("eq", [_standing(b, rows), positions(b, columns)]), a.dtype)


def _standing(b: Builder, count: int) -> Value:
    return b.emit("unsqueeze", [positions(b, count)], axes=(1,))


def _scalar(b: Builder, a: Args) -> Value:
    return b.lift(a.s, a.dtype)


def _triangle(lower: bool) -> Rule:
    """tril and triu: what lies on the other side of a diagonal is zero."""

    def rule(b: Builder, a: Args) -> Value:
        rows, columns = a.self.shape[-2:]
        away = b.emit("sub", [positions(b, columns), _standing(b, rows)])
        inside = b.binary("le" if lower else "ge", away, a.diagonal, "i64")
        return b.emit("where", [inside, a.self, b.scalar(0, a.self.dtype)])

    return rule


def _meshgrid(b: Builder, a: Args) -> tuple[Value, ...]:
    """Each tensor along an axis of its own, repeated along the others; xy swaps the first two."""
    rank, turned = len(a.tensors), a.get("indexing") == "xy" and len(a.tensors) > 1
    places = [1, 0, *range(2, rank)] if turned else list(range(rank))
    shape = tuple(int(d) for d in a.meta[0].shape)
    found = []
    for tensor, place in zip(a.tensors, places, strict=True):
        standing = b.reshape(tensor, tuple(-1 if i == place else 1 for i in range(rank)))
        found.append(b.emit("expand", [standing], shape=shape))
    return tuple(found)


# Tables of all positions, built only where they follow a size.
MAKERS: Mapping[str, Rule] = MappingProxyType(
    {
        "arange": _arange, "linspace": _linspace, "eye": _eye, "scalar_tensor": _scalar,
        **dict.fromkeys(("zeros", "zeros_like", "new_zeros", "empty", "empty_like", "new_empty"), _filled(0)),
        **dict.fromkeys(("ones", "ones_like", "new_ones"), _filled(1)),
        **dict.fromkeys(("full", "full_like", "new_full"), _filled(0)),
    }
)  # fmt: skip
# What takes after them; of data as well.
SHAPED: Mapping[str, Rule] = MappingProxyType(
    {"tril": _triangle(True), "triu": _triangle(False), "meshgrid": _meshgrid}
)
