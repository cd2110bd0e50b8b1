"""Copies and resampling of data that placement cannot express as an alias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from tvm import te, tirx, topi

from secateur.codegen.plan.program import Attrs, TensorSpec
from secateur.codegen.plan.sampling import Taps, taps
from secateur.ir.ops import END, RESHAPES

from .topi_math import Rule, scalar
from .types import Expr, Tensor


def _slice(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
    begin, step = [0] * len(x[0].shape), [1] * len(x[0].shape)
    for axis, start, end, stride in zip(a["axes"], a["starts"], a["ends"], a["steps"], strict=True):
        size = int(x[0].shape[axis])
        begin[axis], step[axis] = range(*slice(start, None if end >= END else end, stride).indices(size)).start, stride
    return te.compute(s.outputs[0][0], lambda *i: x[0](*(b + t * j for b, t, j in zip(begin, step, i, strict=True))))


def _split(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
    starts = [sum(a["sizes"][:k]) for k in range(len(a["sizes"]))]
    axis = a["axis"]

    def part(b: int, shape: tuple[int, ...]) -> Tensor:
        return te.compute(shape, lambda *i: x[0](*i[:axis], i[axis] + b, *i[axis + 1 :]))

    return [part(b, shape) for b, (shape, _) in zip(starts, s.outputs, strict=True)]


def _gather(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
    axis, rank, size = a["axis"], len(x[1].shape), int(x[0].shape[a["axis"]])

    def one(*i: Expr) -> Expr:
        j = x[1](*i[axis : axis + rank])
        j = tirx.Select(j < 0, j + tirx.const(size, str(x[1].dtype)), j)
        return x[0](*i[:axis], j, *i[axis + rank :])

    return te.compute(s.outputs[0][0], one, "gather")


def _pad(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
    rank = len(x[0].shape)
    pads, mode = a["pads"], a["mode"]

    def one(*i: Expr) -> Expr:
        at, inside = [], []
        for k in range(rank):
            size, p = int(x[0].shape[k]), i[k] - pads[k]
            if mode == "constant":
                inside += [p >= 0, p < size]
            elif mode == "edge":
                p = tirx.max(tirx.min(p, size - 1), 0)
            elif mode == "wrap":
                p = tirx.floormod(p, size)
            else:
                period = max(2 * (size - 1), 1)
                p = tirx.floormod(p, period)
                p = tirx.Select(p >= size, period - p, p)
            at.append(p)
        value = x[0](*at)
        return tirx.if_then_else(tirx.all(*inside), value, scalar(value, a["value"])) if inside else value

    return te.compute(s.outputs[0][0], one, "pad")


def _roll(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
    shift = [0] * len(x[0].shape)
    for by, axis in zip(a["shifts"], a["axes"], strict=True):
        shift[axis] += by
    return te.compute(x[0].shape, lambda *i: x[0](*(
        tirx.floormod(j - by, size) for j, by, size in zip(i, shift, x[0].shape, strict=True))))  # fmt: skip


def _flip(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
    axes = set(a["axes"])
    return te.compute(x[0].shape, lambda *i: x[0](*(
        size - 1 - j if k in axes else j for k, (j, size) in enumerate(zip(i, x[0].shape, strict=True)))))  # fmt: skip


def _depth_to_space(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
    n, c, h, w = (int(d) for d in x[0].shape)
    b = a["block"]
    if a["mode"] == "CRD":
        y = topi.transpose(topi.reshape(x[0], (n, c // b**2, b, b, h, w)), (0, 1, 4, 2, 5, 3))
    else:
        y = topi.transpose(topi.reshape(x[0], (n, b, b, c // b**2, h, w)), (0, 3, 4, 1, 5, 2))
    return topi.reshape(y, s.outputs[0][0])


def _space_to_depth(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
    n, c, h, w = (int(d) for d in x[0].shape)
    b = a["block"]
    y = topi.reshape(x[0], (n, c, h // b, b, w // b, b))
    order = (0, 1, 3, 5, 2, 4) if a["mode"] == "CRD" else (0, 3, 5, 1, 2, 4)
    return topi.reshape(topi.transpose(y, order), s.outputs[0][0])


def _resize(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
    y = x[0]
    for axis, one in enumerate(taps(a, [int(d) for d in y.shape], s.outputs[0][0])):
        y = y if one is None else _resize_axis(y, axis, one)
    return y


def _resize_axis(x: Tensor, axis: int, each: Taps) -> Tensor:
    """Constants chosen by position: a chain of selects is shared by all elements of a slice."""
    out = len(each)

    def pick(values: Sequence[Expr], at: Expr) -> Expr:
        if len(values) == 1:
            return values[0]
        half = len(values) // 2
        return tirx.Select(at < half, pick(values[:half], at), pick(values[half:], at - half))

    def table(values: Sequence[Expr]) -> Tensor:
        return te.compute((out,), lambda i: pick(values, i), "table")

    count = range(len(each[0]))
    indices = [table([tirx.const(t[k][0], "int32") for t in each]) for k in count]
    weights = [table([tirx.const(t[k][1], "float32") for t in each]) for k in count]
    nearest = len(each[0]) == 1

    def one(*i: Expr) -> Expr:
        parts = [x(*i[:axis], index(i[axis]), *i[axis + 1 :]) for index in indices]
        if nearest:
            return parts[0]
        total = parts[0] * weights[0](i[axis])
        for part, weight in zip(parts[1:], weights[1:], strict=True):
            total = total + part * weight(i[axis])
        return total

    return te.compute([*x.shape[:axis], out, *x.shape[axis + 1 :]], one, "resize")


def _reshape(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
    return topi.reshape(x[0], s.outputs[0][0])


MOVES: Mapping[str, Rule] = MappingProxyType(
    {
        "concat": lambda s, x, a: topi.concatenate(tuple(x), a["axis"]), "split": _split, "slice": _slice,
        "gather": _gather, **dict.fromkeys(RESHAPES, _reshape),
        "transpose": lambda s, x, a: topi.transpose(x[0], a["perm"]),
        "expand": lambda s, x, a: topi.broadcast_to(x[0], s.outputs[0][0]),
        "tile": lambda s, x, a: topi.tile(x[0], a["repeats"]), "pad": _pad, "roll": _roll, "flip": _flip,
        "depth_to_space": _depth_to_space, "space_to_depth": _space_to_depth, "resize": _resize,
    }
)  # fmt: skip
