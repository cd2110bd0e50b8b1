"""Element-wise operators on numbers, by the functions that CUDA and OpenCL both have.

NaN stays NaN, as in ONNX Runtime: bounds are compared, since fmin and fmax of both languages take the other number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from tvm import tirx

from secateur.codegen.emit import maths
from secateur.codegen.emit.types import Expr
from secateur.codegen.plan.program import Attrs

from .builder import GpuBuilder, number

Unary = Callable[[GpuBuilder, Expr, Attrs], Expr]
ONE, ZERO, HALF = number(1.0), number(0.0), number(0.5)


def clamp(k: GpuBuilder, x: Expr, low: float | None, high: float | None) -> Expr:
    """x between the bounds; None is no bound."""
    if low is not None:
        x = k.held(x)
        x = tirx.Select(number(low) > x, number(low), x)
    if high is not None:
        x = k.held(x)
        x = tirx.Select(number(high) < x, number(high), x)
    return x


def sigmoid(x: Expr) -> Expr:
    """1 / (1 + exp(-x))."""
    return ONE / (ONE + tirx.exp(ZERO - x))


def tanh(k: GpuBuilder, x: Expr) -> Expr:
    """1 - 2 / (exp(2x) + 1), bounded so that nothing overflows."""
    return ONE - number(2.0) / (tirx.exp(number(2.0) * clamp(k, x, -15.0, 15.0)) + ONE)


def _gelu(k: GpuBuilder, x: Expr, a: Attrs) -> Expr:
    half = x * HALF
    if a["approximate"] == "tanh":
        inner = (x + x * x * x * number(0.044715)) * number(math.sqrt(2 / math.pi))
        return half * (ONE + tanh(k, inner))
    return half * (ONE + tirx.erf(x * number(math.sqrt(0.5))))


def _mish(k: GpuBuilder, x: Expr, a: Attrs) -> Expr:
    e = k.held(tirx.exp(clamp(k, x, None, 20.0)))
    square = k.held(e * (e + number(2.0)))
    return x * (square / (square + number(2.0)))


def _elu(x: Expr, alpha: float, scale: float = 1.0, inner: float = 1.0) -> Expr:
    low = number(alpha * scale) * (tirx.exp(x * number(inner)) - ONE)
    return tirx.Select(x > ZERO, x * number(scale), low)


UNARY: Mapping[str, Unary] = MappingProxyType(
    {
        "relu": lambda k, x, a: clamp(k, x, 0.0, None),
        "clip": lambda k, x, a: clamp(k, x, a["min"], a["max"]),
        "sigmoid": lambda k, x, a: sigmoid(x),
        "tanh": lambda k, x, a: tanh(k, x),
        "silu": lambda k, x, a: x * sigmoid(x),
        "mish": _mish,
        "erf": lambda k, x, a: tirx.erf(x),
        "exp": lambda k, x, a: tirx.exp(x),
        "sqrt": lambda k, x, a: tirx.sqrt(x),
        "rsqrt": lambda k, x, a: ONE / tirx.sqrt(x),
        "neg": lambda k, x, a: ZERO - x,
        "abs": lambda k, x, a: tirx.abs(x),
        "floor": lambda k, x, a: tirx.floor(x),
        "ceil": lambda k, x, a: tirx.ceil(x),
        "reciprocal": lambda k, x, a: ONE / x,
        "softsign": lambda k, x, a: x / (ONE + tirx.abs(x)),
        "hard_swish": lambda k, x, a: x * clamp(k, x * number(1 / 6) + HALF, 0.0, 1.0),
        "hard_sigmoid": lambda k, x, a: clamp(k, x * number(a["alpha"]) + number(a["beta"]), 0.0, 1.0),
        "gelu": _gelu,
        "elu": lambda k, x, a: _elu(x, a["alpha"]),
        "celu": lambda k, x, a: _elu(x, a["alpha"], 1.0, 1.0 / a["alpha"]),
        "selu": lambda k, x, a: _elu(x, 1.6732632423543772, 1.0507009873554805),
        "leaky_relu": lambda k, x, a: tirx.Select(x > ZERO, x, x * number(a["slope"])),
    }
)

# As for vectors; a number is compared with zero itself.
BINARY: Mapping[str, Callable[[Expr, Expr], Expr]] = MappingProxyType(
    {**maths.BINARY, "prelu": lambda a, b: tirx.Select(a > ZERO, a, a * b)}
)
