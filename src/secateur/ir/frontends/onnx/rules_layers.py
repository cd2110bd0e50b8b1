"""How ONNX's layers become IR nodes: windows, products, norms. ``LAYERS`` at the end is their part of the table."""

from __future__ import annotations

import math

import numpy as np

from secateur.ir.graph import numpy_dtype
from secateur.ir.symbolic import largest

from .builder import Builder, Rule
from .names import Misfit, Odd, Op
from .rules_movement import norm_axis


# -- windows ---------------------------------------------------------------------------------------------------
def _dims(count: int) -> int:
    """How many axes a window has. Raises Odd beyond those that torch has windows for."""
    if count > 3:
        raise Odd("its window has more than three axes")
    return count


def _spread(op: Op, key: str, d: int, default: int = 1) -> tuple[int, ...]:
    found = op.attrs.get(key)
    return tuple(int(v) for v in found) if found else (default,) * d


def _pads(op: Op, spatial: tuple[int, ...], kernel: tuple[int, ...], dilated: bool = True) -> tuple[int, ...]:
    """Explicit padding, begins then ends; ``auto_pad`` is resolved for this input size.

    ``dilated``: whether that takes a kernel as wide as its dilation makes it. For pools ONNX Runtime does not.
    """
    d, auto = len(kernel), op.attrs.get("auto_pad", "NOTSET")
    if auto == "VALID":
        return (0,) * (2 * d)
    if auto in ("", "NOTSET"):
        pads = _spread(op, "pads", 2 * d, 0)
        if any(p < 0 for p in pads):
            raise Odd("it pads by a negative amount")
        return pads
    stride, dilation = _spread(op, "strides", d), _spread(op, "dilations", d) if dilated else (1,) * d
    begins, ends = [], []
    for size, k, s, g in zip(spatial, kernel, stride, dilation, strict=True):
        total = largest((-(-size // s) - 1) * s + (k - 1) * g + 1 - size, 0)
        small, large = total // 2, total - total // 2
        begins.append(small if auto == "SAME_UPPER" else large)
        ends.append(large if auto == "SAME_UPPER" else small)
    return (*begins, *ends)


def _stated(op: Op, w: tuple[int, ...]) -> None:
    """Does the kernel that the node states have the weight's extent? Raises Misfit."""
    stated = op.attrs.get("kernel_shape")
    if stated and tuple(stated) != tuple(w[2:]):
        raise Misfit(f"kernel_shape is {list(stated)}, the weight's is {list(w[2:])}")


def _conv(b: Builder, op: Op) -> None:
    x, w = b.shape(op.input(0)), b.shape(op.input(1))
    d = _dims(len(w) - 2)
    _stated(op, w)
    b.result(
        "conv", [*op.inputs[:2], op.maybe(2)], op,
        stride=_spread(op, "strides", d), dilation=_spread(op, "dilations", d),
        pad=_pads(op, x[2:], w[2:]), groups=op.attrs.get("group", 1),
    )  # fmt: skip


def _conv_transpose(b: Builder, op: Op) -> None:
    x, w = b.shape(op.input(0)), b.shape(op.input(1))
    d = _dims(len(w) - 2)
    _stated(op, w)
    stride, dilation = _spread(op, "strides", d), _spread(op, "dilations", d)
    extra, pads = _spread(op, "output_padding", d, 0), _spread(op, "pads", 2 * d, 0)
    wanted, auto = op.attrs.get("output_shape"), op.attrs.get("auto_pad", "NOTSET")
    if not wanted and auto.startswith("SAME"):
        wanted = [n * s for n, s in zip(x[2:], stride, strict=True)]
    if wanted:
        begins, ends = [], []
        for i, want in enumerate(wanted[-d:]):
            total = (x[2 + i] - 1) * stride[i] + extra[i] + (w[2 + i] - 1) * dilation[i] + 1 - want
            if total < 0:
                raise Odd("its output_shape needs padding of the output")
            small, large = total // 2, total - total // 2
            begins.append(small if auto == "SAME_UPPER" else large)
            ends.append(large if auto == "SAME_UPPER" else small)
        pads = (*begins, *ends)
    elif auto == "VALID":
        pads = (0,) * (2 * d)
    if any(p < 0 for p in pads) or any(e >= max(s, g) for e, s, g in zip(extra, stride, dilation, strict=True)):
        raise Odd("it pads by a negative amount, or by more than a step")
    b.result(
        "conv_transpose", [*op.inputs[:2], op.maybe(2)], op, stride=stride, dilation=dilation, pad=pads,
        output_padding=extra, groups=op.attrs.get("group", 1),
    )  # fmt: skip


def _max_pool(b: Builder, op: Op) -> None:
    kernel = tuple(op.attrs["kernel_shape"])
    d, x = _dims(len(kernel)), b.shape(op.input(0))
    if b.is_used(op, 1):
        raise Odd("its indices are used")
    b.result(
        "max_pool", [op.input(0)], op, kernel=kernel, stride=_spread(op, "strides", d),
        dilation=_spread(op, "dilations", d), pad=_pads(op, x[2:], kernel, dilated=False),
        ceil=bool(op.attrs.get("ceil_mode", 0)),
    )  # fmt: skip


def _avg_pool(b: Builder, op: Op) -> None:
    kernel = tuple(op.attrs["kernel_shape"])
    d, x = _dims(len(kernel)), b.shape(op.input(0))
    if any(v != 1 for v in _spread(op, "dilations", d)):
        raise Odd("it averages with dilation")
    b.result(
        "avg_pool", [op.input(0)], op, kernel=kernel, stride=_spread(op, "strides", d), pad=_pads(op, x[2:], kernel),
        ceil=bool(op.attrs.get("ceil_mode", 0)), include_pad=bool(op.attrs.get("count_include_pad", 0)),
    )  # fmt: skip


def _global(reduction: str) -> Rule:
    def rule(b: Builder, op: Op) -> None:
        axes = tuple(range(2, len(b.shape(op.input(0)))))
        b.result(reduction, [op.input(0)], op, axes=axes, keepdims=True)

    return rule


# -- products --------------------------------------------------------------------------------------------------
def _gemm(b: Builder, op: Op) -> None:
    a, w, c = op.input(0), op.input(1), op.maybe(2)
    alpha, beta = op.attrs.get("alpha", 1.0), op.attrs.get("beta", 1.0)
    if op.attrs.get("transA", 0):
        a = b.emit("transpose", [a], perm=(1, 0))
    trans_b = bool(op.attrs.get("transB", 0))
    dtype = numpy_dtype(b.value(a).dtype)
    columns = b.shape(w)[0 if trans_b else 1]
    plain = alpha == 1 and (c is None or beta == 1)
    fits = c is None or b.shape(c) in ((columns,), (1,), ())
    b.exact = plain
    final = op.outputs[0]
    assert final is not None
    linear = b.const(w) is not None and b.const(a) is None
    if linear and plain and fits:
        b.result("linear", [a, w, c], op, transposed=not trans_b)
        return
    last = alpha == 1 and c is None
    if linear:
        y = b.emit("linear", [a, w], [final] if last else None, transposed=not trans_b)
    else:
        w = b.emit("transpose", [w], perm=(1, 0)) if trans_b else w
        y = b.emit("matmul", [a, w], [final] if last else None)
    if alpha != 1:
        y = b.emit("mul", [y, b.constant(np.array(alpha, dtype))], [final] if c is None else None)
    if c is not None:
        if beta != 1:
            c = b.emit("mul", [c, b.constant(np.array(beta, dtype))])
        b.emit("add", [y, c], [final])


def _matmul(b: Builder, op: Op) -> None:
    a, w = op.input(0), op.input(1)
    if b.const(w) is not None and b.const(a) is None and len(b.shape(w)) == 2 and len(b.shape(a)) >= 2:
        b.result("linear", [a, w], op, transposed=True)
    else:
        b.result("matmul", [a, w], op)


def _einsum(b: Builder, op: Op) -> None:
    equation = op.attrs["equation"].replace(" ", "")
    if "." in equation:
        raise Odd("its equation has an ellipsis")
    if "->" not in equation:
        letters = equation.replace(",", "")
        equation += "->" + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    terms, out = equation.split("->")
    if any(len(set(t)) != len(t) for t in (*terms.split(","), out)):
        raise Odd("its equation repeats a letter within a term")
    b.result("einsum", op.inputs, op, equation=equation)


# -- norms -----------------------------------------------------------------------------------------------------
def _batch_norm(b: Builder, op: Op) -> None:
    if op.attrs.get("training_mode", 0) or any(b.is_used(op, i) for i in range(1, len(op.outputs))):
        raise Odd("it is in training mode")
    if not op.attrs.get("spatial", 1):
        raise Odd("it normalises every position by itself")
    # ONNX's momentum weighs the running value, PyTorch's (and the IR's) the new one.
    momentum = round(1 - op.attrs.get("momentum", 0.9), 7)
    b.result("batch_norm", op.inputs[:5], op, eps=op.attrs.get("epsilon", 1e-5), momentum=momentum)


def _instance_norm(b: Builder, op: Op) -> None:
    b.result("instance_norm", op.inputs[:3], op, eps=op.attrs.get("epsilon", 1e-5))


def _group_norm(b: Builder, op: Op) -> None:
    groups, channels = op.attrs["num_groups"], b.shape(op.input(0))[1]
    if op.attrs.get("stash_type", 1) != 1:
        raise Odd("it keeps its statistics in another type")
    inputs = list(op.inputs[:3])
    if op.opset < 21:  # one scale and bias per group
        b.exact = False
        each = channels // groups
        inputs[1:] = [b.constant(np.repeat(b.array(op, i, "scale"), each)) for i in (1, 2)]
    b.result("group_norm", inputs, op, groups=groups, eps=op.attrs.get("epsilon", 1e-5))


def _layer_norm(b: Builder, op: Op) -> None:
    x = b.shape(op.input(0))
    if b.is_used(op, 1) or b.is_used(op, 2) or op.attrs.get("stash_type", 1) != 1:
        raise Odd("its statistics are used")
    dims = len(x) - norm_axis(op.attrs.get("axis", -1), len(x))
    for i in (1, 2):
        name = op.maybe(i)
        if name is not None and b.shape(name) != x[len(x) - dims :]:
            raise Odd("its scale is broadcast")
    b.result(
        "rms_norm" if op.kind == "RMSNormalization" else "layer_norm", op.inputs[:3], op, dims=dims,
        eps=op.attrs.get("epsilon", 1e-5),
    )  # fmt: skip


def _lrn(b: Builder, op: Op) -> None:
    a = op.attrs
    b.result(
        "lrn", [op.input(0)], op, size=a["size"], alpha=a.get("alpha", 1e-4), beta=a.get("beta", 0.75),
        bias=a.get("bias", 1.0),
    )  # fmt: skip


def _softmax(name: str) -> Rule:
    def rule(b: Builder, op: Op) -> None:
        x = b.shape(op.input(0))
        axis = norm_axis(op.attrs.get("axis", -1 if op.opset >= 13 else 1), len(x))
        if op.opset >= 13 or math.prod(x[axis + 1 :]) == 1:
            b.result(name, [op.input(0)], op, axis=axis)
            return
        b.exact = False
        if math.prod(x[axis:-1]) == 1:  # only the last of the flattened axes is longer than 1
            b.result(name, [op.input(0)], op, axis=len(x) - 1)
            return
        # Before opset 13 everything from the axis on was one row.
        flat = b.emit("flatten", [op.input(0)], start=axis, end=len(x) - 1)
        soft = b.emit(name, [flat], axis=axis)
        b.result("reshape", [soft], op, shape=(*(0,) * axis, *x[axis:]))

    return rule


LAYERS: dict[str, Rule] = {
    "Conv": _conv, "ConvTranspose": _conv_transpose, "MaxPool": _max_pool, "AveragePool": _avg_pool,
    "GlobalAveragePool": _global("reduce_mean"), "GlobalMaxPool": _global("reduce_max"),
    "Gemm": _gemm, "MatMul": _matmul, "Einsum": _einsum,
    "BatchNormalization": _batch_norm, "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm, "LayerNormalization": _layer_norm, "RMSNormalization": _layer_norm,
    "LRN": _lrn, "Softmax": _softmax("softmax"), "LogSoftmax": _softmax("log_softmax"),
}  # fmt: skip
