"""Element-wise operators on vectors. Transcendental ones by polynomials, since LLVM would call libm lane by lane.

NaN stays NaN, as in ONNX Runtime: a bound is compared first and the value second, for the processor's maximum and
minimum give the second of two where one is NaN. TVM's own would take either.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from tvm import tirx

from secateur.codegen.plan.program import Attrs

from .builder import KernelBuilder
from .types import Expr

Unary = Callable[[KernelBuilder, Expr, Attrs], Expr]

_LOG2E = 1.44269504088896341
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
# erf(x) = x p(x^2) / q(x^2) for |x| < 3.8, where it is 1 but for 8e-8: least squares, reweighted until the largest
# error is as small as can be.
_ERF = (1.1283776760101318, 0.3061784207820892, 0.06618091464042664, 0.008246841840445995, 0.00029982021078467369)
_ERF_BELOW = (1.0, 0.6046597361564636, 0.16026687622070312, 0.02397146262228489, 0.0020921491086483, 1.77295278e-05)


def clamp(k: KernelBuilder, x: Expr, low: float | None, high: float | None) -> Expr:
    """x between the bounds; None is no bound."""
    if low is not None:
        x = k.vector(x)
        x = tirx.Select(k.splat(low) > x, k.splat(low), x)
    if high is not None:
        x = k.vector(x)
        x = tirx.Select(k.splat(high) < x, k.splat(high), x)
    return x


def exp(k: KernelBuilder, x: Expr, whole: bool = False) -> Expr:
    """e to the x within 2 ulp (Cephes).

    Beyond -87.3 and 88.3 it is what it is there; if ``whole``, 0 and infinity, at the price of one multiplication.
    """
    x = k.held(clamp(k, x, -87.3, 89.0 if whole else 88.3))
    n = k.vector(tirx.floor(x * k.splat(_LOG2E) + k.splat(0.5)))
    r = k.held(x - n * k.splat(_LN2_HIGH) - n * k.splat(_LN2_LOW))
    poly = k.splat(_EXP[0])
    for c in _EXP[1:]:
        poly = poly * r + k.splat(c)
    poly = poly * (r * r) + r + k.splat(1.0)
    ints = tirx.Cast(f"int32x{k.lanes}", n)
    poly = poly * k.splat(2.0) if whole else poly  # and half of the power: the largest is not finite
    bits = (ints + tirx.Broadcast(tirx.IntImm("int32", 126 if whole else 127), k.lanes)) * tirx.Broadcast(
        tirx.IntImm("int32", 1 << 23), k.lanes
    )
    return poly * tirx.reinterpret(f"float32x{k.lanes}", bits)


def sigmoid(k: KernelBuilder, x: Expr) -> Expr:
    """1 / (1 + exp(-x))."""
    return k.splat(1.0) / (k.splat(1.0) + exp(k, k.splat(0.0) - x))


def tanh(k: KernelBuilder, x: Expr) -> Expr:
    """1 - 2 / (exp(2x) + 1), exact to 1e-7 of 1."""
    return k.splat(1.0) - k.splat(2.0) / (exp(k, x * k.splat(2.0)) + k.splat(1.0))


def erf(k: KernelBuilder, x: Expr) -> Expr:
    """A rational function, within 5e-7."""
    x = k.held(clamp(k, x, -3.8, 3.8))
    t = k.held(x * x)
    return x * _polynomial(k, t, _ERF) / _polynomial(k, t, _ERF_BELOW)


def _polynomial(k: KernelBuilder, x: Expr, coefficients: Sequence[float]) -> Expr:
    """Coefficients from the lowest power on."""
    total = k.splat(coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = total * x + k.splat(c)
    return total


def _gelu(k: KernelBuilder, x: Expr, a: Attrs) -> Expr:
    x = k.vector(x)
    half = x * k.splat(0.5)
    if a["approximate"] == "tanh":
        inner = (x + x * x * x * k.splat(0.044715)) * k.splat(math.sqrt(2 / math.pi))
        return half * (k.splat(1.0) + tanh(k, inner))
    return half * (k.splat(1.0) + erf(k, x * k.splat(1 / math.sqrt(2))))


def _mish(k: KernelBuilder, x: Expr, a: Attrs) -> Expr:
    x = k.vector(x)
    e = k.held(exp(k, clamp(k, x, None, 20.0)))
    square = k.vector(e * (e + k.splat(2.0)))
    return x * (square / (square + k.splat(2.0)))


def _elu(k: KernelBuilder, x: Expr, alpha: float, scale: float = 1.0, inner: float = 1.0) -> Expr:
    x = k.vector(x)
    low = k.splat(alpha * scale) * (exp(k, x * k.splat(inner)) - k.splat(1.0))
    return tirx.Select(x > k.splat(0.0), x * k.splat(scale), low)


def _leaky(k: KernelBuilder, x: Expr, a: Attrs) -> Expr:
    x = k.vector(x)
    return tirx.Select(x > k.splat(0.0), x, x * k.splat(a["slope"]))


def _hard_swish(k: KernelBuilder, x: Expr, a: Attrs) -> Expr:
    x = k.vector(x)
    return x * clamp(k, x * k.splat(1 / 6) + k.splat(0.5), 0.0, 1.0)


def _silu(k: KernelBuilder, x: Expr, a: Attrs) -> Expr:
    x = k.vector(x)
    return x * sigmoid(k, x)


def _abs(k: KernelBuilder, x: Expr, a: Attrs) -> Expr:
    x = k.vector(x)
    return tirx.max(x, k.splat(0.0) - x)


def _softsign(k: KernelBuilder, x: Expr, a: Attrs) -> Expr:
    x = k.vector(x)
    return x / (k.splat(1.0) + tirx.max(x, k.splat(0.0) - x))


UNARY: Mapping[str, Unary] = MappingProxyType(
    {
        "relu": lambda k, x, a: clamp(k, x, 0.0, None),
        "clip": lambda k, x, a: clamp(k, x, a["min"], a["max"]),
        "sigmoid": lambda k, x, a: sigmoid(k, x),
        "tanh": lambda k, x, a: tanh(k, x),
        "silu": _silu,
        "mish": _mish,
        "erf": lambda k, x, a: erf(k, x),
        "exp": lambda k, x, a: exp(k, x, whole=True),
        "sqrt": lambda k, x, a: tirx.sqrt(x),
        "rsqrt": lambda k, x, a: k.splat(1.0) / tirx.sqrt(x),
        "neg": lambda k, x, a: k.splat(0.0) - x,
        "abs": _abs,
        "floor": lambda k, x, a: tirx.floor(x),
        "ceil": lambda k, x, a: tirx.ceil(x),
        "reciprocal": lambda k, x, a: k.splat(1.0) / x,
        "softsign": _softsign,
        "hard_swish": _hard_swish,
        "hard_sigmoid": lambda k, x, a: clamp(k, x * k.splat(a["alpha"]) + k.splat(a["beta"]), 0.0, 1.0),
        "gelu": _gelu,
        "elu": lambda k, x, a: _elu(k, x, a["alpha"]),
        "celu": lambda k, x, a: _elu(k, x, a["alpha"], 1.0, 1.0 / a["alpha"]),
        "selu": lambda k, x, a: _elu(k, x, 1.6732632423543772, 1.0507009873554805),
        "leaky_relu": _leaky,
    }
)


def _or_nan(best: Expr, b: Expr) -> Expr:
    """The smaller or larger of two; b where that is NaN."""
    return tirx.Select(tirx.isnan(b), b, best)


ARITHMETIC = frozenset({"add", "sub", "mul", "div"})  # each operand is written once

BINARY: Mapping[str, Callable[[Expr, Expr], Expr]] = MappingProxyType(
    {
        "add": lambda a, b: a + b,
        "sub": lambda a, b: a - b,
        "mul": lambda a, b: a * b,
        "div": lambda a, b: a / b,
        "minimum": lambda a, b: _or_nan(tirx.Select(b < a, b, a), b),
        "maximum": lambda a, b: _or_nan(tirx.Select(b > a, b, a), b),
        "prelu": lambda a, b: tirx.Select(a > a - a, a, a * b),
        "keep": lambda a, b: tirx.Select(b > b - b, a, b),  # 0 where b is 0, whatever a is
    }
)
