"""Element-wise arithmetic and reductions in TVM's expressions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from tvm import te, tirx, topi

from secateur.codegen.plan.program import Attrs, TensorSpec

from .types import Expr, Tensor

Rule = Callable[[TensorSpec, Sequence[Tensor], Attrs], Tensor]


def _unary(f: Callable[[Expr], Expr]) -> Rule:
    return lambda s, x, a: te.compute(x[0].shape, lambda *i: f(x[0](*i)), s.op)


def _plain(f: Callable[..., Tensor]) -> Rule:
    return lambda s, x, a: f(*x)


def scalar(x: Expr, value: float) -> Expr:
    """A constant of the element type of ``x``."""
    return tirx.const(value, x.ty.dtype)


def _softplus(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
    beta, limit = a["beta"], a["threshold"]

    def one(v: Expr) -> Expr:
        z = v * scalar(v, beta)
        return tirx.Select(z > scalar(v, limit), v, tirx.log(scalar(v, 1) + tirx.exp(z)) / scalar(v, beta))

    return te.compute(x[0].shape, lambda *i: one(x[0](*i)))


def moments(x: Tensor, axes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """(``x`` less its mean over these axes, the mean of the squares of that), the axes kept."""
    count = math.prod(int(x.shape[i]) for i in axes)
    size = tirx.const(count, "float32")
    mean = topi.divide(topi.sum(x, axis=list(axes), keepdims=True), size)
    centred = topi.subtract(x, mean)
    return centred, topi.divide(topi.sum(topi.multiply(centred, centred), axis=list(axes), keepdims=True), size)


def _prelu(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
    w = x[1]
    if len(w.shape) == 1 and len(x[0].shape) > 1:
        w = topi.reshape(w, (1, int(w.shape[0]), *[1] * (len(x[0].shape) - 2)))
    w = topi.broadcast_to(w, x[0].shape)
    return te.compute(x[0].shape, lambda *i: tirx.Select(x[0](*i) > 0, x[0](*i), x[0](*i) * w(*i)))


def _div(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
    return topi.divide(x[0], x[1]) if "float" in str(x[0].dtype) else topi.div(x[0], x[1])


def _reduce(f: Callable[..., Tensor], before: Callable[[Tensor], Tensor] | None = None,
            after: Callable[[Tensor], Tensor] | None = None) -> Rule:  # fmt: skip
    def rule(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
        y = before(x[0]) if before else x[0]
        y = f(y, axis=list(a["axes"]), keepdims=a["keepdims"])
        return after(y) if after else y

    return rule


def _mean(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
    count = math.prod(int(x[0].shape[i]) for i in a["axes"])
    total = topi.sum(x[0], axis=list(a["axes"]), keepdims=a["keepdims"])
    return topi.multiply(total, tirx.const(1.0 / count, str(x[0].dtype)))


def _var(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
    axes = list(a["axes"])
    count = math.prod(int(x[0].shape[i]) for i in axes)
    _, var = moments(x[0], axes)
    return topi.multiply(var, tirx.const(count / (count - a["correction"]), "float32"))


def _logsumexp(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
    axes = list(a["axes"])
    top = topi.max(x[0], axis=axes, keepdims=True)
    total = topi.sum(topi.exp(topi.subtract(x[0], top)), axis=axes, keepdims=True)
    return topi.add(topi.log(total), top)


def _arg(best: Callable[[Expr, Expr], Expr], f: Callable[..., Tensor]) -> Rule:
    return lambda s, x, a: f(x[0], axis=a["axis"], keepdims=a["keepdims"], select_last_index=False)


def _cumsum(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
    axis = a["axis"]
    k = te.reduce_axis((0, x[0].shape[axis]), "k")

    def one(*i: Expr) -> Expr:
        value = x[0](*i[:axis], k, *i[axis + 1 :])
        return te.sum(tirx.if_then_else(k <= i[axis], value, scalar(value, 0)), axis=k)

    return te.compute(x[0].shape, one, "cumsum")


def _sign(v: Expr) -> Expr:
    none = v if "float" in str(v.ty.dtype) else scalar(v, 0)  # 0, or NaN
    return tirx.Select(v > scalar(v, 0), scalar(v, 1), tirx.Select(v < scalar(v, 0), scalar(v, -1), none))


def round_even(v: Expr) -> Expr:
    """The nearest integer, the even one of two."""
    low = tirx.floor(v)
    rest = v - low
    odd = low - tirx.floor(low / scalar(v, 2)) * scalar(v, 2)
    up = tirx.any(rest > scalar(v, 0.5), tirx.all(rest == scalar(v, 0.5), odd == scalar(v, 1)))
    return tirx.Select(up, low + scalar(v, 1), low)


def _elu(alpha: float, scale: float, inner: float) -> Callable[[Expr], Expr]:
    def bent(v: Expr) -> Expr:
        below = (tirx.exp(v * scalar(v, inner)) - scalar(v, 1)) * scalar(v, alpha * scale)
        return tirx.Select(v > scalar(v, 0), v * scalar(v, scale), below)

    return bent


def _gelu(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
    def exact(v: Expr) -> Expr:
        return v * scalar(v, 0.5) * (scalar(v, 1) + tirx.erf(v * scalar(v, math.sqrt(0.5))))

    def close(v: Expr) -> Expr:
        return (
            v
            * scalar(v, 0.5)
            * (scalar(v, 1) + tirx.tanh((v + v * v * v * scalar(v, 0.044715)) * scalar(v, math.sqrt(2 / math.pi))))
        )

    return _unary(close if a["approximate"] == "tanh" else exact)(s, x, a)


def _at_least(v: Expr, bound: Expr) -> Expr:
    """The larger; NaN stays NaN."""
    return tirx.Select(bound > v, bound, v)


def _at_most(v: Expr, bound: Expr) -> Expr:
    return tirx.Select(bound < v, bound, v)


def _best(f: Callable[..., Tensor]) -> Rule:
    """The smaller or larger of two, and NaN where one of them is."""

    def rule(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
        y = f(*x)
        for t in x if "float" in str(x[0].dtype) else ():
            y = topi.where(topi.isnan(t), t, y)
        return y

    return rule


def _clip(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
    def one(v: Expr) -> Expr:
        v = v if a["min"] is None else _at_least(v, scalar(v, a["min"]))
        return v if a["max"] is None else _at_most(v, scalar(v, a["max"]))

    return _unary(one)(s, x, a)


def _sigmoid(v: Expr) -> Expr:
    return scalar(v, 1) / (scalar(v, 1) + tirx.exp(-v))


def _log_sigmoid(v: Expr) -> Expr:
    return tirx.min(v, scalar(v, 0)) - tirx.log(scalar(v, 1) + tirx.exp(-tirx.abs(v)))


def _mish(v: Expr) -> Expr:
    e = tirx.exp(tirx.min(v, scalar(v, 20)))
    square = e * (e + scalar(v, 2))
    return v * square / (square + scalar(v, 2))


def _hard(v: Expr, alpha: float, beta: float) -> Expr:
    return _at_least(_at_most(v * scalar(v, alpha) + scalar(v, beta), scalar(v, 1)), scalar(v, 0))


MATH: Mapping[str, Rule] = MappingProxyType(
    {
        "prelu": _prelu,
        "softmax": lambda s, x, a: topi.nn.softmax(x[0], axis=a["axis"]),
        "log_softmax": lambda s, x, a: topi.log(topi.nn.softmax(x[0], axis=a["axis"])),
        "add": _plain(topi.add), "sub": _plain(topi.subtract), "mul": _plain(topi.multiply), "div": _div,
        "pow": _plain(topi.power), "minimum": _best(topi.minimum), "maximum": _best(topi.maximum),
        "mod": _plain(topi.floor_mod), "eq": _plain(topi.equal), "ne": _plain(topi.not_equal),
        "lt": _plain(topi.less), "le": _plain(topi.less_equal), "gt": _plain(topi.greater),
        "ge": _plain(topi.greater_equal), "and": _plain(topi.logical_and), "or": _plain(topi.logical_or),
        "xor": _plain(topi.logical_xor), "where": _plain(topi.where),
        "reduce_sum": _reduce(topi.sum), "reduce_mean": _mean, "reduce_max": _reduce(topi.max),
        "reduce_min": _reduce(topi.min), "reduce_prod": _reduce(topi.prod), "reduce_var": _var,
        "reduce_l1": _reduce(topi.sum, before=topi.abs),
        "reduce_l2": _reduce(topi.sum, before=lambda t: topi.multiply(t, t), after=topi.sqrt),
        "reduce_logsumexp": _logsumexp,
        "argmax": _arg(max, topi.argmax), "argmin": _arg(min, topi.argmin),
        "cumsum": _cumsum,
        "identity": lambda s, x, a: x[0], "dropout": lambda s, x, a: x[0],
        "relu": _unary(lambda v: _at_least(v, scalar(v, 0))), "sigmoid": _unary(_sigmoid), "tanh": _unary(tirx.tanh),
        "silu": _unary(lambda v: v * _sigmoid(v)), "mish": _unary(_mish), "erf": _unary(tirx.erf),
        "exp": _unary(tirx.exp), "log": _unary(tirx.log), "sqrt": _unary(tirx.sqrt),
        "rsqrt": _unary(lambda v: scalar(v, 1) / tirx.sqrt(v)), "neg": _unary(lambda v: -v), "abs": _unary(tirx.abs),
        "floor": _unary(tirx.floor), "ceil": _unary(tirx.ceil), "round": _unary(round_even), "sign": _unary(_sign),
        "reciprocal": _unary(lambda v: scalar(v, 1) / v),
        "softsign": _unary(lambda v: v / (scalar(v, 1) + tirx.abs(v))),
        "not": _plain(topi.logical_not), "sin": _unary(tirx.sin), "cos": _unary(tirx.cos),
        "log_sigmoid": _unary(_log_sigmoid), "hard_swish": _unary(lambda v: v * _hard(v, 1 / 6, 0.5)),
        "selu": _unary(_elu(1.6732632423543772, 1.0507009873554805, 1.0)), "isnan": _unary(tirx.isnan),
        "gelu": _gelu, "softplus": _softplus, "clip": _clip,
        "hard_sigmoid": lambda s, x, a: _unary(lambda v: _hard(v, a["alpha"], a["beta"]))(s, x, a),
        "elu": lambda s, x, a: _unary(_elu(a["alpha"], 1.0, 1.0))(s, x, a),
        "celu": lambda s, x, a: _unary(_elu(a["alpha"], 1.0, 1 / a["alpha"]))(s, x, a),
        "leaky_relu": lambda s, x, a: _unary(
            lambda v: tirx.Select(v > scalar(v, 0), v, v * scalar(v, a["slope"])))(s, x, a),
    }
)  # fmt: skip
