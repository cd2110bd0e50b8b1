"""How the IR's layers are written in torch: what has parameters, statistics, a window or a training mode.

They become ``nn`` modules where the names of their weights say where the module stood, else functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import fx, nn

from secateur.ir.graph import Node

from . import functional as T
from .emitter import Emitter, Operand

Lower = Callable[[Emitter, Node], Operand]


_CONVS: tuple[Operand, ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


_TRANSPOSED: tuple[Operand, ...] = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


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


def _key(node: Node) -> tuple[Operand, ...]:
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
    function: Operand = (F.conv1d, F.conv2d, F.conv3d)[d - 1]
    b = None if _absent(node, 2) else e.arg(node.inputs[2])
    stride, dilation = list(a["stride"]), list(a["dilation"])
    return e.call(function, x, e.arg(node.inputs[1]), b, stride, list(pad[:d]), dilation, a["groups"])


def _conv_transpose(e: Emitter, node: Node) -> fx.Node:
    a, d = node.attrs, len(node.attrs["stride"])
    pad, extra = list(a["pad"]), list(a["output_padding"])
    crop = pad[:d] != pad[d:] or min(pad) < 0 or any(o >= max(s, t) for o, s, t in zip(
        extra, a["stride"], a["dilation"], strict=True))  # fmt: skip
    function: Operand = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[d - 1]
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
    path = e.home(node, roles, _key(node))
    if path is None:
        path = e.free_path(f"{node.name}")
        e.moved({name: f"{path}.{roles[i]}" for i, name in enumerate(names) if i and name is not None})
    kind: Operand = _BATCH_NORMS[len(x.shape)]
    if e.train_as(node) == "instance_norm" and len(x.shape) in _INSTANCE_NORMS:
        kind = _INSTANCE_NORMS[len(x.shape)]
    return e.layer(_key(node), path, lambda: _statistics(_fill(
        e, kind(x.shape[1], a["eps"], a["momentum"], names[1] is not None, True, device="meta"), node, roles
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
    function: Operand = F.prelu if len(w.shape) == 1 else T.prelu
    return e.call(function, *e.args(node))


def _dropout(e: Emitter, node: Node) -> fx.Node:
    path, key = e.free_path(node.source.name), (node.op, node.name)
    rank = len(node.out.shape)
    kind: Operand = {
        "feature_dropout": {3: nn.Dropout1d, 4: nn.Dropout2d, 5: nn.Dropout3d}.get(rank, nn.Dropout),
        "alpha_dropout": nn.AlphaDropout,
        "feature_alpha_dropout": nn.FeatureAlphaDropout,
    }.get(e.train_as(node), nn.Dropout)
    return e.layer(key, path, lambda: kind(node.attrs["p"]), e.arg(node.inputs[0]))


def _max_pool(e: Emitter, node: Node) -> fx.Node:
    a, x = node.attrs, e.arg(node.inputs[0])
    d = len(a["kernel"])
    pad, kernel = list(a["pad"]), list(a["kernel"])
    lists = (kernel, list(a["stride"]))
    if pad[:d] == pad[d:] and all(0 <= 2 * p <= k for p, k in zip(pad, kernel, strict=False)):
        function: Operand = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[d - 1]
        return e.call(function, x, *lists, pad[:d], list(a["dilation"]), a["ceil"])
    return e.call(T.max_pool, x, *lists, pad, list(a["dilation"]), a["ceil"])


def _avg_pool(e: Emitter, node: Node) -> fx.Node:
    a, x = node.attrs, e.arg(node.inputs[0])
    d = len(a["kernel"])
    pad, kernel, stride = list(a["pad"]), list(a["kernel"]), list(a["stride"])
    if pad[:d] == pad[d:] and all(0 <= 2 * p <= k for p, k in zip(pad, kernel, strict=False)):
        function: Operand = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[d - 1]
        return e.call(function, x, kernel, stride, pad[:d], a["ceil"], a["include_pad"])
    return e.call(T.avg_pool, x, kernel, stride, pad, a["ceil"], a["include_pad"])


def _adaptive(*functions: Operand) -> Lower:
    def lower(e: Emitter, node: Node) -> fx.Node:
        size = list(node.attrs["size"])
        return e.call(functions[len(size) - 1], e.arg(node.inputs[0]), size)

    return lower


LAYERS: Mapping[str, Lower] = MappingProxyType(
    {
        "conv": _conv, "conv_transpose": _conv_transpose, "linear": _linear,
        "batch_norm": _batch_norm, "layer_norm": _layer_norm, "rms_norm": _rms_norm,
        "group_norm": _channel_norm, "instance_norm": _channel_norm,
        "max_pool": _max_pool, "avg_pool": _avg_pool,
        "adaptive_avg_pool": _adaptive(F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d),
        "adaptive_max_pool": _adaptive(F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d),
        "prelu": _prelu, "dropout": _dropout,
    }
)  # fmt: skip
