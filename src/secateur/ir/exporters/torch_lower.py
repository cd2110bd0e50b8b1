"""How each operator of the IR is written in torch: a row per operator.

Layers with parameters or a training mode become ``nn`` modules where the names of their weights
say where the module stood; everything else becomes a plain function.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from secateur.ir.frontends.torch_arrays import TORCH_DTYPES
from secateur.ir.graph import Node

from . import torch_functional as T
from .torch_emit import Emitter

Lower = Callable[[Emitter, Node], Any]
_CONVS: tuple[Any, ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED: tuple[Any, ...] = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_BATCH_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_INSTANCE_NORMS = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}


def _fill(e: Emitter, module: nn.Module, node: Node, roles: Mapping[int, str]) -> nn.Module:
    """Give a module made on the meta device the weights of this node."""
    for index, role in roles.items():
        name = node.inputs[index] if index < len(node.inputs) else None
        if name is None:
            continue
        tensor = e.tensor(name)
        if role in module._buffers:
            module._buffers[role] = tensor.detach() if isinstance(tensor, nn.Parameter) else tensor
        else:
            frozen = not isinstance(tensor, nn.Parameter)
            setattr(module, role, nn.Parameter(tensor, requires_grad=False) if frozen else tensor)
    return module


def _absent(node: Node, index: int) -> bool:
    return index >= len(node.inputs) or node.inputs[index] is None


def _key(node: Node) -> tuple[Any, ...]:
    return (node.op, node.inputs[1:], tuple(sorted(node.attrs.items(), key=lambda kv: kv[0])))


def _conv(e: Emitter, node: Node) -> fx.Node:
    a, d = node.attrs, len(node.attrs["stride"])
    x, pad = e.arg(node.inputs[0]), a["pad"]
    if pad[:d] != pad[d:] or min(pad) < 0:
        x, pad = e.call(T.window_pad, x, list(pad), 0.0), (0,) * (2 * d)
    roles = {1: "weight", 2: "bias"}
    path = e.home(node, roles, _key(node))
    if path is not None:
        w = e.graph.value(node.inputs[1] or "").shape
        groups, biased = a["groups"], not _absent(node, 2)
        if not biased or e.graph.value(node.inputs[2] or "").shape == w[:1]:
            return e.layer(_key(node), path, lambda: _fill(e, _CONVS[d - 1](
                w[1] * groups, w[0], w[2:], a["stride"], tuple(pad[:d]), a["dilation"], groups, biased, device="meta"
            ), node, roles), x)  # fmt: skip
    function: Any = (F.conv1d, F.conv2d, F.conv3d)[d - 1]
    b = None if _absent(node, 2) else e.arg(node.inputs[2])
    stride, dilation = list(a["stride"]), list(a["dilation"])
    return e.call(function, x, e.arg(node.inputs[1]), b, stride, list(pad[:d]), dilation, a["groups"])


def _conv_transpose(e: Emitter, node: Node) -> fx.Node:
    a, d = node.attrs, len(node.attrs["stride"])
    pad, extra = list(a["pad"]), list(a["output_padding"])
    crop = pad[:d] != pad[d:] or min(pad) < 0 or any(o >= max(s, t) for o, s, t in zip(
        extra, a["stride"], a["dilation"], strict=True))  # fmt: skip
    function: Any = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[d - 1]
    x, w = e.arg(node.inputs[0]), e.arg(node.inputs[1])
    b = None if _absent(node, 2) else e.arg(node.inputs[2])
    stride, dilation = list(a["stride"]), list(a["dilation"])
    roles = {1: "weight", 2: "bias"}
    path = None if crop else e.home(node, roles, _key(node))
    if path is not None:
        fan_in, per_group, *kernel = e.graph.value(node.inputs[1] or "").shape
        return e.layer(_key(node), path, lambda: _fill(e, _TRANSPOSED[d - 1](
            fan_in, per_group * a["groups"], kernel, stride, pad[:d], extra, a["groups"], b is not None, dilation,
            device="meta",
        ), node, roles), x)  # fmt: skip
    if not crop:
        return e.call(function, x, w, b, stride, pad[:d], extra, a["groups"], dilation)
    if b is not None and any(o > p for o, p in zip(extra, pad[d:], strict=True)):
        # What output_padding adds beyond the full result holds the bias alone.
        full = e.call(function, x, w, None, stride, [0] * d, [0] * d, a["groups"], dilation)
        ends = [o - p for o, p in zip(extra, pad[d:], strict=True)]
        cut = e.call(T.window_pad, full, [-p for p in pad[:d]] + ends, 0.0)
        return e.call(torch.add, cut, e.method("reshape", b, [1, -1] + [1] * d))
    full = e.call(function, x, w, b, stride, [0] * d, [0] * d, a["groups"], dilation)
    ends = [o - p for o, p in zip(extra, pad[d:], strict=True)]
    return e.call(T.window_pad, full, [-p for p in pad[:d]] + ends, 0.0)


def _linear(e: Emitter, node: Node) -> fx.Node:
    x, roles = e.arg(node.inputs[0]), {1: "weight", 2: "bias"}
    transposed = node.attrs["transposed"]
    path = None if transposed else e.home(node, roles, _key(node))
    if path is not None:
        out, fan_in = e.graph.value(node.inputs[1] or "").shape
        biased = not _absent(node, 2)
        if not biased or e.graph.value(node.inputs[2] or "").shape == (out,):
            return e.layer(
                _key(node), path, lambda: _fill(e, nn.Linear(fan_in, out, biased, device="meta"), node, roles), x
            )
    w = e.arg(node.inputs[1])
    b = None if _absent(node, 2) else e.arg(node.inputs[2])
    return e.call(F.linear, x, e.method("t", w) if transposed else w, b)


def _batch_norm(e: Emitter, node: Node) -> fx.Node:
    names, a = node.inputs, node.attrs
    inputs = [e.graph.value(n) if n is not None else None for n in names]
    x = inputs[0]
    assert x is not None
    vectors = all(v is None or v.shape == (x.shape[1],) for v in inputs[1:])
    fixed = all(n is None or n in e.graph.weights for n in names[1:])
    if not vectors or not fixed or (names[1] is None) != (names[2] is None) or len(x.shape) not in _BATCH_NORMS:
        args = e.args(node)
        size = x.shape[1]
        args = [e.method("expand", v, size) if v is not None and i and inputs[i].shape != (size,) else v  # type: ignore[union-attr]
                for i, v in enumerate(args)]  # fmt: skip
        return e.call(F.batch_norm, args[0], args[3], args[4], args[1], args[2], False, 0.0, a["eps"])
    roles = {1: "weight", 2: "bias", 3: "running_mean", 4: "running_var"}
    path = e.home(node, roles, _key(node)) or e.free_path(f"{node.name}")
    kind = _BATCH_NORMS[len(x.shape)]
    return e.layer(_key(node), path, lambda: _statistics(_fill(
        e, kind(x.shape[1], a["eps"], a["momentum"], names[1] is not None, device="meta"), node, roles
    )), e.arg(names[0]))  # fmt: skip


def _statistics(module: nn.Module) -> nn.Module:
    module._buffers["num_batches_tracked"] = torch.zeros((), dtype=torch.int64)
    return module


def _layer_norm(e: Emitter, node: Node) -> fx.Node:
    x, a = e.graph.value(node.inputs[0] or ""), node.attrs
    shape = list(x.shape[len(x.shape) - a["dims"] :])
    roles = {1: "weight", 2: "bias"}
    path = e.home(node, roles, _key(node))
    if path is not None and not _absent(node, 1):
        return e.layer(_key(node), path, lambda: _fill(
            e, nn.LayerNorm(shape, a["eps"], True, not _absent(node, 2), device="meta"), node, roles
        ), e.arg(node.inputs[0]))  # fmt: skip
    args = [*e.args(node), None, None][:3]
    return e.call(F.layer_norm, args[0], shape, args[1], args[2], a["eps"])


def _rms_norm(e: Emitter, node: Node) -> fx.Node:
    x, a = e.graph.value(node.inputs[0] or ""), node.attrs
    shape, roles = list(x.shape[len(x.shape) - a["dims"] :]), {1: "weight"}
    path = None if _absent(node, 1) else e.home(node, roles, _key(node))
    if path is not None:
        return e.layer(_key(node), path, lambda: _fill(
            e, nn.RMSNorm(shape, a["eps"], True, device="meta"), node, roles
        ), e.arg(node.inputs[0]))  # fmt: skip
    args = [*e.args(node), None][:2]
    return e.call(F.rms_norm, args[0], shape, args[1], a["eps"])


def _channel_norm(e: Emitter, node: Node) -> fx.Node:
    x, a, roles = e.graph.value(node.inputs[0] or ""), node.attrs, {1: "weight", 2: "bias"}
    channels = x.shape[1]
    affine = not _absent(node, 1) and not _absent(node, 2)
    path = e.home(node, roles, _key(node)) if affine else None
    grouped = node.op == "group_norm"
    if path is not None and (grouped or len(x.shape) in _INSTANCE_NORMS):
        if grouped:
            return e.layer(_key(node), path, lambda: _fill(
                e, nn.GroupNorm(a["groups"], channels, a["eps"], device="meta"), node, roles
            ), e.arg(node.inputs[0]))  # fmt: skip
        kind = _INSTANCE_NORMS[len(x.shape)]
        return e.layer(_key(node), path, lambda: _fill(
            e, kind(channels, a["eps"], affine=True, device="meta"), node, roles
        ), e.arg(node.inputs[0]))  # fmt: skip
    args = [*e.args(node), None, None][:3]
    if grouped:
        return e.call(F.group_norm, args[0], a["groups"], args[1], args[2], a["eps"])
    return e.call(F.instance_norm, args[0], weight=args[1], bias=args[2], eps=a["eps"])


def _prelu(e: Emitter, node: Node) -> fx.Node:
    w = e.graph.value(node.inputs[1] or "")
    roles = {1: "weight"}
    path = e.home(node, roles, _key(node)) if len(w.shape) == 1 else None
    if path is not None:
        make = lambda: _fill(e, nn.PReLU(w.shape[0], device="meta"), node, roles)  # noqa: E731
        return e.layer(_key(node), path, make, e.arg(node.inputs[0]))
    function: Any = F.prelu if len(w.shape) == 1 else T.prelu
    return e.call(function, *e.args(node))


def _dropout(e: Emitter, node: Node) -> fx.Node:
    path, key = e.free_path(node.source.name), (node.op, node.name)
    return e.layer(key, path, lambda: nn.Dropout(node.attrs["p"]), e.arg(node.inputs[0]))


def _max_pool(e: Emitter, node: Node) -> fx.Node:
    a, x = node.attrs, e.arg(node.inputs[0])
    d = len(a["kernel"])
    pad, kernel = list(a["pad"]), list(a["kernel"])
    lists = (kernel, list(a["stride"]))
    if pad[:d] == pad[d:] and all(0 <= 2 * p <= k for p, k in zip(pad, kernel, strict=False)):
        function: Any = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[d - 1]
        return e.call(function, x, *lists, pad[:d], list(a["dilation"]), a["ceil"])
    return e.call(T.max_pool, x, *lists, pad, list(a["dilation"]), a["ceil"])


def _avg_pool(e: Emitter, node: Node) -> fx.Node:
    a, x = node.attrs, e.arg(node.inputs[0])
    d = len(a["kernel"])
    pad, kernel, stride = list(a["pad"]), list(a["kernel"]), list(a["stride"])
    if pad[:d] == pad[d:] and all(0 <= 2 * p <= k for p, k in zip(pad, kernel, strict=False)):
        function: Any = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[d - 1]
        return e.call(function, x, kernel, stride, pad[:d], a["ceil"], a["include_pad"])
    return e.call(T.avg_pool, x, kernel, stride, pad, a["ceil"], a["include_pad"])


def _adaptive(*functions: Any) -> Lower:
    def lower(e: Emitter, node: Node) -> fx.Node:
        size = list(node.attrs["size"])
        return e.call(functions[len(size) - 1], e.arg(node.inputs[0]), size)

    return lower


_TORCH_MODES = {("linear", 1): "linear", ("linear", 2): "bilinear", ("linear", 3): "trilinear", ("cubic", 2): "bicubic"}


def _resize(e: Emitter, node: Node) -> fx.Node:
    """torch's own interpolate where it computes the same, else the general function."""
    a, x = node.attrs, e.arg(node.inputs[0])
    size, scales = a["size"], a["scales"]
    d = len(size if size is not None else scales)
    target = {"size": list(size)} if size is not None else {"scale_factor": list(scales)}
    mode, coordinate = a["mode"], a["coordinate"]
    full = len(e.graph.value(node.inputs[0] or "").shape) == d + 2
    if full and mode == "nearest" and coordinate == "asymmetric" and a["rounding"] == "floor":
        return e.call(F.interpolate, x, mode="nearest", **target)
    if full and mode == "nearest" and coordinate == "half_pixel" and a["rounding"] == "round_prefer_ceil":
        return e.call(F.interpolate, x, mode="nearest-exact", **target)
    if full and (mode, d) in _TORCH_MODES and coordinate in ("half_pixel", "align_corners"):
        aligned = coordinate == "align_corners"
        return e.call(F.interpolate, x, mode=_TORCH_MODES[mode, d], align_corners=aligned, **target)
    sizes = None if size is None else list(size)
    factors = None if scales is None else list(scales)
    return e.call(T.resize, x, mode, sizes, factors, coordinate, a["rounding"])


def _function(function: Callable[..., Any], *attrs: str, **named: str) -> Lower:
    """A call of the inputs, then these attributes in order, then attributes under other names."""

    def lower(e: Emitter, node: Node) -> fx.Node:
        extra = [_plain(node.attrs[a]) for a in attrs]
        return e.call(function, *e.args(node), *extra, **{k: _plain(node.attrs[a]) for k, a in named.items()})

    return lower


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _split(e: Emitter, node: Node) -> Any:
    parts = e.call(torch.split, e.arg(node.inputs[0]), list(node.attrs["sizes"]), node.attrs["axis"])
    return _items(e, parts, len(node.outputs))


def _items(e: Emitter, source: fx.Node, count: int) -> tuple[fx.Node, ...]:
    return tuple(e.call(operator.getitem, source, i) for i in range(count))


def _concat(e: Emitter, node: Node) -> fx.Node:
    return e.call(torch.cat, e.args(node), node.attrs["axis"])


def _squeeze(e: Emitter, node: Node) -> fx.Node:
    x = e.arg(node.inputs[0])
    assert x is not None
    for axis in sorted(node.attrs["axes"], reverse=True):
        x = e.call(torch.squeeze, x, axis)
    return x


def _unsqueeze(e: Emitter, node: Node) -> fx.Node:
    x = e.arg(node.inputs[0])
    assert x is not None
    for axis in sorted(node.attrs["axes"]):
        x = e.call(torch.unsqueeze, x, axis)
    return x


def _reshape(e: Emitter, node: Node) -> fx.Node:
    shape, x = list(node.attrs["shape"]), e.arg(node.inputs[0])
    return e.call(T.reshape, x, shape) if 0 in shape else e.call(torch.reshape, x, shape)


def _reduce(function: Callable[..., Any]) -> Lower:
    def lower(e: Emitter, node: Node) -> fx.Node:
        x = e.arg(node.inputs[0])
        axes = list(node.attrs["axes"])
        if not axes:  # nothing to reduce over; torch would read it as all axes
            x, axes = e.call(torch.unsqueeze, x, 0), [0]
            return e.call(function, x, axes, False)
        return e.call(function, x, axes, node.attrs["keepdims"])

    return lower


def _norm(order: int) -> Lower:
    def lower(e: Emitter, node: Node) -> fx.Node:
        axes, keep = list(node.attrs["axes"]), node.attrs["keepdims"]
        return e.call(torch.linalg.vector_norm, e.arg(node.inputs[0]), order, axes, keep)

    return lower


def _variance(e: Emitter, node: Node) -> fx.Node:
    a = node.attrs
    x, axes = e.arg(node.inputs[0]), list(a["axes"])
    return e.call(torch.var, x, axes, correction=a["correction"], keepdim=a["keepdims"])


def _lstm(e: Emitter, node: Node) -> Any:
    args = [*e.args(node), *[None] * 6][:6]
    out = e.call(T.lstm, *args, node.attrs["hidden"], node.attrs["direction"])
    return _items(e, out, len(node.outputs))


def _gru(e: Emitter, node: Node) -> Any:
    a = node.attrs
    args = [*e.args(node), *[None] * 5][:5]
    out = e.call(T.gru, *args, a["hidden"], a["direction"], int(a["linear_before_reset"]))
    return _items(e, out, len(node.outputs))


def _opaque(e: Emitter, node: Node) -> Any:
    if node.attrs["kind"] != "torch":
        from secateur.ir.errors import Unsupported

        raise Unsupported(
            f"{node.source}: operator {node.attrs['target']} came from {node.attrs['kind']} and has no torch form, so "
            "this network cannot run in or be written to torch. Write it to ONNX instead."
        )
    out = e.call(T.opaque, node.attrs["target"], node.attrs["payload"], *e.args(node))
    # A single result may come alone or in a list; the payload's operator says which.
    space, name, overload = node.attrs["target"].split(".")
    returns = getattr(getattr(getattr(torch.ops, space), name), overload)._schema.returns
    if len(returns) == 1 and "List" not in str(returns[0].type) and "[]" not in str(returns[0].type):
        return out
    return _items(e, out, len(node.outputs))


def _cast(e: Emitter, node: Node) -> fx.Node:
    return e.method("to", e.arg(node.inputs[0]), TORCH_DTYPES[node.attrs["to"]])


def _identity(e: Emitter, node: Node) -> fx.Node:
    return e.method("view_as", e.arg(node.inputs[0]), e.arg(node.inputs[0]))


def _div(e: Emitter, node: Node) -> fx.Node:
    whole = node.out.dtype not in ("f32", "f64", "f16", "bf16")
    return e.call(torch.div, *e.args(node), **({"rounding_mode": "trunc"} if whole else {}))


LOWER: Mapping[str, Lower] = MappingProxyType(
    {
        "conv": _conv, "conv_transpose": _conv_transpose, "linear": _linear, "matmul": _function(torch.matmul),
        "einsum": lambda e, n: e.call(T.einsum, n.attrs["equation"], *e.args(n)),
        "batch_norm": _batch_norm, "layer_norm": _layer_norm, "rms_norm": _rms_norm,
        "group_norm": _channel_norm, "instance_norm": _channel_norm,
        "lrn": _function(T.lrn, "size", "alpha", "beta", "bias"),
        "max_pool": _max_pool, "avg_pool": _avg_pool,
        "adaptive_avg_pool": _adaptive(F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d),
        "adaptive_max_pool": _adaptive(F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d),
        "prelu": _prelu, "softmax": _function(torch.softmax, "axis"),
        "log_softmax": _function(torch.log_softmax, "axis"),
        "add": _function(torch.add), "sub": _function(torch.sub), "mul": _function(torch.mul), "div": _div,
        "pow": _function(torch.pow), "minimum": _function(torch.minimum), "maximum": _function(torch.maximum),
        "mod": _function(torch.remainder),
        **{op: _function(getattr(torch, op)) for op in ("eq", "ne", "lt", "le", "gt", "ge")},
        "and": _function(torch.logical_and), "or": _function(torch.logical_or), "xor": _function(torch.logical_xor),
        "where": _function(torch.where), "concat": _concat, "split": _split,
        "slice": _function(T.slice_tensor, "axes", "starts", "ends", "steps"),
        "gather": _function(T.gather, "axis"), "reshape": _reshape,
        "flatten": _function(torch.flatten, "start", "end"), "transpose": _function(torch.permute, "perm"),
        "squeeze": _squeeze, "unsqueeze": _unsqueeze, "expand": _function(T.expand, "shape"),
        "tile": _function(torch.tile, "repeats"), "pad": _function(T.pad, "pads", "mode", "value"),
        "roll": _function(torch.roll, "shifts", "axes"), "flip": _function(torch.flip, "axes"),
        "depth_to_space": _function(T.depth_to_space, "block", "mode"),
        "space_to_depth": _function(T.space_to_depth, "block", "mode"), "resize": _resize,
        "reduce_sum": _reduce(torch.sum), "reduce_mean": _reduce(torch.mean), "reduce_max": _reduce(torch.amax),
        "reduce_min": _reduce(torch.amin), "reduce_prod": _function(T.reduce_prod, "axes", "keepdims"),
        "reduce_l1": _norm(1), "reduce_l2": _norm(2), "reduce_var": _variance,
        "reduce_logsumexp": _reduce(torch.logsumexp),
        "argmax": _function(torch.argmax, "axis", "keepdims"), "argmin": _function(torch.argmin, "axis", "keepdims"),
        "cumsum": _function(torch.cumsum, "axis"), "cast": _cast, "lstm": _lstm, "gru": _gru, "opaque": _opaque,
        "identity": _identity, "dropout": _dropout,
        **{op: _function(getattr(torch, op)) for op in (
            "relu", "sigmoid", "tanh", "erf", "exp", "log", "sqrt", "rsqrt", "neg", "abs", "floor", "ceil", "round",
            "sign", "reciprocal", "sin", "cos", "isnan", "selu")},
        "not": _function(torch.logical_not), "silu": _function(F.silu), "mish": _function(F.mish),
        "softsign": _function(F.softsign), "log_sigmoid": _function(F.logsigmoid), "hard_swish": _function(F.hardswish),
        "gelu": _function(F.gelu, approximate="approximate"), "softplus": _function(F.softplus, "beta", "threshold"),
        "hard_sigmoid": _function(T.hard_sigmoid, "alpha", "beta"), "elu": _function(F.elu, "alpha"),
        "celu": _function(F.celu, "alpha"), "leaky_relu": _function(F.leaky_relu, "slope"),
        "clip": _function(torch.clamp, "min", "max"),
    }
)  # fmt: skip
