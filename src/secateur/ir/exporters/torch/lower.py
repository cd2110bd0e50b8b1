"""How each operator of the IR is written in torch: a row per operator.

Layers with parameters or a training mode become ``nn`` modules where the names of their weights
say where the module stood; everything else becomes a plain function.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import fx

from secateur.ir.frontends.torch.arrays import TORCH_DTYPES
from secateur.ir.graph import Node

from . import functional as T
from .emitter import Emitter, Operand
from .functional_resize import resize
from .lower_layers import LAYERS, Lower

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
    return e.call(resize, x, mode, sizes, factors, coordinate, a["rounding"])


def _function(function: Callable[..., Operand], *attrs: str, **named: str) -> Lower:
    """A call of the inputs, then these attributes in order, then attributes under other names."""

    def lower(e: Emitter, node: Node) -> fx.Node:
        extra = [_plain(node.attrs[a]) for a in attrs]
        return e.call(function, *e.args(node), *extra, **{k: _plain(node.attrs[a]) for k, a in named.items()})

    return lower


def _plain(value: Operand) -> Operand:
    return list(value) if isinstance(value, tuple) else value


def _split(e: Emitter, node: Node) -> Operand:
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


def _reduce(function: Callable[..., Operand]) -> Lower:
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


def _lstm(e: Emitter, node: Node) -> Operand:
    args = [*e.args(node), *[None] * 6][:6]
    out = e.call(T.lstm, *args, node.attrs["hidden"], node.attrs["direction"])
    return _items(e, out, len(node.outputs))


def _gru(e: Emitter, node: Node) -> Operand:
    a = node.attrs
    args = [*e.args(node), *[None] * 5][:5]
    out = e.call(T.gru, *args, a["hidden"], a["direction"], int(a["linear_before_reset"]))
    return _items(e, out, len(node.outputs))


def _rnn(e: Emitter, node: Node) -> Operand:
    a = node.attrs
    args = [*e.args(node), *[None] * 5][:5]
    out = e.call(T.rnn, *args, a["hidden"], a["direction"], a["activation"])
    return _items(e, out, len(node.outputs))


def _opaque(e: Emitter, node: Node) -> Operand:
    if node.attrs["kind"] != "torch":
        from secateur.ir.errors import Unsupported

        raise Unsupported(
            f"{node.source}: operator {node.attrs['target']} came from {node.attrs['kind']} and has no torch form, so "
            "this network cannot run in or be written to torch. Write it to ONNX instead."
        )
    sizes = {"sizes": node.attrs["sizes"]} if "sizes" in node.attrs else {}
    out = e.call(T.opaque, node.attrs["target"], node.attrs["payload"], *e.args(node), **sizes)
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
    whole = node.out.dtype not in ("f32", "f64", "f16", "bf16", "c64", "c128")
    return e.call(torch.div, *e.args(node), **({"rounding_mode": "trunc"} if whole else {}))


LOWER: Mapping[str, Lower] = MappingProxyType(
    {
        **LAYERS, "matmul": _function(torch.matmul),
        "einsum": lambda e, n: e.call(T.einsum, n.attrs["equation"], *e.args(n)),
        "lrn": _function(T.lrn, "size", "alpha", "beta", "bias"),
        "softmax": _function(torch.softmax, "axis"),
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
        "cumsum": _function(torch.cumsum, "axis"), "cast": _cast, "lstm": _lstm, "gru": _gru, "rnn": _rnn,
        "opaque": _opaque,
        "identity": _identity,
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
