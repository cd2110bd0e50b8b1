"""Rules of functions of numbers that the IR has no name for: as compositions of those that it has."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from secateur.ir.graph import Value

from .arrays import FLOATS
from .build import Args, Builder, Rule, Skip, positions
from .rules_math import floor_divide

Function = Callable[[Builder, Value], Value]


def _floats(function: Function) -> Rule:
    """A function of floats; integers become floats first."""

    def rule(b: Builder, a: Args) -> Value:
        if a.dtype not in FLOATS:
            raise Skip(f"a function of {a.dtype}")
        return function(b, b.cast(a.self, a.dtype))

    return rule


def _num(b: Builder, op: str, x: Value, number: float) -> Value:
    return b.emit(op, [x, b.scalar(number, x.dtype)])


def _log1p(b: Builder, x: Value) -> Value:
    return b.emit("log", [_num(b, "add", x, 1)])


def _expm1(b: Builder, x: Value) -> Value:
    return _num(b, "sub", b.emit("exp", [x]), 1)


def _log_of(base: float) -> Function:
    return lambda b, x: _num(b, "mul", b.emit("log", [x]), 1 / math.log(base))


def _exp2(b: Builder, x: Value) -> Value:
    return b.emit("exp", [_num(b, "mul", x, math.log(2))])


def _erfc(b: Builder, x: Value) -> Value:
    return b.emit("sub", [b.scalar(1, x.dtype), b.emit("erf", [x])])


def _hyperbolic(op: str) -> Function:
    """sinh and cosh: half of the sum or the difference of two exponentials."""
    return lambda b, x: _num(b, "mul", b.emit(op, [b.emit("exp", [x]), b.emit("exp", [b.emit("neg", [x])])]), 0.5)


def _tan(b: Builder, x: Value) -> Value:
    return b.emit("div", [b.emit("sin", [x]), b.emit("cos", [x])])


def _trunc(b: Builder, x: Value) -> Value:
    return b.emit("mul", [b.emit("sign", [x]), b.emit("floor", [b.emit("abs", [x])])])


def _frac(b: Builder, x: Value) -> Value:
    return b.emit("sub", [x, _trunc(b, x)])


def _atanh(b: Builder, x: Value) -> Value:
    one = b.scalar(1, x.dtype)
    return _num(b, "mul", b.emit("log", [b.emit("div", [b.emit("add", [one, x]), b.emit("sub", [one, x])])]), 0.5)


def _asinh(b: Builder, x: Value) -> Value:
    """sign(x) * log(|x| + sqrt(x * x + 1)), which does not cancel."""
    away = b.emit("abs", [x])
    root = b.emit("sqrt", [_num(b, "add", b.emit("mul", [x, x]), 1)])
    return b.emit("mul", [b.emit("sign", [x]), b.emit("log", [b.emit("add", [away, root])])])


def _infinite(b: Builder, a: Args) -> Value:
    return b.emit("eq", [b.emit("abs", [a.self]), b.scalar(math.inf, a.self.dtype)])


def _finite(b: Builder, a: Args) -> Value:
    return b.emit("lt", [b.emit("abs", [a.self]), b.scalar(math.inf, a.self.dtype)])


def _hardshrink(b: Builder, a: Args) -> Value:
    away = b.emit("gt", [b.emit("abs", [a.self]), b.scalar(a.lambd, a.dtype)])
    return b.emit("where", [away, a.self, b.scalar(0, a.dtype)])


def _softshrink(b: Builder, a: Args) -> Value:
    rest = b.emit("relu", [_num(b, "sub", b.emit("abs", [a.self]), a.lambd)])
    return b.emit("mul", [b.emit("sign", [a.self]), rest])


def _logaddexp(b: Builder, a: Args) -> Value:
    away = b.emit("abs", [b.emit("sub", [a.self, a.other])])
    return b.emit("add", [b.emit("maximum", [a.self, a.other]), _log1p(b, b.emit("exp", [b.emit("neg", [away])]))])


def _logit(b: Builder, a: Args) -> Value:
    x = a.self
    if a.eps is not None:
        x = b.emit("clip", [x], min=float(a.eps), max=1 - float(a.eps))
    return b.emit("log", [b.emit("div", [x, b.emit("sub", [b.scalar(1, a.dtype), x])])])


def _addcdiv(b: Builder, a: Args) -> Value:
    share = b.binary("div", a.tensor1, a.tensor2, a.dtype)
    return b.emit("add", [a.self, share if a.value == 1 else _num(b, "mul", share, a.value)])


def _one_hot(b: Builder, a: Args) -> Value:
    if a.num_classes < 0:
        raise Skip("as many classes as the largest index says")
    places = b.emit("unsqueeze", [a.self], axes=(len(a.self.shape),))
    return b.cast(b.emit("eq", [places, b.const(np.arange(a.num_classes))]), "i64")


def _some(op: str) -> Rule:
    """any and all: the largest or the smallest of zeros and ones."""

    def rule(b: Builder, a: Args) -> Value:
        x = a.self if a.self.dtype == "b1" else b.emit("ne", [a.self, b.scalar(0, a.self.dtype)])
        axes = a.get("dim")
        rank = len(x.shape)
        axes = range(rank) if axes is None else [axes] if isinstance(axes, int) else axes
        found = b.emit(
            op, [b.cast(x, "i32")], axes=tuple(i % rank for i in axes), keepdims=bool(a.get("keepdim", False))
        )
        return b.cast(found, "b1")

    return rule


def _rounded(b: Builder, x: Value, scale: Value, zero: Value | None, low: float, high: float) -> Value:
    """Fake quantisation: to the nearest step, ties to the even one, and back."""
    y = b.emit("round", [b.emit("mul", [x, b.emit("reciprocal", [scale])])])
    y = y if zero is None else b.emit("add", [y, zero])
    y = b.emit("clip", [y], min=float(low), max=float(high))
    y = y if zero is None else b.emit("sub", [y, zero])
    return b.emit("mul", [y, scale])


def _fake_quantised(b: Builder, a: Args) -> Value:
    scale, zero = b.lift(a.scale, a.dtype), b.lift(a.zero_point, a.dtype)
    return _rounded(b, a.self, b.reshape(scale, ()), b.reshape(zero, ()), a.quant_min, a.quant_max)


def _fake_quantised_channels(b: Builder, a: Args) -> Value:
    along = tuple(-1 if i == a.axis else 1 for i in range(len(a.self.shape)))
    scale, zero = (b.reshape(b.cast(v, a.dtype), along) for v in (a.scale, a.zero_point))
    return _rounded(b, a.self, scale, zero, a.quant_min, a.quant_max)


def _put(b: Builder, a: Args) -> Value:
    """One number where a mask says so."""
    (mask, *more), value = a.indices, a.get("values")
    if more or mask is None or mask.dtype != "b1" or math.prod(value.shape) != 1 or a.accumulate:
        raise Skip("an assignment by indices")
    wide = b.reshape(mask, (*mask.shape, *(1,) * (len(a.self.shape) - len(mask.shape))))
    return b.emit("where", [wide, b.reshape(b.cast(value, a.dtype), ()), a.self])


def _diagonal(b: Builder, a: Args) -> Value:
    """The middle diagonal of the last two axes, as the sum over one of them of all that lies on it."""
    rank = len(a.self.shape)
    size = a.self.shape[-1]
    if a.offset or {a.dim1 % rank, a.dim2 % rank} != {rank - 2, rank - 1} or a.self.shape[-2] != size:
        raise Skip("another diagonal")
    here = b.emit("eq", [b.emit("unsqueeze", [positions(b, size)], axes=(1,)), positions(b, size)])
    kept = b.emit("where", [here, a.self, b.scalar(0, a.dtype)])
    return b.emit("reduce_sum", [kept], axes=(rank - 1,), keepdims=False)


FUNCTIONS: Mapping[str, Rule] = MappingProxyType(
    {
        "log1p": _floats(_log1p), "expm1": _floats(_expm1), "log2": _floats(_log_of(2)), "log10": _floats(_log_of(10)),
        "exp2": _floats(_exp2), "erfc": _floats(_erfc), "sinh": _floats(_hyperbolic("sub")),
        "cosh": _floats(_hyperbolic("add")), "tan": _floats(_tan), "trunc": _floats(_trunc), "fix": _floats(_trunc),
        "frac": _floats(_frac), "atanh": _floats(_atanh), "asinh": _floats(_asinh),
        "isinf": _infinite, "isfinite": _finite, "hardshrink": _hardshrink, "softshrink": _softshrink,
        "logaddexp": _logaddexp, "logit": _logit, "addcdiv": _addcdiv, "floor_divide": floor_divide,
        "one_hot": _one_hot, "any": _some("reduce_max"), "all": _some("reduce_min"), "diagonal": _diagonal,
        "index_put": _put,
        "fake_quantize_per_tensor_affine": _fake_quantised,
        "fake_quantize_per_channel_affine": _fake_quantised_channels,
    }
)  # fmt: skip
