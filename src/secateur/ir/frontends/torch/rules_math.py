"""Rules of arithmetic: ATen calls that compute element by element or reduce."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from secateur.ir.graph import Value

from .arrays import FLOATS
from .build import Args, Builder, Rule, Skip, axes_of, axis_of
from .rules_products import addmm, bilinear, einsum, linear, matmul, vdot


def unary(op: str) -> Rule:
    """A rule for an operator of one tensor; integer inputs of float functions are cast."""
    return lambda b, a: b.emit(op, [a.self if op == "isnan" else b.cast(a.self, a.dtype)])


def first(b: Builder, a: Args) -> Value:
    """The first argument itself: the call changes nothing."""
    value: Value = a.first()
    return value


def binary(op: str) -> Rule:
    """The rule of a function of two values, in the type of the result."""
    return lambda b, a: b.binary(op, a.self, a.other, a.dtype)


def _compare(op: str) -> Rule:
    def rule(b: Builder, a: Args) -> Value:
        x, y = a.self, a.other
        if op in ("and", "or", "xor"):
            return b.binary(op, x, y, "b1")
        if not isinstance(y, Value):
            wide = "f32" if isinstance(y, float) and x.dtype not in FLOATS else x.dtype
            return b.binary(op, x, y, "i64" if x.dtype == "b1" else wide)
        rank = sorted((x.dtype, y.dtype), key=_width)
        return b.binary(op, x, y, rank[-1])

    return rule


def _width(dtype: str) -> tuple[bool, int]:
    return dtype in FLOATS, int("".join(c for c in dtype if c.isdigit()))


def _bitwise(op: str) -> Rule:
    def rule(b: Builder, a: Args) -> Value:
        if a.dtype != "b1":
            raise Skip("bitwise arithmetic on integers")
        return b.binary(op, a.self, a.other, "b1")

    return rule


def _not(b: Builder, a: Args) -> Value:
    if a.self.dtype != "b1":
        raise Skip("not of numbers")
    return b.emit("not", [a.self])


def _scaled(op: str) -> Rule:
    """add and sub, whose second operand may be scaled by alpha."""

    def rule(b: Builder, a: Args) -> Value:
        other = a.other
        if a.get("alpha", 1) != 1:
            other = other * a.alpha if not isinstance(other, Value) else b.binary("mul", other, a.alpha, a.dtype)
        return b.binary(op, a.self, other, a.dtype)

    return rule


def _rsub(b: Builder, a: Args) -> Value:
    x = a.self if a.get("alpha", 1) == 1 else b.binary("mul", a.self, a.alpha, a.dtype)
    return b.binary("sub", a.other, x, a.dtype)


def _div(b: Builder, a: Args) -> Value:
    mode = a.get("rounding_mode")
    if mode == "floor":
        return floor_divide(b, a)
    quotient = b.binary("div", a.self, a.other, a.dtype)  # whole numbers are divided towards zero
    if mode is None or a.dtype not in FLOATS:
        return quotient
    below = b.emit("lt", [quotient, b.scalar(0, a.dtype)])
    return b.emit("where", [below, b.emit("ceil", [quotient]), b.emit("floor", [quotient])])


def floor_divide(b: Builder, a: Args) -> Value:
    """The quotient rounded down, of whole numbers too."""
    # Not floor(x / y), which is one too many where the quotient rounds up to a whole number.
    x, y = b.lift(a.self, a.dtype), b.lift(a.other, a.dtype)
    quotient = b.emit("div", [b.emit("sub", [x, b.emit("mod", [x, y])]), y])
    if a.dtype not in FLOATS:
        return quotient
    whole = b.emit("round", [quotient])
    if not isinstance(a.other, Value) and a.other:
        return whole
    return b.emit("where", [b.emit("eq", [y, b.scalar(0, a.dtype)]), b.emit("div", [x, y]), whole])


def _pow(b: Builder, a: Args) -> Value:
    exponent = a.exponent
    if not isinstance(exponent, Value) and exponent == 2:
        x = b.cast(a.self, a.dtype)
        return b.emit("mul", [x, x])
    if not isinstance(exponent, Value) and exponent == 0.5:
        return b.emit("sqrt", [b.cast(a.self, a.dtype)])
    return b.binary("pow", a.self, exponent, a.dtype)


def _square(b: Builder, a: Args) -> Value:
    return b.emit("mul", [a.self, a.self])


def _clip(low: str | None, high: str | None) -> Rule:
    def rule(b: Builder, a: Args) -> Value:
        lo = a.get(low) if low else None
        hi = a.get(high) if high else None
        x = b.cast(a.self, a.dtype)
        if isinstance(lo, Value) or isinstance(hi, Value):
            x = x if lo is None else b.emit("maximum", [x, b.cast(lo, a.dtype)])
            return x if hi is None else b.emit("minimum", [x, b.cast(hi, a.dtype)])
        return b.emit("clip", [x], min=lo, max=hi)

    return rule


def _relu6(b: Builder, a: Args) -> Value:
    return b.emit("clip", [a.self], min=0.0, max=6.0)


def _elu(b: Builder, a: Args) -> Value:
    if a.scale != 1 or a.input_scale != 1:
        raise Skip("scaled ELU")
    return b.emit("elu", [a.self], alpha=float(a.alpha))


def _dropout(kind: str) -> Rule:
    """Dropout that rests in eval mode and works in train mode; one that works always stays as it is, opaque."""

    def rule(b: Builder, a: Args) -> Value:
        x: Value = a.get("input", a.get("self"))
        if a.train or a.train is None:
            raise Skip("dropout that is on in eval mode too")
        if not a.p:  # off for good
            return x
        b.train_as = kind
        return b.emit("dropout", [x], p=float(a.p))

    return rule


def _native_dropout(b: Builder, a: Args) -> object:
    return _dropout("dropout")(b, a), None


def _softmax(op: str) -> Rule:
    def rule(b: Builder, a: Args) -> Value:
        a.shown("half_to_float")
        return b.emit(op, [b.cast(a.self, a.dtype)], axis=axis_of(a.dim, len(a.self.shape)))

    return rule


def _threshold(b: Builder, a: Args) -> Value:
    """What is not above the threshold is another number."""
    above = b.binary("gt", a.self, a.threshold, a.self.dtype)
    return b.emit("where", [above, a.self, b.lift(a.value, a.self.dtype)])


def _where(b: Builder, a: Args) -> Value:
    return b.emit("where", [b.cast(a.condition, "b1"), b.lift(a.self, a.dtype), b.lift(a.other, a.dtype)])


def _masked_fill(b: Builder, a: Args) -> Value:
    return b.emit("where", [b.cast(a.mask, "b1"), b.lift(a.value, a.dtype), b.cast(a.self, a.dtype)])


def reduce(op: str) -> Rule:
    """The rule of a reduction over ``dim``, over all axes without it."""

    def rule(b: Builder, a: Args) -> Value:
        axes = axes_of(a.get("dim"), len(a.self.shape))
        return b.emit(op, [b.cast(a.self, a.dtype)], axes=axes, keepdims=bool(a.get("keepdim", False)))

    return rule


def _max_dim(op: str) -> Rule:
    """max and min along an axis also give the positions."""

    def rule(b: Builder, a: Args) -> object:
        axis, keep = axis_of(a.dim, len(a.self.shape)), bool(a.keepdim)
        where = b.emit("argmax" if op == "reduce_max" else "argmin", [a.self], axis=axis, keepdims=keep)
        return b.emit(op, [a.self], axes=(axis,), keepdims=keep), where

    return rule


def _variance(root: bool, mean: bool) -> Rule:
    def rule(b: Builder, a: Args) -> object:
        axes, keep = axes_of(a.get("dim"), len(a.self.shape)), bool(a.get("keepdim", False))
        correction = a.get("correction", 1)
        if "unbiased" in a:
            correction = int(a.unbiased)
        if correction is not None and correction != int(correction):
            raise Skip(f"correction by {correction}")
        spread = b.emit(
            "reduce_var", [a.self], axes=axes, keepdims=keep, correction=1 if correction is None else int(correction)
        )
        spread = b.emit("sqrt", [spread]) if root else spread
        return (spread, b.emit("reduce_mean", [a.self], axes=axes, keepdims=keep)) if mean else spread

    return rule


def _norm(b: Builder, a: Args) -> Value:
    order = a.get("ord", a.get("p"))
    order = 2 if order is None else order
    if order not in (1, 2):
        raise Skip(f"norm of order {order}")
    axes = axes_of(a.get("dim"), len(a.self.shape))
    return b.emit(f"reduce_l{int(order)}", [a.self], axes=axes, keepdims=bool(a.get("keepdim", False)))


def _arg(op: str) -> Rule:
    def rule(b: Builder, a: Args) -> Value:
        x = a.self
        if a.dim is None:
            x = b.reshape(x, (-1,)) if len(x.shape) != 1 else x
        return b.emit(op, [x], axis=axis_of(a.dim or 0, len(x.shape)), keepdims=bool(a.keepdim))

    return rule


def _cumsum(b: Builder, a: Args) -> Value:
    return b.emit("cumsum", [b.cast(a.self, a.dtype)], axis=axis_of(a.dim, len(a.self.shape)))


def _weight_norm(b: Builder, a: Args) -> Value:
    """g * v / |v|, the norm over all axes but one."""
    axes = tuple(i for i in range(len(a.v.shape)) if i != axis_of(int(a.dim), len(a.v.shape)))
    norm = b.emit("reduce_l2", [a.v], axes=axes, keepdims=True)
    return b.emit("mul", [a.v, b.emit("div", [a.g, norm])])


def _weight_norm_many(b: Builder, a: Args) -> object:
    return _weight_norm(b, a), None


def _addcmul(b: Builder, a: Args) -> Value:
    product = b.binary("mul", a.tensor1, a.tensor2, a.dtype)
    product = product if a.value == 1 else b.binary("mul", product, a.value, a.dtype)
    return b.emit("add", [a.self, product])


def _lerp(b: Builder, a: Args) -> Value:
    step = b.binary("mul", b.emit("sub", [a.end, a.self]), a.weight, a.dtype)
    return b.emit("add", [a.self, step])


def _glu(b: Builder, a: Args) -> Value:
    axis = axis_of(a.dim, len(a.self.shape))
    half = a.self.shape[axis] // 2
    x, gate = b.emit_many("split", [a.self], 2, axis=axis, sizes=(half, half))
    return b.emit("mul", [x, b.emit("sigmoid", [gate])])


def _with(op: str, **names: str) -> Rule:
    """A unary operator whose attributes are numbers among the call's arguments."""
    return lambda b, a: b.emit(op, [a.self], **{attr: float(a.get(name)) for attr, name in names.items()})


_UNARY = (
    "relu", "sigmoid", "tanh", "silu", "mish", "erf", "exp", "log", "sqrt", "rsqrt", "neg", "abs", "floor", "ceil",
    "round", "sign", "reciprocal", "sin", "cos", "log_sigmoid", "selu", "isnan",
)  # fmt: skip

MATH: Mapping[str, Rule] = MappingProxyType(
    {
        **{name: unary(name) for name in _UNARY},
        "hardswish": unary("hard_swish"),
        "hardsigmoid": lambda b, a: b.emit("hard_sigmoid", [a.self], alpha=1 / 6, beta=0.5),
        "gelu": lambda b, a: b.emit("gelu", [a.self], approximate=a.approximate),
        "softplus": _with("softplus", beta="beta", threshold="threshold"),
        "elu": _elu, "celu": _with("celu", alpha="alpha"),
        "leaky_relu": _with("leaky_relu", slope="negative_slope"),
        "clamp": _clip("min", "max"), "clip": _clip("min", "max"), "clamp_min": _clip("min", None),
        "clamp_max": _clip(None, "max"), "hardtanh": _clip("min_val", "max_val"), "relu6": _relu6,
        **{kind: _dropout(kind) for kind in ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")},
        "native_dropout": _native_dropout,
        "add": _scaled("add"), "sub": _scaled("sub"), "subtract": _scaled("sub"), "rsub": _rsub,
        "mul": binary("mul"), "multiply": binary("mul"), "div": _div, "divide": _div, "true_divide": binary("div"),
        "pow": _pow, "square": _square, "minimum": binary("minimum"), "maximum": binary("maximum"),
        "remainder": binary("mod"),
        **{op: _compare(op) for op in ("eq", "ne", "lt", "le", "gt", "ge")},
        "logical_and": _compare("and"), "logical_or": _compare("or"), "logical_xor": _compare("xor"),
        "logical_not": _not, "bitwise_not": _not,
        "bitwise_and": _bitwise("and"), "bitwise_or": _bitwise("or"), "bitwise_xor": _bitwise("xor"),
        "where": _where, "threshold": _threshold, "masked_fill": _masked_fill,
        "softmax": _softmax("softmax"), "_softmax": _softmax("softmax"), "special_softmax": _softmax("softmax"),
        "log_softmax": _softmax("log_softmax"), "_log_softmax": _softmax("log_softmax"),
        "sum": reduce("reduce_sum"), "mean": reduce("reduce_mean"), "amax": reduce("reduce_max"),
        "amin": reduce("reduce_min"), "prod": reduce("reduce_prod"), "logsumexp": reduce("reduce_logsumexp"),
        "var": _variance(False, False), "std": _variance(True, False),
        "var_mean": _variance(False, True), "std_mean": _variance(True, True),
        "norm": _norm, "linalg_vector_norm": _norm,
        "argmax": _arg("argmax"), "argmin": _arg("argmin"), "cumsum": _cumsum,
        "matmul": matmul, "mm": matmul, "bmm": matmul, "mv": matmul, "dot": matmul, "vdot": vdot,
        "addmm": addmm, "baddbmm": addmm, "linear": linear, "einsum": einsum, "bilinear": bilinear,
        "addcmul": _addcmul, "lerp": _lerp, "glu": _glu,
        "_weight_norm": _weight_norm, "_weight_norm_interface": _weight_norm_many,
    }
)  # fmt: skip


def max_or_min(op: str) -> Rule:
    """max.default reduces all, max.dim one axis, max.other compares two tensors."""

    def rule(b: Builder, a: Args) -> object:
        if "other" in a:
            return b.binary("maximum" if op == "reduce_max" else "minimum", a.self, a.other, a.dtype)
        return _max_dim(op)(b, a) if "dim" in a else reduce(op)(b, a)

    return rule
