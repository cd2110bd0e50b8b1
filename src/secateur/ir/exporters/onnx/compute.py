"""How operators that compute are written in ONNX, in any operator set since 7."""

from __future__ import annotations

import math

import numpy as np

from secateur.ir.graph import Node, Sym, numpy_dtype
from secateur.ir.symbolic import as_size, has_sizes

from .emitter import Emitter, Rule, element_type


# -- windows --------------------------------------------------------------------------------------------------
def _conv(e: Emitter, node: Node) -> None:
    w, a = e.shape(node, 1), node.attrs
    width = w[0] if node.op == "conv" else w[1] * a["groups"]
    inputs = e.ins(node)[:2]
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        inputs.append(e.vector(node, 2, width, 0.0))
    pads = a["pad"]
    if node.op == "conv" and has_sizes(pads):  # padding that follows the input's size
        half = len(pads) // 2
        around = e.ints([0, 0, *pads[:half], 0, 0, *pads[half:]])
        inputs[0] = e.add("Pad", [inputs[0], around, e.scalar(0, e.dtype(node))], mode="constant")
        pads = (0,) * len(pads)
    kind, more = ("Conv", {}) if node.op == "conv" else ("ConvTranspose", {"output_padding": a["output_padding"]})
    e.add(
        kind, inputs, e.outs(node), kernel_shape=w[2:], strides=a["stride"], dilations=a["dilation"], pads=pads,
        group=a["groups"], **more,
    )  # fmt: skip


def _pool(e: Emitter, node: Node) -> None:
    a = node.attrs
    maximum = node.op == "max_pool"
    more: dict[str, object] = {} if maximum else {"count_include_pad": int(a["include_pad"])}
    if a["ceil"]:
        e.needs(node, 10, "rounding up the size of a pool")
        more["ceil_mode"] = 1
    if maximum and any(d != 1 for d in a["dilation"]):
        e.needs(node, 10, "a dilated pool")
        more["dilations"] = a["dilation"]
    kind = "MaxPool" if maximum else "AveragePool"
    e.add(kind, e.ins(node), e.outs(node), kernel_shape=a["kernel"], strides=a["stride"], pads=a["pad"], **more)


def _adaptive(e: Emitter, node: Node) -> None:
    size, x = node.attrs["size"], e.ins(node)[0]
    maximum = node.op == "adaptive_max_pool"
    spatial = e.shape(node)[-len(size) :]
    if all(s == 1 for s in size):
        e.add("GlobalMaxPool" if maximum else "GlobalAveragePool", [x], e.outs(node))
        return
    spatial = e.static(node, spatial, "the size of its input")
    if all(n % s == 0 for n, s in zip(spatial, size, strict=True)):
        kernel = [n // s for n, s in zip(spatial, size, strict=True)]
        e.add("MaxPool" if maximum else "AveragePool", [x], e.outs(node), kernel_shape=kernel, strides=kernel)
        return
    if maximum or len(size) > 2:
        raise e.unsupported(node, f"{list(spatial)} does not divide into {list(size)}: resize the input first")
    # Windows of unequal size: an average along an axis is a product with a fixed matrix.
    dtype = numpy_dtype(e.dtype(node))
    right = e.const(_averages(spatial[-1], size[-1]).astype(dtype))
    if len(size) == 1:
        e.add("MatMul", [x, right], e.outs(node))
        return
    narrow = e.add("MatMul", [x, right])
    e.add("MatMul", [e.const(_averages(spatial[0], size[0]).T.astype(dtype)), narrow], e.outs(node))


def _averages(size: int, bins: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """f64[size, bins]: column j averages the j-th adaptive window."""
    matrix = np.zeros((size, bins))
    for j in range(bins):
        start, end = j * size // bins, -(-(j + 1) * size // bins)
        matrix[start:end, j] = 1 / (end - start)
    return matrix


# -- linear algebra -------------------------------------------------------------------------------------------
def _linear(e: Emitter, node: Node) -> None:
    x, w, *bias = e.ins(node)
    transposed = node.attrs["transposed"]
    has_bias = bool(bias and bias[0])
    if len(e.shape(node)) == 2 and not (transposed and not has_bias):
        inputs = [x, w, bias[0]] if has_bias else [x, w]
        if e.opset < 11 and not has_bias:
            inputs.append(e.scalar(0.0, e.dtype(node)))
        e.add("Gemm", inputs, e.outs(node), transB=0 if transposed else 1)
        return
    if not transposed:
        w = e.add("Transpose", [w], perm=[1, 0])
    if has_bias:
        e.add("Add", [e.add("MatMul", [x, w]), bias[0]], e.outs(node))
    else:
        e.add("MatMul", [x, w], e.outs(node))


def _matmul(e: Emitter, node: Node) -> None:
    e.add("MatMul", e.ins(node), e.outs(node))


def _einsum(e: Emitter, node: Node) -> None:
    e.needs(node, 12, "Einsum")
    e.add("Einsum", e.ins(node), e.outs(node), equation=node.attrs["equation"])


# -- normalisation --------------------------------------------------------------------------------------------
def _batch_norm(e: Emitter, node: Node) -> None:
    width = e.shape(node)[1]
    vectors = [e.vector(node, i, width, d) for i, d in ((1, 1.0), (2, 0.0), (3, 0.0), (4, 1.0))]
    momentum = round(1 - (node.attrs["momentum"] or 0.0), 7)
    e.add("BatchNormalization", [e.ins(node)[0], *vectors], e.outs(node), epsilon=node.attrs["eps"], momentum=momentum)


def _instance_norm(e: Emitter, node: Node) -> None:
    width = e.shape(node)[1]
    vectors = [e.vector(node, 1, width, 1.0), e.vector(node, 2, width, 0.0)]
    e.add("InstanceNormalization", [e.ins(node)[0], *vectors], e.outs(node), epsilon=node.attrs["eps"])


def _group_norm(e: Emitter, node: Node) -> None:
    shape, groups, eps = e.shape(node), node.attrs["groups"], node.attrs["eps"]
    x, width, dtype = e.ins(node)[0], shape[1], e.dtype(node)
    vectors = [e.vector(node, 1, width, 1.0), e.vector(node, 2, width, 0.0)]
    if e.opset >= 21:
        e.add("GroupNormalization", [x, *vectors], e.outs(node), num_groups=groups, epsilon=eps)
        return
    rows = e.add("Reshape", [x, e.ints([0, groups, -1])])
    ones, zeros = np.ones(groups, numpy_dtype(dtype)), np.zeros(groups, numpy_dtype(dtype))
    normal = e.add("InstanceNormalization", [rows, e.const(ones), e.const(zeros)], epsilon=eps)
    back = e.add("Reshape", [normal, e.add("Shape", [x])])
    tail = list(range(1, len(shape) - 1))
    scaled = e.add("Mul", [back, e.unsqueeze(vectors[0], tail)])
    e.add("Add", [scaled, e.unsqueeze(vectors[1], tail)], e.outs(node))


def _layer_norm(e: Emitter, node: Node) -> None:
    dims, eps, dtype = node.attrs["dims"], node.attrs["eps"], e.dtype(node)
    shape = e.shape(node)
    ins = [*e.ins(node), "", ""][:3]
    axes = list(range(len(shape) - dims, len(shape)))
    if e.opset >= 17:
        if not ins[1]:
            ins[1] = e.const(np.ones(e.static(node, shape[-dims:], "the normalised size"), numpy_dtype(dtype)))
        e.add("LayerNormalization", ins, e.outs(node), axis=-dims, epsilon=eps)
        return
    centred = e.add("Sub", [ins[0], reduce(e, "ReduceMean", ins[0], axes, True)])
    _scaled(e, node, centred, centred, axes, ins[1:])


def _rms_norm(e: Emitter, node: Node) -> None:
    dims, shape = node.attrs["dims"], e.shape(node)
    ins = [*e.ins(node), ""][:2]
    _scaled(e, node, ins[0], ins[0], list(range(len(shape) - dims, len(shape))), ins[1:])


def _scaled(e: Emitter, node: Node, x: str, spread: str, axes: list[int], weights: list[str]) -> None:
    """``x`` over the root mean square of ``spread``, times the first weight, plus the second."""
    dtype = e.dtype(node)
    square = reduce(e, "ReduceMean", e.add("Mul", [spread, spread]), axes, True)
    root = e.add("Sqrt", [e.add("Add", [square, e.scalar(node.attrs["eps"], dtype)])])
    steps = [("Div", root), *zip(("Mul", "Add"), weights, strict=False)]
    steps = [(kind, operand) for kind, operand in steps if operand]
    for i, (kind, operand) in enumerate(steps):
        x = e.add(kind, [x, operand], e.outs(node) if i == len(steps) - 1 else None)


def _lrn(e: Emitter, node: Node) -> None:
    a = node.attrs
    e.add("LRN", e.ins(node), e.outs(node), size=a["size"], alpha=a["alpha"], beta=a["beta"], bias=a["bias"])


def _softmax(e: Emitter, node: Node) -> None:
    kind = "Softmax" if node.op == "softmax" else "LogSoftmax"
    axis, rank = node.attrs["axis"], len(e.shape(node))
    if e.opset >= 13 or axis == rank - 1:
        e.add(kind, e.ins(node), e.outs(node), axis=axis)
        return
    # Before 13 the operator normalises everything from its axis on: bring the axis to the end.
    perm = [i for i in range(rank) if i != axis] + [axis]
    last = e.add(kind, [e.add("Transpose", e.ins(node), perm=perm)], axis=rank - 1)
    e.add("Transpose", [last], e.outs(node), perm=[perm.index(i) for i in range(rank)])


# -- reductions and recurrences -------------------------------------------------------------------------------
def reduce(e: Emitter, kind: str, x: str, axes: list[int], keepdims: bool, out: str | None = None) -> str:
    """One of ONNX's Reduce operators."""
    return e.axes(kind, x, axes, 13 if kind == "ReduceSum" else 18, out, keepdims=int(keepdims))


REDUCE_KINDS = {
    "reduce_sum": "ReduceSum", "reduce_mean": "ReduceMean", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin",
    "reduce_prod": "ReduceProd", "reduce_l1": "ReduceL1", "reduce_l2": "ReduceL2",
    "reduce_logsumexp": "ReduceLogSumExp",
}  # fmt: skip


def _reduce(e: Emitter, node: Node) -> None:
    axes = list(node.attrs["axes"])
    if not axes:
        e.add("Identity", e.ins(node), e.outs(node))
        return
    reduce(e, REDUCE_KINDS[node.op], e.ins(node)[0], axes, node.attrs["keepdims"], e.outs(node)[0])


def _reduce_var(e: Emitter, node: Node) -> None:
    a, x = node.attrs, e.ins(node)[0]
    axes, keep = list(a["axes"]), a["keepdims"]
    centred = e.add("Sub", [x, reduce(e, "ReduceMean", x, axes, True)])
    square = e.add("Mul", [centred, centred])
    if not a["correction"]:
        reduce(e, "ReduceMean", square, axes, keep, e.outs(node)[0])
        return
    mean = reduce(e, "ReduceMean", square, axes, keep)
    sizes = [e.shape(node)[i] for i in axes]
    if not any(isinstance(d, Sym) for d in sizes):
        count = math.prod(map(int, sizes))
        e.add("Mul", [mean, e.scalar(count / (count - a["correction"]), e.dtype(node))], e.outs(node))
        return
    number = e.cast(e.ints([math.prod(as_size(d) if isinstance(d, Sym) else d for d in sizes)]), "i64", e.dtype(node))
    less = e.add("Sub", [number, e.scalar(a["correction"], e.dtype(node))])
    factor = e.axes("Squeeze", e.add("Div", [number, less]), [0], 13)
    e.add("Mul", [mean, factor], e.outs(node))


def _arg(e: Emitter, node: Node) -> None:
    kind = "ArgMax" if node.op == "argmax" else "ArgMin"
    e.add(kind, e.ins(node), e.outs(node), axis=node.attrs["axis"], keepdims=int(node.attrs["keepdims"]))


def _cumsum(e: Emitter, node: Node) -> None:
    e.needs(node, 11, "CumSum")
    e.add("CumSum", [e.ins(node)[0], e.const(np.array(node.attrs["axis"], np.int64))], e.outs(node))


def _recurrent(e: Emitter, node: Node) -> None:
    a = node.attrs
    x, w, r, b, *states = [*e.ins(node), ""][: max(4, len(node.inputs))]
    more: dict[str, int | list[str]] = {}
    if node.op == "gru":
        more["linear_before_reset"] = int(a["linear_before_reset"])
    elif node.op == "rnn":
        more["activations"] = [a["activation"].capitalize()] * (2 if a["direction"] == "bidirectional" else 1)
    e.add(
        node.op.upper(), [x, w, r, b, "", *states], e.outs(node), hidden_size=a["hidden"], direction=a["direction"],
        **more,
    )  # fmt: skip


# -- element-wise of several inputs ---------------------------------------------------------------------------
BINARY_KINDS = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "pow": "Pow", "minimum": "Min", "maximum": "Max",
    "eq": "Equal", "lt": "Less", "gt": "Greater", "and": "And", "or": "Or", "xor": "Xor",
}  # fmt: skip


def _operands(e: Emitter, node: Node) -> list[str]:
    """Both operands in the first one's type, which is what the IR means and ONNX demands."""
    a, b = e.ins(node)
    have, want = e.dtype(node, 1), e.dtype(node, 0)
    if node.op in ("and", "or", "xor"):
        return [e.cast(a, want, "b1"), e.cast(b, have, "b1")]
    if node.op == "pow" and e.opset >= 12:
        return [a, b]
    return [a, e.cast(b, have, want)]


def _binary(e: Emitter, node: Node) -> None:
    e.add(BINARY_KINDS[node.op], _operands(e, node), e.outs(node))


def _negated(kind: str) -> Rule:
    def rule(e: Emitter, node: Node) -> None:
        e.add("Not", [e.add(kind, _operands(e, node))], e.outs(node))

    return rule


def _or_equal(kind: str, opposite: str) -> Rule:
    def rule(e: Emitter, node: Node) -> None:
        if e.opset >= 12:
            e.add(kind, _operands(e, node), e.outs(node))
        else:
            e.add("Not", [e.add(opposite, _operands(e, node))], e.outs(node))

    return rule


def _mod(e: Emitter, node: Node) -> None:
    a, b = _operands(e, node)
    if e.dtype(node)[0] in "iu":
        e.needs(node, 10, "Mod")
        e.add("Mod", [a, b], e.outs(node))
    else:  # the sign of the divisor, as in Python
        whole = e.add("Floor", [e.add("Div", [a, b])])
        e.add("Sub", [a, e.add("Mul", [whole, b])], e.outs(node))


def _where(e: Emitter, node: Node) -> None:
    e.needs(node, 9, "Where")
    c, a, b = e.ins(node)
    c = e.cast(c, e.dtype(node, 0), "b1")
    e.add("Where", [c, a, e.cast(b, e.dtype(node, 2), e.dtype(node, 1))], e.outs(node))


def _prelu(e: Emitter, node: Node) -> None:
    x, w = e.ins(node)
    slope, rank = e.shape(node, 1), len(e.shape(node))
    if len(slope) == 1 and slope != (1,) and rank > 2:  # ONNX aligns from the last axis
        w = e.unsqueeze(w, range(1, rank - 1))
    e.add("PRelu", [x, w], e.outs(node))


def _cast(e: Emitter, node: Node) -> None:
    e.add("Cast", e.ins(node), e.outs(node), to=element_type(node.attrs["to"]))


COMPUTE: dict[str, Rule] = {
    "conv": _conv, "conv_transpose": _conv, "max_pool": _pool, "avg_pool": _pool,
    "adaptive_avg_pool": _adaptive, "adaptive_max_pool": _adaptive,
    "linear": _linear, "matmul": _matmul, "einsum": _einsum,
    "batch_norm": _batch_norm, "instance_norm": _instance_norm, "group_norm": _group_norm,
    "layer_norm": _layer_norm, "rms_norm": _rms_norm, "lrn": _lrn,
    "softmax": _softmax, "log_softmax": _softmax,
    **dict.fromkeys(REDUCE_KINDS, _reduce), "reduce_var": _reduce_var, "argmax": _arg, "argmin": _arg,
    "cumsum": _cumsum, "lstm": _recurrent, "gru": _recurrent, "rnn": _recurrent,
    **dict.fromkeys(BINARY_KINDS, _binary), "ne": _negated("Equal"),
    "le": _or_equal("LessOrEqual", "Greater"), "ge": _or_equal("GreaterOrEqual", "Less"),
    "mod": _mod, "where": _where, "prelu": _prelu, "cast": _cast,
}  # fmt: skip
