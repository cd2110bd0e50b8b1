"""How element-wise operators of one input are written in ONNX, in any operator set since 7."""

from __future__ import annotations

import math

from secateur.ir.graph import Node

from .emitter import Emitter, Rule


def _plain(kind: str, since: int = 7, **renamed: str) -> Rule:
    """One ONNX operator; ``renamed`` maps its attributes to the IR's."""

    def rule(e: Emitter, node: Node) -> None:
        e.needs(node, since, kind)
        e.add(kind, e.ins(node), e.outs(node), **{k: node.attrs[v] for k, v in renamed.items()})

    return rule


def _silu(e: Emitter, node: Node) -> None:
    (x,) = e.ins(node)
    e.add("Mul", [x, e.add("Sigmoid", [x])], e.outs(node))


def _mish(e: Emitter, node: Node) -> None:
    (x,) = e.ins(node)
    if e.opset >= 18:
        e.add("Mish", [x], e.outs(node))
    else:
        e.add("Mul", [x, e.add("Tanh", [e.add("Softplus", [x])])], e.outs(node))


def _rsqrt(e: Emitter, node: Node) -> None:
    e.add("Reciprocal", [e.add("Sqrt", e.ins(node))], e.outs(node))


def _log_sigmoid(e: Emitter, node: Node) -> None:
    flipped = e.add("Softplus", [e.add("Neg", e.ins(node))])
    e.add("Neg", [flipped], e.outs(node))


def _hard_swish(e: Emitter, node: Node) -> None:
    (x,) = e.ins(node)
    if e.opset >= 14:
        e.add("HardSwish", [x], e.outs(node))
    else:
        e.add("Mul", [x, e.add("HardSigmoid", [x], alpha=1 / 6, beta=0.5)], e.outs(node))


def _gelu(e: Emitter, node: Node) -> None:
    (x,), dtype = e.ins(node), e.dtype(node)
    if e.opset >= 20:
        e.add("Gelu", [x], e.outs(node), approximate=node.attrs["approximate"])
        return
    if node.attrs["approximate"] == "tanh":
        cube = e.add("Mul", [e.add("Mul", [x, x]), x])
        inner = e.add("Add", [x, e.add("Mul", [cube, e.scalar(0.044715, dtype)])])
        curve = e.add("Tanh", [e.add("Mul", [inner, e.scalar(math.sqrt(2 / math.pi), dtype)])])
    else:
        e.needs(node, 9, "Erf")
        curve = e.add("Erf", [e.add("Mul", [x, e.scalar(math.sqrt(0.5), dtype)])])
    half = e.add("Mul", [x, e.scalar(0.5, dtype)])
    e.add("Mul", [half, e.add("Add", [curve, e.scalar(1.0, dtype)])], e.outs(node))


def _softplus(e: Emitter, node: Node) -> None:
    (x,), dtype = e.ins(node), e.dtype(node)
    beta, threshold = node.attrs["beta"], node.attrs["threshold"]
    # Above 15 the operator and the identity differ by less than float32 resolves.
    linear = threshold < 15
    if beta == 1 and not linear:
        e.add("Softplus", [x], e.outs(node))
        return
    scaled = e.add("Mul", [x, e.scalar(beta, dtype)])
    soft = e.add("Div", [e.add("Softplus", [scaled]), e.scalar(beta, dtype)], None if linear else e.outs(node))
    if linear:
        e.needs(node, 9, "Where")
        e.add("Where", [e.add("Greater", [scaled, e.scalar(threshold, dtype)]), x, soft], e.outs(node))


def _celu(e: Emitter, node: Node) -> None:
    (x,), dtype, alpha = e.ins(node), e.dtype(node), node.attrs["alpha"]
    if e.opset >= 12 and dtype == "f32":
        e.add("Celu", [x], e.outs(node), alpha=alpha)
        return
    curve = e.add("Elu", [e.add("Div", [x, e.scalar(alpha, dtype)])], alpha=1.0)
    low = e.add("Mul", [curve, e.scalar(alpha, dtype)])
    e.add("Add", [e.add("Relu", [x]), e.add("Min", [low, e.scalar(0.0, dtype)])], e.outs(node))


def _clip(e: Emitter, node: Node) -> None:
    (x,), dtype = e.ins(node), e.dtype(node)
    low, high = node.attrs["min"], node.attrs["max"]
    if low is None and high is None:
        e.add("Identity", [x], e.outs(node))
    elif e.opset < 11:
        e.add("Clip", [x], e.outs(node), min=low, max=high)
    elif e.opset < 12 and dtype not in ("f32", "f16", "f64"):
        raise e.unsupported(node, "Clip of integers exists since 12")
    else:
        bounds = ["" if bound is None else e.scalar(bound, dtype) for bound in (low, high)]
        e.add("Clip", [x, *bounds], e.outs(node))


def _dropout(e: Emitter, node: Node) -> None:
    p = node.attrs["p"]
    if e.opset >= 12:
        e.add("Dropout", [*e.ins(node), e.scalar(p, "f32")], e.outs(node))
    else:
        e.add("Dropout", e.ins(node), e.outs(node), ratio=p)


UNARY_RULES: dict[str, Rule] = {
    "identity": _plain("Identity"), "relu": _plain("Relu"), "sigmoid": _plain("Sigmoid"), "tanh": _plain("Tanh"),
    "erf": _plain("Erf", 9), "exp": _plain("Exp"), "log": _plain("Log"), "sqrt": _plain("Sqrt"),
    "neg": _plain("Neg"), "abs": _plain("Abs"), "floor": _plain("Floor"), "ceil": _plain("Ceil"),
    "round": _plain("Round", 11), "sign": _plain("Sign", 9), "reciprocal": _plain("Reciprocal"),
    "softsign": _plain("Softsign"), "not": _plain("Not"), "sin": _plain("Sin"), "cos": _plain("Cos"),
    "selu": _plain("Selu"), "isnan": _plain("IsNaN", 9), "elu": _plain("Elu", alpha="alpha"),
    "leaky_relu": _plain("LeakyRelu", alpha="slope"), "hard_sigmoid": _plain("HardSigmoid", alpha="alpha", beta="beta"),
    "silu": _silu, "mish": _mish, "rsqrt": _rsqrt, "log_sigmoid": _log_sigmoid, "hard_swish": _hard_swish,
    "gelu": _gelu, "softplus": _softplus, "celu": _celu, "clip": _clip, "dropout": _dropout,
}  # fmt: skip
