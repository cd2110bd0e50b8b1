"""Operators row by row through TVM's operator library (TOPI): correct if slow.

A rule gets the node's spec and its input tensors and returns the output tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import tvm
from tvm import te, tirx, topi

from secateur.ir import Unsupported
from secateur.ir.graph import NUMPY_NAMES
from secateur.ir.ops import END

from .program import TensorSpec
from .writer import private

Rule = Callable[[TensorSpec, Sequence[Any], Mapping[str, Any]], Any]


def build_tensor_op(spec: TensorSpec) -> Any:
    """The kernel ``(inputs.., outputs..)``."""
    rule = RULES.get(spec.op)
    if rule is None:
        raise Unsupported(f"operator {spec.op} has no code generation; run this network in ONNX Runtime or torch")
    inputs = [None if i is None else te.placeholder(i[0], _dtype(i[1]), f"in{n}") for n, i in enumerate(spec.inputs)]
    made = rule(spec, inputs, dict(spec.attrs))
    outs = list(made) if isinstance(made, (list, tuple)) else [made]
    outs = [_as(o, shape, _dtype(dtype)) for o, (shape, dtype) in zip(outs, spec.outputs, strict=True)]
    given = [i for i in inputs if i is not None]
    outs = [_copy(o) if any(o is g for g in given) else o for o in outs]
    return _with_pointers(te.create_prim_func([*given, *outs]))


def _dtype(short: str) -> str:
    return "bool" if short == "b1" else NUMPY_NAMES[short]


def _as(tensor: Any, shape: tuple[int, ...], dtype: str) -> Any:
    tensor = tensor if str(tensor.dtype) == dtype else topi.cast(tensor, dtype)
    return tensor if tuple(int(d) for d in tensor.shape) == shape else topi.reshape(tensor, shape)


def _copy(tensor: Any) -> Any:
    return te.compute(tensor.shape, lambda *i: tensor(*i), "copy")


def _with_pointers(function: Any) -> Any:
    """Parameters as bare pointers instead of tensor handles, so that ``main`` can call it directly."""
    pointers, declared = [], []
    for i, buffer in enumerate(function.params):
        kind = tvm.ir.PointerType(tvm.ir.PrimType(str(buffer.dtype)), "global")
        pointer = tirx.Var(f"p{i}", kind)
        pointers.append(pointer)
        declared.append(tirx.DeclBuffer(buffer, data=pointer))
    return private(pointers, [*declared, function.body])


def _unary(f: Callable[[Any], Any]) -> Rule:
    return lambda s, x, a: te.compute(x[0].shape, lambda *i: f(x[0](*i)), s.op)


def _plain(f: Callable[..., Any]) -> Rule:
    return lambda s, x, a: f(*x)


def _c(x: Any, value: float) -> Any:
    return tirx.const(value, x.ty.dtype)


def _softplus(s: TensorSpec, x: Sequence[Any], a: Mapping[str, Any]) -> Any:
    beta, limit = a["beta"], a["threshold"]

    def one(v: Any) -> Any:
        z = v * _c(v, beta)
        return tirx.Select(z > _c(v, limit), v, tirx.log(_c(v, 1) + tirx.exp(z)) / _c(v, beta))

    return te.compute(x[0].shape, lambda *i: one(x[0](*i)))


def _conv(s: TensorSpec, x: Sequence[Any], a: Mapping[str, Any]) -> Any:
    d, groups = len(a["stride"]), a["groups"]
    pad = a["pad"]
    begin, end = [0, 0, *pad[:d]], [0, 0, *pad[d:]]
    data, w = topi.nn.pad(x[0], begin, end), x[1]
    per_in, per_out = int(w.shape[1]), int(w.shape[0]) // groups
    axes = [te.reduce_axis((0, per_in), "i"), *(te.reduce_axis((0, w.shape[2 + k]), f"k{k}") for k in range(d))]

    def one(n: Any, o: Any, *place: Any) -> Any:
        at = [place[k] * a["stride"][k] + axes[1 + k] * a["dilation"][k] for k in range(d)]
        return te.sum(data(n, tirx.floordiv(o, per_out) * per_in + axes[0], *at) * w(o, *axes), axis=axes)

    y = te.compute(s.outputs[0][0], one, "conv")
    return _bias(y, x[2] if len(x) > 2 else None)


def _bias(y: Any, b: Any) -> Any:
    if b is None:
        return y
    width = int(y.shape[1])
    b = topi.broadcast_to(b, (width,)) if tuple(map(int, b.shape)) != (width,) else b
    return te.compute(y.shape, lambda n, o, *p: y(n, o, *p) + b(o), "bias")


def _conv_transpose(s: TensorSpec, x: Sequence[Any], a: Mapping[str, Any]) -> Any:
    d, groups, pad = len(a["stride"]), a["groups"], a["pad"]
    data, w = x[0], x[1]
    per_in, per_out = int(w.shape[0]) // groups, int(w.shape[1])
    axes = [te.reduce_axis((0, per_in), "i"), *(te.reduce_axis((0, w.shape[2 + k]), f"k{k}") for k in range(d))]

    def one(n: Any, o: Any, *place: Any) -> Any:
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
        return te.sum(tirx.if_then_else(tirx.all(*inside), product, _c(product, 0)), axis=axes)

    y = te.compute(s.outputs[0][0], one, "conv_transpose")
    return _bias(y, x[2] if len(x) > 2 else None)


def _linear(s: TensorSpec, x: Sequence[Any], a: Mapping[str, Any]) -> Any:
    w = x[1]
    k = te.reduce_axis((0, x[0].shape[-1]), "k")

    def one(*i: Any) -> Any:
        weight = w(k, i[-1]) if a["transposed"] else w(i[-1], k)
        return te.sum(x[0](*i[:-1], k) * weight, axis=k)

    y = te.compute(s.outputs[0][0], one, "linear")
    return topi.add(y, x[2]) if len(x) > 2 and x[2] is not None else y


def _matmul(s: TensorSpec, x: Sequence[Any], a: Mapping[str, Any]) -> Any:
    left, right = x[0], x[1]
    k = te.reduce_axis((0, left.shape[-1]), "k")
    rows, columns = len(left.shape) > 1, len(right.shape) > 1

    def at(tensor: Any, batch: Sequence[Any], last: Sequence[Any]) -> Any:
        rank = len(tensor.shape) - len(last)
        lead = batch[len(batch) - rank :] if rank else []
        return tensor(*(0 if int(d) == 1 else i for d, i in zip(tensor.shape, lead, strict=False)), *last)

    def one(*i: Any) -> Any:
        batch = i[: len(i) - rows - columns]
        row = [i[len(batch)]] if rows else []
        column = [i[-1]] if columns else []
        return te.sum(at(left, batch, [*row, k]) * at(right, batch, [k, *column]), axis=k)

    return te.compute(s.outputs[0][0], one, "matmul")


def _batch_norm(s: TensorSpec, x: Sequence[Any], a: Mapping[str, Any]) -> Any:
    data, w, b, mean, var = x

    def channel(t: Any, c: Any) -> Any:
        return t(c) if int(t.shape[0]) > 1 else t(0)

    def one(n: Any, c: Any, *p: Any) -> Any:
        y = (data(n, c, *p) - channel(mean, c)) / tirx.sqrt(channel(var, c) + tirx.const(a["eps"], "float32"))
        y = y if w is None else y * channel(w, c)
        return y if b is None else y + channel(b, c)

    return te.compute(data.shape, one, "batch_norm")


def _moments(x: Any, axes: Sequence[int]) -> tuple[Any, Any]:
    count = math.prod(int(x.shape[i]) for i in axes)
    size = tirx.const(count, "float32")
    mean = topi.divide(topi.sum(x, axis=list(axes), keepdims=True), size)
    centred = topi.subtract(x, mean)
    return centred, topi.divide(topi.sum(topi.multiply(centred, centred), axis=list(axes), keepdims=True), size)


def _layer_norm(s: TensorSpec, x: Sequence[Any], a: Mapping[str, Any]) -> Any:
    rank = len(x[0].shape)
    axes = list(range(rank - a["dims"], rank))
    centred, var = _moments(x[0], axes)
    y = topi.divide(centred, topi.sqrt(topi.add(var, tirx.const(a["eps"], "float32"))))
    y = topi.multiply(y, x[1]) if len(x) > 1 and x[1] is not None else y
    return topi.add(y, x[2]) if len(x) > 2 and x[2] is not None else y


def _rms_norm(s: TensorSpec, x: Sequence[Any], a: Mapping[str, Any]) -> Any:
    rank = len(x[0].shape)
    axes = list(range(rank - a["dims"], rank))
    size = tirx.const(math.prod(int(x[0].shape[i]) for i in axes), "float32")
    square = topi.divide(topi.sum(topi.multiply(x[0], x[0]), axis=axes, keepdims=True), size)
    y = topi.divide(x[0], topi.sqrt(topi.add(square, tirx.const(a["eps"], "float32"))))
    return topi.multiply(y, x[1]) if len(x) > 1 and x[1] is not None else y


def _channel_norm(s: TensorSpec, x: Sequence[Any], a: Mapping[str, Any]) -> Any:
    shape = [int(d) for d in x[0].shape]
    groups = a.get("groups", shape[1])
    split = topi.reshape(x[0], (shape[0], groups, shape[1] // groups, *shape[2:]))
    centred, var = _moments(split, range(2, len(shape) + 1))
    y = topi.divide(centred, topi.sqrt(topi.add(var, tirx.const(a["eps"], "float32"))))
    y = topi.reshape(y, shape)
    for i, join in ((1, topi.multiply), (2, topi.add)):
        if len(x) > i and x[i] is not None:
            y = join(y, topi.reshape(x[i], (1, shape[1], *[1] * (len(shape) - 2))))
    return y


def _pool(s: TensorSpec, x: Sequence[Any], a: Mapping[str, Any]) -> Any:
    data, kernel, stride = x[0], a["kernel"], a["stride"]
    d = len(kernel)
    dilation, pad = a.get("dilation", (1,) * d), a["pad"]
    axes = [te.reduce_axis((0, k), f"k{i}") for i, k in enumerate(kernel)]
    best = s.op == "max_pool"

    def place(i: Sequence[Any], k: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any]]:
        at, inside, counted = [], [], []
        for j in range(d):
            p = i[j] * stride[j] + k[j] * dilation[j] - pad[j]
            at.append(p)
            inside += [p >= 0, p < data.shape[2 + j]]
            counted += [p < data.shape[2 + j] + pad[d + j]] if a.get("include_pad") else [p >= 0, p < data.shape[2 + j]]
        return at, inside, counted

    def one(n: Any, c: Any, *i: Any) -> Any:
        at, inside, _ = place(i, axes)
        low = tirx.min_value(str(data.dtype)) if best else tirx.const(0, str(data.dtype))
        value = tirx.if_then_else(tirx.all(*inside), data(n, c, *at), low)
        return te.max(value, axis=axes) if best else te.sum(value, axis=axes)

    y = te.compute(s.outputs[0][0], one, "pool")
    if best:
        return y
    more = [te.reduce_axis((0, k), f"c{i}") for i, k in enumerate(kernel)]

    def count(*i: Any) -> Any:
        inside = place(i, more)[2]
        return te.sum(
            tirx.if_then_else(tirx.all(*inside), tirx.const(1.0, "float32"), tirx.const(0.0, "float32")), axis=more
        )

    counts = te.compute(s.outputs[0][0][2:], count, "count")
    return te.compute(y.shape, lambda n, c, *i: y(n, c, *i) / counts(*i), "mean")


def _adaptive(best: bool) -> Rule:
    def rule(s: TensorSpec, x: Sequence[Any], a: Mapping[str, Any]) -> Any:
        y, d = x[0], len(a["size"])
        for j in range(d):
            y = _adaptive_axis(y, len(y.shape) - d + j, a["size"][j], best)
        return y

    return rule


def _adaptive_axis(x: Any, axis: int, out: int, best: bool) -> Any:
    size = int(x.shape[axis])
    widest = max(-(-(i + 1) * size // out) - i * size // out for i in range(out))
    k = te.reduce_axis((0, widest), "k")

    def one(*i: Any) -> Any:
        start = tirx.floordiv(i[axis] * size, out)
        end = tirx.floordiv((i[axis] + 1) * size + out - 1, out)
        inside = start + k < end
        value = x(*i[:axis], tirx.min(start + k, size - 1), *i[axis + 1 :])
        if best:
            return te.max(tirx.if_then_else(inside, value, tirx.min_value("float32")), axis=k)
        return te.sum(tirx.if_then_else(inside, value, _c(value, 0)), axis=k)

    shape = [*x.shape[:axis], out, *x.shape[axis + 1 :]]
    y = te.compute(shape, one, "adaptive")
    if best:
        return y

    def mean(*i: Any) -> Any:
        width = tirx.floordiv((i[axis] + 1) * size + out - 1, out) - tirx.floordiv(i[axis] * size, out)
        return y(*i) / tirx.Cast("float32", width)

    return te.compute(shape, mean, "mean")


def _prelu(s: TensorSpec, x: Sequence[Any], a: Mapping[str, Any]) -> Any:
    w = x[1]
    if len(w.shape) == 1 and len(x[0].shape) > 1:
        w = topi.reshape(w, (1, int(w.shape[0]), *[1] * (len(x[0].shape) - 2)))
    w = topi.broadcast_to(w, x[0].shape)
    return te.compute(x[0].shape, lambda *i: tirx.Select(x[0](*i) > 0, x[0](*i), x[0](*i) * w(*i)))


def _div(s: TensorSpec, x: Sequence[Any], a: Mapping[str, Any]) -> Any:
    return topi.divide(x[0], x[1]) if "float" in str(x[0].dtype) else topi.div(x[0], x[1])


def _slice(s: TensorSpec, x: Sequence[Any], a: Mapping[str, Any]) -> Any:
    begin, step = [0] * len(x[0].shape), [1] * len(x[0].shape)
    for axis, start, end, stride in zip(a["axes"], a["starts"], a["ends"], a["steps"], strict=True):
        size = int(x[0].shape[axis])
        begin[axis], step[axis] = range(*slice(start, None if end >= END else end, stride).indices(size)).start, stride
    return te.compute(s.outputs[0][0], lambda *i: x[0](*(b + t * j for b, t, j in zip(begin, step, i, strict=True))))


def _split(s: TensorSpec, x: Sequence[Any], a: Mapping[str, Any]) -> Any:
    starts = [sum(a["sizes"][:k]) for k in range(len(a["sizes"]))]
    axis = a["axis"]

    def part(b: int, shape: tuple[int, ...]) -> Any:
        return te.compute(shape, lambda *i: x[0](*i[:axis], i[axis] + b, *i[axis + 1 :]))

    return [part(b, shape) for b, (shape, _) in zip(starts, s.outputs, strict=True)]


def _gather(s: TensorSpec, x: Sequence[Any], a: Mapping[str, Any]) -> Any:
    axis, rank, size = a["axis"], len(x[1].shape), int(x[0].shape[a["axis"]])

    def one(*i: Any) -> Any:
        j = x[1](*i[axis : axis + rank])
        j = tirx.Select(j < 0, j + tirx.const(size, str(x[1].dtype)), j)
        return x[0](*i[:axis], j, *i[axis + rank :])

    return te.compute(s.outputs[0][0], one, "gather")


def _pad(s: TensorSpec, x: Sequence[Any], a: Mapping[str, Any]) -> Any:
    rank = len(x[0].shape)
    pads, mode = a["pads"], a["mode"]

    def one(*i: Any) -> Any:
        at, inside = [], []
        for k in range(rank):
            size, p = int(x[0].shape[k]), i[k] - pads[k]
            if mode == "constant":
                inside += [p >= 0, p < size]
            elif mode == "edge":
                p = tirx.max(tirx.min(p, size - 1), 0)
            elif mode == "wrap":
                p = tirx.floormod(p, size)
            else:
                period = max(2 * (size - 1), 1)
                p = tirx.floormod(p, period)
                p = tirx.Select(p >= size, period - p, p)
            at.append(p)
        value = x[0](*at)
        return tirx.if_then_else(tirx.all(*inside), value, _c(value, a["value"])) if inside else value

    return te.compute(s.outputs[0][0], one, "pad")


def _roll(s: TensorSpec, x: Sequence[Any], a: Mapping[str, Any]) -> Any:
    shift = [0] * len(x[0].shape)
    for by, axis in zip(a["shifts"], a["axes"], strict=True):
        shift[axis] += by
    return te.compute(x[0].shape, lambda *i: x[0](*(
        tirx.floormod(j - by, size) for j, by, size in zip(i, shift, x[0].shape, strict=True))))  # fmt: skip


def _flip(s: TensorSpec, x: Sequence[Any], a: Mapping[str, Any]) -> Any:
    axes = set(a["axes"])
    return te.compute(x[0].shape, lambda *i: x[0](*(
        size - 1 - j if k in axes else j for k, (j, size) in enumerate(zip(i, x[0].shape, strict=True)))))  # fmt: skip


def _depth_to_space(s: TensorSpec, x: Sequence[Any], a: Mapping[str, Any]) -> Any:
    n, c, h, w = (int(d) for d in x[0].shape)
    b = a["block"]
    if a["mode"] == "CRD":
        y = topi.transpose(topi.reshape(x[0], (n, c // b**2, b, b, h, w)), (0, 1, 4, 2, 5, 3))
    else:
        y = topi.transpose(topi.reshape(x[0], (n, b, b, c // b**2, h, w)), (0, 3, 4, 1, 5, 2))
    return topi.reshape(y, s.outputs[0][0])


def _space_to_depth(s: TensorSpec, x: Sequence[Any], a: Mapping[str, Any]) -> Any:
    n, c, h, w = (int(d) for d in x[0].shape)
    b = a["block"]
    y = topi.reshape(x[0], (n, c, h // b, b, w // b, b))
    order = (0, 1, 3, 5, 2, 4) if a["mode"] == "CRD" else (0, 3, 5, 1, 2, 4)
    return topi.reshape(topi.transpose(y, order), s.outputs[0][0])


def _reduce(f: Callable[..., Any], before: Callable[[Any], Any] | None = None,
            after: Callable[[Any], Any] | None = None) -> Rule:  # fmt: skip
    def rule(s: TensorSpec, x: Sequence[Any], a: Mapping[str, Any]) -> Any:
        y = before(x[0]) if before else x[0]
        y = f(y, axis=list(a["axes"]), keepdims=a["keepdims"])
        return after(y) if after else y

    return rule


def _mean(s: TensorSpec, x: Sequence[Any], a: Mapping[str, Any]) -> Any:
    count = math.prod(int(x[0].shape[i]) for i in a["axes"])
    total = topi.sum(x[0], axis=list(a["axes"]), keepdims=a["keepdims"])
    return topi.multiply(total, tirx.const(1.0 / count, str(x[0].dtype)))


def _var(s: TensorSpec, x: Sequence[Any], a: Mapping[str, Any]) -> Any:
    axes = list(a["axes"])
    count = math.prod(int(x[0].shape[i]) for i in axes)
    _, var = _moments(x[0], axes)
    return topi.multiply(var, tirx.const(count / (count - a["correction"]), "float32"))


def _logsumexp(s: TensorSpec, x: Sequence[Any], a: Mapping[str, Any]) -> Any:
    axes = list(a["axes"])
    top = topi.max(x[0], axis=axes, keepdims=True)
    total = topi.sum(topi.exp(topi.subtract(x[0], top)), axis=axes, keepdims=True)
    return topi.add(topi.log(total), top)


def _arg(best: Callable[[Any, Any], Any], f: Callable[..., Any]) -> Rule:
    return lambda s, x, a: f(x[0], axis=a["axis"], keepdims=a["keepdims"], select_last_index=False)


def _cumsum(s: TensorSpec, x: Sequence[Any], a: Mapping[str, Any]) -> Any:
    axis = a["axis"]
    k = te.reduce_axis((0, x[0].shape[axis]), "k")

    def one(*i: Any) -> Any:
        value = x[0](*i[:axis], k, *i[axis + 1 :])
        return te.sum(tirx.if_then_else(k <= i[axis], value, _c(value, 0)), axis=k)

    return te.compute(x[0].shape, one, "cumsum")


def _lrn(s: TensorSpec, x: Sequence[Any], a: Mapping[str, Any]) -> Any:
    size, data = a["size"], x[0]
    begin, channels = (size - 1) // 2, int(data.shape[1])
    k = te.reduce_axis((0, size), "k")

    def total(n: Any, c: Any, *p: Any) -> Any:
        at = c + k - begin
        value = data(n, tirx.max(tirx.min(at, channels - 1), 0), *p)
        return te.sum(tirx.if_then_else(tirx.all(at >= 0, at < channels), value * value, _c(value, 0)), axis=k)

    squares = te.compute(data.shape, total, "squares")
    alpha, beta, bias = (tirx.const(a[key], "float32") for key in ("alpha", "beta", "bias"))
    scale = alpha / tirx.const(float(size), "float32")
    return te.compute(data.shape, lambda *i: data(*i) / tirx.pow(bias + scale * squares(*i), beta))


def _positions(size: int, out: int, scale: float, coordinate: str) -> list[float]:
    if coordinate == "align_corners":
        return [i * ((size - 1) / (out - 1)) if out > 1 else 0.0 for i in range(out)]
    if coordinate == "asymmetric":
        return [i / scale for i in range(out)]
    if coordinate == "pytorch_half_pixel" and out == 1:
        return [0.0]
    if coordinate == "half_pixel_symmetric":
        offset = size / 2 * (1 - out / (size * scale))
        return [offset + (i + 0.5) / scale - 0.5 for i in range(out)]
    if coordinate == "tf_half_pixel_for_nn":
        return [(i + 0.5) / scale for i in range(out)]
    return [(i + 0.5) / scale - 0.5 for i in range(out)]


_ROUND: Mapping[str, Callable[[float], int]] = MappingProxyType(
    {
        "floor": math.floor,
        "ceil": math.ceil,
        "round_prefer_ceil": lambda p: math.floor(p + 0.5),
        "round_prefer_floor": lambda p: math.ceil(p - 0.5),
    }
)


def _taps(position: float, mode: str, rounding: str) -> list[tuple[int, float]]:
    """Which input positions an output position reads, and with what weight."""
    if mode == "nearest":
        return [(_ROUND[rounding](position), 1.0)]
    low = math.floor(position)
    t = position - low
    if mode == "linear":
        return [(low, 1 - t), (low + 1, t)]
    c = -0.75
    far = [c * d**3 - 5 * c * d**2 + 8 * c * d - 4 * c for d in (t + 1, 2 - t)]
    near = [(c + 2) * d**3 - (c + 3) * d**2 + 1 for d in (t, 1 - t)]
    return [(low - 1, far[0]), (low, near[0]), (low + 1, near[1]), (low + 2, far[1])]


def _resize(s: TensorSpec, x: Sequence[Any], a: Mapping[str, Any]) -> Any:
    y, size, scales = x[0], a["size"], a["scales"]
    d = len(size if size is not None else scales)
    for j in range(d):
        axis = len(y.shape) - d + j
        n = int(y.shape[axis])
        out = int(size[j]) if size is not None else math.floor(n * scales[j])
        scale = float(scales[j]) if scales is not None else out / n
        if out != n or scale != 1:
            positions = _positions(n, out, scale, a["coordinate"])
            if a["mode"] == "linear":
                positions = [min(max(p, 0.0), n - 1.0) for p in positions]
            y = _resize_axis(y, axis, [_taps(p, a["mode"], a["rounding"]) for p in positions])
    return y


def _resize_axis(x: Any, axis: int, taps: Sequence[Sequence[tuple[int, float]]]) -> Any:
    """Constants chosen by position: a chain of selects is shared by all elements of a slice."""
    n, out = int(x.shape[axis]), len(taps)

    def pick(values: Sequence[Any], at: Any) -> Any:
        if len(values) == 1:
            return values[0]
        half = len(values) // 2
        return tirx.Select(at < half, pick(values[:half], at), pick(values[half:], at - half))

    def table(values: Sequence[Any]) -> Any:
        return te.compute((out,), lambda i: pick(values, i), "table")

    count = range(len(taps[0]))
    indices = [table([tirx.const(min(max(t[k][0], 0), n - 1), "int32") for t in taps]) for k in count]
    weights = [table([tirx.const(t[k][1], "float32") for t in taps]) for k in count]
    nearest = len(taps[0]) == 1

    def one(*i: Any) -> Any:
        parts = [x(*i[:axis], index(i[axis]), *i[axis + 1 :]) for index in indices]
        if nearest:
            return parts[0]
        total = parts[0] * weights[0](i[axis])
        for part, weight in zip(parts[1:], weights[1:], strict=True):
            total = total + part * weight(i[axis])
        return total

    return te.compute([*x.shape[:axis], out, *x.shape[axis + 1 :]], one, "resize")


def _sign(v: Any) -> Any:
    return tirx.Select(v > _c(v, 0), _c(v, 1), tirx.Select(v < _c(v, 0), _c(v, -1), _c(v, 0)))


def _round_even(v: Any) -> Any:
    low = tirx.floor(v)
    rest = v - low
    odd = low - tirx.floor(low / _c(v, 2)) * _c(v, 2)
    up = tirx.any(rest > _c(v, 0.5), tirx.all(rest == _c(v, 0.5), odd == _c(v, 1)))
    return tirx.Select(up, low + _c(v, 1), low)


def _elu(alpha: float, scale: float, inner: float) -> Callable[[Any], Any]:
    return lambda v: tirx.Select(v > _c(v, 0), v * _c(v, scale),
                                 (tirx.exp(v * _c(v, inner)) - _c(v, 1)) * _c(v, alpha * scale))  # fmt: skip


def _gelu(s: TensorSpec, x: Sequence[Any], a: Mapping[str, Any]) -> Any:
    def exact(v: Any) -> Any:
        return v * _c(v, 0.5) * (_c(v, 1) + tirx.erf(v * _c(v, math.sqrt(0.5))))

    def close(v: Any) -> Any:
        return (
            v * _c(v, 0.5) * (_c(v, 1) + tirx.tanh((v + v * v * v * _c(v, 0.044715)) * _c(v, math.sqrt(2 / math.pi))))
        )

    return _unary(close if a["approximate"] == "tanh" else exact)(s, x, a)


def _clip(s: TensorSpec, x: Sequence[Any], a: Mapping[str, Any]) -> Any:
    def one(v: Any) -> Any:
        v = v if a["min"] is None else tirx.max(v, _c(v, a["min"]))
        return v if a["max"] is None else tirx.min(v, _c(v, a["max"]))

    return _unary(one)(s, x, a)


def _sigmoid(v: Any) -> Any:
    return _c(v, 1) / (_c(v, 1) + tirx.exp(-v))


def _log_sigmoid(v: Any) -> Any:
    return tirx.min(v, _c(v, 0)) - tirx.log(_c(v, 1) + tirx.exp(-tirx.abs(v)))


def _mish(v: Any) -> Any:
    e = tirx.exp(tirx.min(v, _c(v, 20)))
    square = e * (e + _c(v, 2))
    return v * square / (square + _c(v, 2))


def _hard(v: Any, alpha: float, beta: float) -> Any:
    return tirx.max(tirx.min(v * _c(v, alpha) + _c(v, beta), _c(v, 1)), _c(v, 0))


def _reshape(s: TensorSpec, x: Sequence[Any], a: Mapping[str, Any]) -> Any:
    return topi.reshape(x[0], s.outputs[0][0])


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "conv": _conv, "conv_transpose": _conv_transpose, "linear": _linear, "matmul": _matmul,
        "einsum": lambda s, x, a: topi.einsum(a["equation"], *x),
        "batch_norm": _batch_norm, "layer_norm": _layer_norm, "rms_norm": _rms_norm, "group_norm": _channel_norm,
        "instance_norm": _channel_norm, "lrn": _lrn, "max_pool": _pool, "avg_pool": _pool,
        "adaptive_avg_pool": _adaptive(False), "adaptive_max_pool": _adaptive(True), "prelu": _prelu,
        "softmax": lambda s, x, a: topi.nn.softmax(x[0], axis=a["axis"]),
        "log_softmax": lambda s, x, a: topi.log(topi.nn.softmax(x[0], axis=a["axis"])),
        "add": _plain(topi.add), "sub": _plain(topi.subtract), "mul": _plain(topi.multiply), "div": _div,
        "pow": _plain(topi.power), "minimum": _plain(topi.minimum), "maximum": _plain(topi.maximum),
        "mod": _plain(topi.floor_mod), "eq": _plain(topi.equal), "ne": _plain(topi.not_equal),
        "lt": _plain(topi.less), "le": _plain(topi.less_equal), "gt": _plain(topi.greater),
        "ge": _plain(topi.greater_equal), "and": _plain(topi.logical_and), "or": _plain(topi.logical_or),
        "xor": _plain(topi.logical_xor), "where": _plain(topi.where),
        "concat": lambda s, x, a: topi.concatenate(tuple(x), a["axis"]), "split": _split, "slice": _slice,
        "gather": _gather, "reshape": _reshape, "flatten": _reshape, "squeeze": _reshape, "unsqueeze": _reshape,
        "transpose": lambda s, x, a: topi.transpose(x[0], a["perm"]),
        "expand": lambda s, x, a: topi.broadcast_to(x[0], s.outputs[0][0]),
        "tile": lambda s, x, a: topi.tile(x[0], a["repeats"]), "pad": _pad, "roll": _roll, "flip": _flip,
        "depth_to_space": _depth_to_space, "space_to_depth": _space_to_depth, "resize": _resize,
        "reduce_sum": _reduce(topi.sum), "reduce_mean": _mean, "reduce_max": _reduce(topi.max),
        "reduce_min": _reduce(topi.min), "reduce_prod": _reduce(topi.prod), "reduce_var": _var,
        "reduce_l1": _reduce(topi.sum, before=topi.abs),
        "reduce_l2": _reduce(topi.sum, before=lambda t: topi.multiply(t, t), after=topi.sqrt),
        "reduce_logsumexp": _logsumexp,
        "argmax": _arg(max, topi.argmax), "argmin": _arg(min, topi.argmin),
        "cumsum": _cumsum,
        "cast": lambda s, x, a: topi.cast(x[0], _dtype(s.outputs[0][1])),
        "identity": lambda s, x, a: x[0], "dropout": lambda s, x, a: x[0],
        "relu": _unary(lambda v: tirx.max(v, _c(v, 0))), "sigmoid": _unary(_sigmoid), "tanh": _unary(tirx.tanh),
        "silu": _unary(lambda v: v * _sigmoid(v)), "mish": _unary(_mish), "erf": _unary(tirx.erf),
        "exp": _unary(tirx.exp), "log": _unary(tirx.log), "sqrt": _unary(tirx.sqrt),
        "rsqrt": _unary(lambda v: _c(v, 1) / tirx.sqrt(v)), "neg": _unary(lambda v: -v), "abs": _unary(tirx.abs),
        "floor": _unary(tirx.floor), "ceil": _unary(tirx.ceil), "round": _unary(_round_even), "sign": _unary(_sign),
        "reciprocal": _unary(lambda v: _c(v, 1) / v), "softsign": _unary(lambda v: v / (_c(v, 1) + tirx.abs(v))),
        "not": _plain(topi.logical_not), "sin": _unary(tirx.sin), "cos": _unary(tirx.cos),
        "log_sigmoid": _unary(_log_sigmoid), "hard_swish": _unary(lambda v: v * _hard(v, 1 / 6, 0.5)),
        "selu": _unary(_elu(1.6732632423543772, 1.0507009873554805, 1.0)), "isnan": _unary(tirx.isnan),
        "gelu": _gelu, "softplus": _softplus, "clip": _clip,
        "hard_sigmoid": lambda s, x, a: _unary(lambda v: _hard(v, a["alpha"], a["beta"]))(s, x, a),
        "elu": lambda s, x, a: _unary(_elu(a["alpha"], 1.0, 1.0))(s, x, a),
        "celu": lambda s, x, a: _unary(_elu(a["alpha"], 1.0, 1 / a["alpha"]))(s, x, a),
        "leaky_relu": lambda s, x, a: _unary(
            lambda v: tirx.Select(v > _c(v, 0), v, v * _c(v, a["slope"])))(s, x, a),
    }
)  # fmt: skip
