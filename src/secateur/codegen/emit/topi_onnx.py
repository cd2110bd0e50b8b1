"""Operators of ONNX that the IR has no name for; ``plan.opaque`` says which nodes are of these kinds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from tvm import te, tirx, topi

from secateur.codegen.plan.program import Attrs, TensorSpec

from .topi_math import Rule, round_even
from .types import Expr, Tensor


def _at(x: Tensor | None, axis: int, i: Sequence[Expr]) -> Expr | None:
    """The scale or zero point of a position."""
    if x is None:
        return None
    if not len(x.shape):
        return x()
    return x(0) if int(x.shape[0]) == 1 else x(i[axis])


def _axis(rank: int, a: Attrs) -> int:
    return int(a.get("axis", 1)) % rank if rank else 0


def _dequantise(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
    axis, zero = _axis(len(x[0].shape), a), x[2] if len(x) > 2 else None

    def one(*i: Expr) -> Expr:
        value = tirx.Cast("int32", x[0](*i))
        below = _at(zero, axis, i)
        value = value if below is None else value - tirx.Cast("int32", below)
        return tirx.Cast("float32", value) * _at(x[1], axis, i)

    return te.compute(x[0].shape, one, "dequantize")


def _quantise(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
    axis, zero = _axis(len(x[0].shape), a), x[2] if len(x) > 2 else None
    dtype = s.outputs[0][1]
    bits, signed = int(dtype[1:]), dtype[0] == "i"
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)

    def one(*i: Expr) -> Expr:
        value = round_even(x[0](*i) / _at(x[1], axis, i))
        below = _at(zero, axis, i)
        value = value if below is None else value + tirx.Cast("float32", below)
        within = tirx.min(tirx.max(value, tirx.const(float(low), "float32")), tirx.const(float(high), "float32"))
        return tirx.Cast(f"{'' if signed else 'u'}int{bits}", within)

    return te.compute(x[0].shape, one, "quantize")


def _scatter_nd(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
    """Each place of the result asks for the last update of it: as many questions as there are updates."""
    data, index, updates = x
    rank, deep = len(data.shape), int(index.shape[-1])
    lead = [int(d) for d in index.shape[:-1]]
    count = math.prod(lead)
    rows = topi.reshape(index, (count, deep))
    given = topi.reshape(updates, (count, *(int(d) for d in data.shape[deep:])))
    k = te.reduce_axis((0, count), "k")

    def which(*i: Expr) -> Expr:
        same = []
        for axis in range(deep):
            at = rows(k, axis)
            at = tirx.Select(at < 0, at + tirx.const(int(data.shape[axis]), str(index.dtype)), at)
            same.append(at == tirx.Cast(str(index.dtype), i[axis]))
        return te.max(tirx.Select(tirx.all(*same), tirx.Cast("int32", k), tirx.const(-1, "int32")), axis=k)

    last = te.compute([int(d) for d in data.shape[:deep]], which, "last")

    def one(*i: Expr) -> Expr:
        found = last(*i[:deep])
        return tirx.if_then_else(found >= 0, given(tirx.max(found, 0), *i[deep:rank]), data(*i))

    return te.compute(data.shape, one, "scatter")


def _gather_elements(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
    axis = int(a.get("axis", 0)) % len(x[0].shape)
    size = tirx.const(int(x[0].shape[axis]), str(x[1].dtype))

    def one(*i: Expr) -> Expr:
        at = x[1](*i)
        at = tirx.Select(at < 0, at + size, at)
        return x[0](*i[:axis], at, *i[axis + 1 :])

    return te.compute(s.outputs[0][0], one, "gather")


ONNX: Mapping[str, Rule] = MappingProxyType(
    {
        "ai.onnx::QuantizeLinear": _quantise, "ai.onnx::DequantizeLinear": _dequantise,
        "ai.onnx::ScatterND": _scatter_nd, "ai.onnx::GatherElements": _gather_elements,
    }
)  # fmt: skip
