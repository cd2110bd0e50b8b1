"""Operators of other domains that are short for several of ONNX's own: those that ONNX Runtime's optimiser writes.

What they stand for is written out, so that it can be pruned, and the slim file needs no runtime of its own.
"""

from __future__ import annotations

import numpy as np

from secateur.ir.graph import numpy_dtype

from .builder import Builder, Rule
from .names import Odd, Op
from .rules_layers import LAYERS

# The activations that a fused operator may apply, and their parameters by position.
ACTIVATIONS = {
    "Relu": ("relu", ()), "Sigmoid": ("sigmoid", ()), "Tanh": ("tanh", ()), "LeakyRelu": ("leaky_relu", ("slope",)),
    "Clip": ("clip", ("min", "max")), "HardSigmoid": ("hard_sigmoid", ("alpha", "beta")),
}  # fmt: skip


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _fused_conv(b: Builder, op: Op) -> None:
    """A convolution, what is added to it, and an activation."""
    b.exact = False
    kind, names = ACTIVATIONS.get(_text(op.attrs.get("activation", "")), ("", ()))
    if "activation" in op.attrs and not kind:
        raise Odd("its activation has no rule")
    inner = Op(op.proto, op.inputs[:3], (b.fresh(),), op.attrs, op.opset, op.outer)
    LAYERS["Conv"](b, inner)
    y = str(inner.outputs[0])
    if op.maybe(3):
        y = b.emit("add", [y, op.maybe(3)])
    values = [float(v) for v in op.attrs.get("activation_params", ())]
    attrs = dict(zip(names, values, strict=bool(kind)))
    b.result(kind or "identity", [y], op, **attrs)


def _fused_matmul(b: Builder, op: Op) -> None:
    b.exact = False
    if op.attrs.get("transBatchA", 0) or op.attrs.get("transBatchB", 0):
        raise Odd("it turns batch axes")
    sides = []
    for i, key in ((0, "transA"), (1, "transB")):
        name, rank = op.input(i), len(b.shape(op.input(i)))
        if op.attrs.get(key, 0) and rank > 1:
            name = b.emit("transpose", [name], perm=(*range(rank - 2), rank - 1, rank - 2))
        sides.append(name)
    y = b.emit("matmul", sides)
    share = np.array(op.attrs.get("alpha", 1.0), numpy_dtype(b.value(y).dtype))
    b.result("mul", [y, b.constant(share)], op)


def _gelu(approximate: str) -> Rule:
    """With what is added before it, if anything is."""

    def rule(b: Builder, op: Op) -> None:
        b.exact = False
        x = b.emit("add", [op.input(0), op.maybe(1)]) if op.maybe(1) else op.input(0)
        b.result("gelu", [x], op, approximate=approximate)

    return rule


def _quick_gelu(b: Builder, op: Op) -> None:
    b.exact = False
    x = op.input(0)
    slope = np.array(op.attrs.get("alpha", 1.702), numpy_dtype(b.value(x).dtype))
    gate = b.emit("sigmoid", [b.emit("mul", [x, b.constant(slope)])])
    b.result("mul", [x, gate], op)


def _skip_norm(b: Builder, op: Op) -> None:
    """A residual and a layer norm: x, skip, scale, shift, bias."""
    b.exact = False
    if b.is_used(op, 1) or b.is_used(op, 2):
        raise Odd("its statistics are used")
    simple = op.kind.startswith("SkipSimplified")
    added, total = (op.maybe(3) if simple else op.maybe(4)), op.outputs[3] if len(op.outputs) > 3 else None
    y = b.emit("add", [op.input(0), op.input(1)], [total] if total and not added else None)
    if added:
        y = b.emit("add", [y, added], [total] if total else None)
    eps = op.attrs.get("epsilon", 1e-12)
    weights = [op.input(2)] if simple else [op.input(2), op.maybe(3)]
    b.result("rms_norm" if simple else "layer_norm", [y, *weights], op, dims=1, eps=eps)


def _scaler(b: Builder, op: Op) -> None:
    """(x - offset) * scale."""
    b.exact = False
    x = op.input(0)
    dtype, width = b.value(x).dtype, b.shape(x)[-1] if b.shape(x) else 1
    if dtype != "f32":
        x = b.emit("cast", [x], to="f32")
    offset, scale = (
        np.asarray(op.attrs.get(key, default), np.float32) for key, default in (("offset", 0), ("scale", 1))
    )
    if any(v.size not in (1, width) for v in (offset, scale)):
        raise Odd("its parameters do not fit")
    y = b.emit("sub", [x, b.constant(offset)])
    b.result("mul", [y, b.constant(scale)], op)


CONTRIB: dict[str, Rule] = {
    "com.microsoft::FusedConv": _fused_conv, "com.microsoft::FusedMatMul": _fused_matmul,
    "com.microsoft::Gelu": _gelu("none"), "com.microsoft::BiasGelu": _gelu("none"),
    "com.microsoft::FastGelu": _gelu("tanh"), "com.microsoft::QuickGelu": _quick_gelu,
    "com.microsoft::SkipLayerNormalization": _skip_norm,
    "com.microsoft::SkipSimplifiedLayerNormalization": _skip_norm,
    "ai.onnx.ml::Scaler": _scaler,
}  # fmt: skip
