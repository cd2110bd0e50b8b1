"""How each ONNX operator that computes becomes IR nodes. ``RULES`` at the end is the table."""

from __future__ import annotations

from typing import Any

import numpy as np

from secateur.ir.graph import numpy_dtype

from .builder import Builder, Rule
from .names import Odd, Op
from .rules_contrib import CONTRIB
from .rules_layers import LAYERS
from .rules_movement import MOVEMENT, norm_axis, reduce_axes
from .shapes import element_name


# -- element-wise ---------------------------------------------------------------------------------------------
def _unary(name: str, **attrs: Any) -> Rule:
    """An operator without attributes, or with defaults taken by the ONNX attribute in ``attrs``."""

    def rule(b: Builder, op: Op) -> None:
        b.result(name, [op.input(0)], op, **attrs)

    return rule


def _with(name: str, **attrs: tuple[str, Any]) -> Rule:
    def rule(b: Builder, op: Op) -> None:
        b.result(name, [op.input(0)], op, **{k: op.attrs.get(key, default) for k, (key, default) in attrs.items()})

    return rule


def _binary(name: str) -> Rule:
    def rule(b: Builder, op: Op) -> None:
        if name == "div" and b.value(op.input(0)).dtype[0] in "iu":
            raise Odd("it divides integers")
        if name == "mod" and op.attrs.get("fmod", 0):
            raise Odd("it takes the sign of the dividend")
        b.result(name, [op.input(0), op.input(1)], op)

    return rule


def _chain(name: str) -> Rule:
    """n inputs become n - 1 binary nodes; the mean is a sum and a product."""

    def rule(b: Builder, op: Op) -> None:
        final, mean = op.outputs[0], op.kind == "Mean"
        assert final is not None
        if len(op.inputs) == 1:
            b.result("identity", [op.input(0)], op)
            return
        b.exact = len(op.inputs) == 2 and not mean
        y = op.input(0)
        for i in range(1, len(op.inputs)):
            y = b.emit(name, [y, op.input(i)], [final] if i == len(op.inputs) - 1 and not mean else None)
        if mean:
            share = np.array(1 / len(op.inputs), numpy_dtype(b.value(y).dtype))
            b.emit("mul", [y, b.constant(share)], [final])

    return rule


def _selu(b: Builder, op: Op) -> None:
    alpha, gamma = op.attrs.get("alpha", 1.6732632), op.attrs.get("gamma", 1.0507010)
    if abs(alpha - 1.6732632) > 1e-5 or abs(gamma - 1.0507010) > 1e-5:
        raise Odd("it has other constants than SELU")
    b.result("selu", [op.input(0)], op)


def _swish(b: Builder, op: Op) -> None:
    if op.attrs.get("alpha", 1.0) != 1.0:
        raise Odd("its slope is not 1")
    b.result("silu", [op.input(0)], op)


def _clip(b: Builder, op: Op) -> None:
    if op.opset >= 11 and any(op.maybe(i) and b.const(op.maybe(i)) is None for i in (1, 2)):
        _clip_computed(b, op)
        return
    if op.opset < 11:
        low, high = op.attrs.get("min"), op.attrs.get("max")
    else:
        low = b.array(op, 1, "minimum").item() if op.maybe(1) else None
        high = b.array(op, 2, "maximum").item() if op.maybe(2) else None
    huge = 3.4028234e38
    low = None if low is None or low <= -huge else low
    high = None if high is None or high >= huge else high
    if low is None and high is None:
        b.exact = False
        b.result("identity", [op.input(0)], op)
    else:
        b.result("clip", [op.input(0)], op, min=low, max=high)


def _clip_computed(b: Builder, op: Op) -> None:
    """Bounds that only a run reveals: the larger of two, then the smaller."""
    b.exact = False
    bounds = [(kind, name) for kind, name in (("maximum", op.maybe(1)), ("minimum", op.maybe(2))) if name]
    y = op.input(0)
    for i, (kind, name) in enumerate(bounds):
        last = i == len(bounds) - 1
        y = b.emit(kind, [y, name], [str(op.outputs[0])] if last else None)


def _prelu(b: Builder, op: Op) -> None:
    x, slope = b.shape(op.input(0)), b.shape(op.input(1))
    weight = op.input(1)
    if len(slope) == 1 and slope != (1,) and len(x) != 2:
        # ONNX broadcasts from the last axis, the IR reads a vector as one slope per channel.
        b.exact = False
        weight = b.constant(b.array(op, 1, "slope").reshape(*(1,) * (len(x) - 1), -1))
    elif len(slope) > len(x):
        raise Odd("its slope has more axes than the input")
    b.result("prelu", [op.input(0), weight], op)


def _dropout(b: Builder, op: Op) -> None:
    if b.is_used(op, 1):
        raise Odd("its mask is used")
    training = b.const(op.maybe(2))
    if op.maybe(2) and (training is None or bool(training)):
        raise Odd("it is in training mode")
    ratio = op.attrs.get("ratio", 0.5)
    if op.maybe(1):
        ratio = b.array(op, 1, "ratio").item()
    b.result("dropout", [op.input(0)], op, p=float(ratio))


def _cast(b: Builder, op: Op) -> None:
    to = b.value(op.input(1)).dtype if op.kind == "CastLike" else element_name(op.attrs["to"])
    if to == "str" or b.value(op.input(0)).dtype == "str":
        raise Odd("it casts text")
    b.exact = op.kind == "Cast"
    b.result("cast", [op.input(0)], op, to=to)


def _where(b: Builder, op: Op) -> None:
    b.result("where", [op.input(0), op.input(1), op.input(2)], op)


def _cumsum(b: Builder, op: Op) -> None:
    if op.attrs.get("exclusive", 0) or op.attrs.get("reverse", 0):
        raise Odd("it sums exclusively or backwards")
    (axis,) = b.ints(op, 1, "axis")
    b.result("cumsum", [op.input(0)], op, axis=norm_axis(axis, len(b.shape(op.input(0)))))


# -- reductions and recurrences -------------------------------------------------------------------------------
def _reduce(name: str, inputs_since: int) -> Rule:
    def rule(b: Builder, op: Op) -> None:
        axes = reduce_axes(b, op, inputs_since)
        if not axes:  # every element is reduced alone, and the norm of a number is its size
            b.exact = False
            b.result("abs" if name in ("reduce_l1", "reduce_l2") else "identity", [op.input(0)], op)
        else:
            b.result(name, [op.input(0)], op, axes=axes, keepdims=bool(op.attrs.get("keepdims", 1)))

    return rule


def _arg(name: str) -> Rule:
    def rule(b: Builder, op: Op) -> None:
        if op.attrs.get("select_last_index", 0):
            raise Odd("it takes the last of equals")
        axis = norm_axis(op.attrs.get("axis", 0), len(b.shape(op.input(0))))
        b.result(name, [op.input(0)], op, axis=axis, keepdims=bool(op.attrs.get("keepdims", 1)))

    return rule


ACTIVATIONS = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}


def _recurrent(b: Builder, op: Op) -> None:
    a = op.attrs
    direction = a.get("direction", "forward")
    ways = 2 if direction == "bidirectional" else 1
    given = [f.lower() for f in a.get("activations", [])]
    plain = op.kind == "RNN" and given in (["tanh"] * ways, ["relu"] * ways)
    if given not in ([], ACTIVATIONS[op.kind] * ways) and not plain:
        raise Odd("its activations are not the usual ones")
    if "clip" in a or a.get("layout", 0) or a.get("input_forget", 0) or op.maybe(4) or op.maybe(7):
        raise Odd("it clips, is batch first, couples gates, has sequence lengths or peepholes")
    count = 3 if op.kind == "LSTM" else 2
    outs = [(op.outputs[i] if i < len(op.outputs) else None) for i in range(count)]
    while outs and outs[-1] is None:
        outs.pop()
    outputs = [o or b.fresh() for o in outs]
    states = [op.maybe(5), op.maybe(6)] if op.kind == "LSTM" else [op.maybe(5)]
    attrs: dict[str, Any] = {"hidden": a.get("hidden_size", b.shape(op.input(2))[-1]), "direction": direction}
    if op.kind == "GRU":
        attrs["linear_before_reset"] = bool(a.get("linear_before_reset", 0))
    if op.kind == "RNN":
        attrs["activation"] = given[0] if given else "tanh"
    b.exact = all(outs)
    b.emit(op.kind.lower(), [*op.inputs[:3], op.maybe(3), *states], outputs, **attrs)


def _same_named() -> dict[str, Rule]:
    names = ("Relu Sigmoid Tanh Mish Erf Exp Log Sqrt Neg Abs Floor Ceil Round Sign Reciprocal Softsign Not Sin Cos "
             "Identity")  # fmt: skip
    table = {name: _unary(name.lower()) for name in names.split()}
    return {**table, "HardSwish": _unary("hard_swish"), "IsNaN": _unary("isnan")}


RULES: dict[str, Rule] = {
    **LAYERS,
    **_same_named(),
    "Gelu": _with("gelu", approximate=("approximate", "none")),
    "Elu": _with("elu", alpha=("alpha", 1.0)), "Celu": _with("celu", alpha=("alpha", 1.0)),
    "LeakyRelu": _with("leaky_relu", slope=("alpha", 0.01)),
    "HardSigmoid": _with("hard_sigmoid", alpha=("alpha", 0.2), beta=("beta", 0.5)),
    "Softplus": _unary("softplus", beta=1.0, threshold=20.0),
    "Selu": _selu, "Swish": _swish, "Clip": _clip, "PRelu": _prelu, "Dropout": _dropout,
    "Cast": _cast, "CastLike": _cast, "Where": _where, "CumSum": _cumsum,
    "Add": _binary("add"), "Sub": _binary("sub"), "Mul": _binary("mul"), "Div": _binary("div"),
    "Pow": _binary("pow"), "Mod": _binary("mod"),
    "Equal": _binary("eq"), "Less": _binary("lt"), "LessOrEqual": _binary("le"), "Greater": _binary("gt"),
    "GreaterOrEqual": _binary("ge"), "And": _binary("and"), "Or": _binary("or"), "Xor": _binary("xor"),
    "Sum": _chain("add"), "Mean": _chain("add"), "Min": _chain("minimum"), "Max": _chain("maximum"),
    "ReduceMean": _reduce("reduce_mean", 18), "ReduceSum": _reduce("reduce_sum", 13),
    "ReduceMax": _reduce("reduce_max", 18), "ReduceMin": _reduce("reduce_min", 18),
    "ReduceProd": _reduce("reduce_prod", 18), "ReduceL1": _reduce("reduce_l1", 18),
    "ReduceL2": _reduce("reduce_l2", 18), "ReduceLogSumExp": _reduce("reduce_logsumexp", 18),
    "ArgMax": _arg("argmax"), "ArgMin": _arg("argmin"), "LSTM": _recurrent, "GRU": _recurrent, "RNN": _recurrent,
    **MOVEMENT,
    **CONTRIB,
}  # fmt: skip
