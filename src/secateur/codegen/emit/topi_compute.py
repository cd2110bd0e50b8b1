"""Convolutions, contractions, normalisations and pools that no template covers: correct, not fast."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from tvm import te, tirx, topi

from secateur.codegen.plan.program import Attrs, TensorSpec

from .topi_math import Rule, moments, scalar
from .types import Expr, Tensor


def _conv(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
    d, groups = len(a["stride"]), a["groups"]
    pad = a["pad"]
    begin, end = [0, 0, *pad[:d]], [0, 0, *pad[d:]]
    data, w = topi.nn.pad(x[0], begin, end), x[1]
    per_in, per_out = int(w.shape[1]), int(w.shape[0]) // groups
    axes = [te.reduce_axis((0, per_in), "i"), *(te.reduce_axis((0, w.shape[2 + k]), f"k{k}") for k in range(d))]

    def one(n: Expr, o: Expr, *place: Expr) -> Expr:
        at = [place[k] * a["stride"][k] + axes[1 + k] * a["dilation"][k] for k in range(d)]
        return te.sum(data(n, tirx.floordiv(o, per_out) * per_in + axes[0], *at) * w(o, *axes), axis=axes)

    y = te.compute(s.outputs[0][0], one, "conv")
    return _bias(y, x[2] if len(x) > 2 else None)


def _bias(y: Tensor, b: Tensor | None) -> Tensor:
    if b is None:
        return y
    width = int(y.shape[1])
    b = topi.broadcast_to(b, (width,)) if tuple(map(int, b.shape)) != (width,) else b
    return te.compute(y.shape, lambda n, o, *p: y(n, o, *p) + b(o), "bias")


def _conv_transpose(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
    d, groups, pad = len(a["stride"]), a["groups"], a["pad"]
    data, w = x[0], x[1]
    per_in, per_out = int(w.shape[0]) // groups, int(w.shape[1])
    axes = [te.reduce_axis((0, per_in), "i"), *(te.reduce_axis((0, w.shape[2 + k]), f"k{k}") for k in range(d))]

    def one(n: Expr, o: Expr, *place: Expr) -> Expr:
        group, inside, at = tirx.floordiv(o, per_out), [], []
        for k in range(d):
            source = place[k] + pad[k] - axes[1 + k] * a["dilation"][k]
            stride = a["stride"][k]
            index = tirx.floordiv(source, stride)
            inside += [tirx.floormod(source, stride) == 0, index >= 0, index < data.shape[2 + k]]
            at.append(index)
        product = data(n, group * per_in + axes[0], *at) * w(
            group * per_in + axes[0], tirx.floormod(o, per_out), *axes[1:]
        )
        return te.sum(tirx.if_then_else(tirx.all(*inside), product, scalar(product, 0)), axis=axes)

    y = te.compute(s.outputs[0][0], one, "conv_transpose")
    return _bias(y, x[2] if len(x) > 2 else None)


def _linear(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
    w = x[1]
    k = te.reduce_axis((0, x[0].shape[-1]), "k")

    def one(*i: Expr) -> Expr:
        weight = w(k, i[-1]) if a["transposed"] else w(i[-1], k)
        return te.sum(x[0](*i[:-1], k) * weight, axis=k)

    y = te.compute(s.outputs[0][0], one, "linear")
    return topi.add(y, x[2]) if len(x) > 2 and x[2] is not None else y


def _matmul(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
    left, right = x[0], x[1]
    k = te.reduce_axis((0, left.shape[-1]), "k")
    rows, columns = len(left.shape) > 1, len(right.shape) > 1

    def at(tensor: Tensor, batch: Sequence[Expr], last: Sequence[Expr]) -> Expr:
        rank = len(tensor.shape) - len(last)
        lead = batch[len(batch) - rank :] if rank else []
        return tensor(*(0 if int(d) == 1 else i for d, i in zip(tensor.shape, lead, strict=False)), *last)

    def one(*i: Expr) -> Expr:
        batch = i[: len(i) - rows - columns]
        row = [i[len(batch)]] if rows else []
        column = [i[-1]] if columns else []
        return te.sum(at(left, batch, [*row, k]) * at(right, batch, [k, *column]), axis=k)

    return te.compute(s.outputs[0][0], one, "matmul")


def _batch_norm(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
    data, w, b, mean, var = x

    def channel(t: Tensor, c: Expr) -> Expr:
        return t(c) if int(t.shape[0]) > 1 else t(0)

    def one(n: Expr, c: Expr, *p: Expr) -> Expr:
        y = (data(n, c, *p) - channel(mean, c)) / tirx.sqrt(channel(var, c) + tirx.const(a["eps"], "float32"))
        y = y if w is None else y * channel(w, c)
        return y if b is None else y + channel(b, c)

    return te.compute(data.shape, one, "batch_norm")


def _layer_norm(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
    rank = len(x[0].shape)
    axes = list(range(rank - a["dims"], rank))
    centred, var = moments(x[0], axes)
    y = topi.divide(centred, topi.sqrt(topi.add(var, tirx.const(a["eps"], "float32"))))
    y = topi.multiply(y, x[1]) if len(x) > 1 and x[1] is not None else y
    return topi.add(y, x[2]) if len(x) > 2 and x[2] is not None else y


def _rms_norm(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
    rank = len(x[0].shape)
    axes = list(range(rank - a["dims"], rank))
    size = tirx.const(math.prod(int(x[0].shape[i]) for i in axes), "float32")
    square = topi.divide(topi.sum(topi.multiply(x[0], x[0]), axis=axes, keepdims=True), size)
    y = topi.divide(x[0], topi.sqrt(topi.add(square, tirx.const(a["eps"], "float32"))))
    return topi.multiply(y, x[1]) if len(x) > 1 and x[1] is not None else y


def _channel_norm(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
    shape = [int(d) for d in x[0].shape]
    groups = a.get("groups", shape[1])
    split = topi.reshape(x[0], (shape[0], groups, shape[1] // groups, *shape[2:]))
    centred, var = moments(split, range(2, len(shape) + 1))
    y = topi.divide(centred, topi.sqrt(topi.add(var, tirx.const(a["eps"], "float32"))))
    y = topi.reshape(y, shape)
    for i, join in ((1, topi.multiply), (2, topi.add)):
        if len(x) > i and x[i] is not None:
            y = join(y, topi.reshape(x[i], (1, shape[1], *[1] * (len(shape) - 2))))
    return y


def _pool(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
    data, kernel, stride = x[0], a["kernel"], a["stride"]
    d = len(kernel)
    dilation, pad = a.get("dilation", (1,) * d), a["pad"]
    axes = [te.reduce_axis((0, k), f"k{i}") for i, k in enumerate(kernel)]
    best = s.op == "max_pool"

    def place(i: Sequence[Expr], k: Sequence[Expr]) -> tuple[list[Expr], list[Expr], list[Expr]]:
        at, inside, counted = [], [], []
        for j in range(d):
            p = i[j] * stride[j] + k[j] * dilation[j] - pad[j]
            at.append(p)
            inside += [p >= 0, p < data.shape[2 + j]]
            counted += [p < data.shape[2 + j] + pad[d + j]] if a.get("include_pad") else [p >= 0, p < data.shape[2 + j]]
        return at, inside, counted

    def one(n: Expr, c: Expr, *i: Expr) -> Expr:
        at, inside, _ = place(i, axes)
        low = tirx.min_value(str(data.dtype)) if best else tirx.const(0, str(data.dtype))
        value = tirx.if_then_else(tirx.all(*inside), data(n, c, *at), low)
        return te.max(value, axis=axes) if best else te.sum(value, axis=axes)

    y = te.compute(s.outputs[0][0], one, "pool")
    if best:
        return y
    more = [te.reduce_axis((0, k), f"c{i}") for i, k in enumerate(kernel)]

    def count(*i: Expr) -> Expr:
        inside = place(i, more)[2]
        return te.sum(
            tirx.if_then_else(tirx.all(*inside), tirx.const(1.0, "float32"), tirx.const(0.0, "float32")), axis=more
        )

    counts = te.compute(s.outputs[0][0][2:], count, "count")
    return te.compute(y.shape, lambda n, c, *i: y(n, c, *i) / counts(*i), "mean")


def _adaptive(best: bool) -> Rule:
    def rule(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
        y, d = x[0], len(a["size"])
        for j in range(d):
            y = _adaptive_axis(y, len(y.shape) - d + j, a["size"][j], best)
        return y

    return rule


def _adaptive_axis(x: Tensor, axis: int, out: int, best: bool) -> Tensor:
    size = int(x.shape[axis])
    widest = max(-(-(i + 1) * size // out) - i * size // out for i in range(out))
    k = te.reduce_axis((0, widest), "k")

    def one(*i: Expr) -> Expr:
        start = tirx.floordiv(i[axis] * size, out)
        end = tirx.floordiv((i[axis] + 1) * size + out - 1, out)
        inside = start + k < end
        value = x(*i[:axis], tirx.min(start + k, size - 1), *i[axis + 1 :])
        if best:
            return te.max(tirx.if_then_else(inside, value, tirx.min_value("float32")), axis=k)
        return te.sum(tirx.if_then_else(inside, value, scalar(value, 0)), axis=k)

    shape = [*x.shape[:axis], out, *x.shape[axis + 1 :]]
    y = te.compute(shape, one, "adaptive")
    if best:
        return y

    def mean(*i: Expr) -> Expr:
        width = tirx.floordiv((i[axis] + 1) * size + out - 1, out) - tirx.floordiv(i[axis] * size, out)
        return y(*i) / tirx.Cast("float32", width)

    return te.compute(shape, mean, "mean")


def _lrn(s: TensorSpec, x: Sequence[Tensor], a: Attrs) -> Tensor:
    size, data = a["size"], x[0]
    begin, channels = (size - 1) // 2, int(data.shape[1])
    k = te.reduce_axis((0, size), "k")

    def total(n: Expr, c: Expr, *p: Expr) -> Expr:
        at = c + k - begin
        value = data(n, tirx.max(tirx.min(at, channels - 1), 0), *p)
        return te.sum(tirx.if_then_else(tirx.all(at >= 0, at < channels), value * value, scalar(value, 0)), axis=k)

    squares = te.compute(data.shape, total, "squares")
    alpha, beta, bias = (tirx.const(a[key], "float32") for key in ("alpha", "beta", "bias"))
    scale = alpha / tirx.const(float(size), "float32")
    return te.compute(data.shape, lambda *i: data(*i) / tirx.pow(bias + scale * squares(*i), beta))


COMPUTE: Mapping[str, Rule] = MappingProxyType(
    {
        "conv": _conv, "conv_transpose": _conv_transpose, "linear": _linear, "matmul": _matmul,
        "einsum": lambda s, x, a: topi.einsum(a["equation"], *x),
        "batch_norm": _batch_norm, "layer_norm": _layer_norm, "rms_norm": _rms_norm, "group_norm": _channel_norm,
        "instance_norm": _channel_norm, "lrn": _lrn, "max_pool": _pool, "avg_pool": _pool,
        "adaptive_avg_pool": _adaptive(False), "adaptive_max_pool": _adaptive(True),
    }
)  # fmt: skip
