"""Layers of quantised files: operators of ONNX and ONNX Runtime that multiply integers, and where operands stand.

The IR keeps these nodes as the file has them. Here is what passes have to know: which operand is the input, which the
weight and its zero point, and which have an entry for each output channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from .graph import Array, Graph, Node
from .opaque import onnx_attributes


@dataclass(frozen=True, slots=True)
class QuantisedLayer:
    """Positions among a node's inputs.

    ``kind``: "conv" (weight [O, I/g, *k]), "matmul" ([I, O], or [O, I] with ``transB``) or "lstm" ([D, I, 4H] and
    [D, H, 4H]). ``rows``: scale, zero point and bias, each for all output channels or with one entry for each.
    ``ranged``: the layer chooses the scale of its input by the values that it sees.
    """

    kind: str
    x: int
    weight: int
    zeros: tuple[int, ...]
    rows: tuple[int, ...]
    ranged: bool = False


LAYERS: Mapping[str, QuantisedLayer] = MappingProxyType(
    {
        "ai.onnx::QLinearConv": QuantisedLayer("conv", 0, 3, (5,), (4, 5, 8)),
        "ai.onnx::ConvInteger": QuantisedLayer("conv", 0, 1, (3,), (3,)),
        "ai.onnx::QLinearMatMul": QuantisedLayer("matmul", 0, 3, (5,), (4, 5)),
        "ai.onnx::MatMulInteger": QuantisedLayer("matmul", 0, 1, (3,), (3,)),
        "com.microsoft::QGemm": QuantisedLayer("matmul", 0, 3, (5,), (4, 5, 6)),
        "com.microsoft::MatMulIntegerToFloat": QuantisedLayer("matmul", 0, 1, (5,), (3, 5, 6)),
        "com.microsoft::DynamicQuantizeMatMul": QuantisedLayer("matmul", 0, 1, (3,), (2, 3, 4), ranged=True),
        "com.microsoft::DynamicQuantizeLSTM": QuantisedLayer("lstm", 0, 1, (9, 11), (8, 9, 10, 11), ranged=True),
    }
)
ELEMENTWISE: Mapping[str, tuple[int, ...]] = MappingProxyType(  # which operands hold data
    {
        "com.microsoft::QLinearAdd": (0, 3), "com.microsoft::QLinearMul": (0, 3),
        "com.microsoft::QLinearSigmoid": (0,), "com.microsoft::QLinearLeakyRelu": (0,),
        "com.microsoft::QLinearGlobalAveragePool": (0,), "com.microsoft::QLinearAveragePool": (0,),
    }
)  # fmt: skip
CONCAT = "com.microsoft::QLinearConcat"  # scale and zero point, then (value, scale, zero point) of each operand
DYNAMIC = "ai.onnx::DynamicQuantizeLinear"


def quantised_layer(node: Node) -> QuantisedLayer | None:
    """What a node's operands are, if it is a quantised layer."""
    return LAYERS.get(str(node.attrs["target"])) if node.op == "opaque" else None


def operand(node: Node, i: int) -> str | None:
    """The i-th input, None where it is left out."""
    return node.inputs[i] if i < len(node.inputs) else None


def rows_axis(node: Node, layer: QuantisedLayer) -> int:
    """The axis of the weight along which output channels lie."""
    if layer.kind == "conv":
        return 0
    return 2 if layer.kind == "lstm" else 1 - int(onnx_attributes(node).get("transB", 0))


def real_values(graph: Graph, name: str) -> Array:
    """f32: what a quantised weight stands for, as far as its readers say: less its zero point, times its scale."""
    array = graph.weights[name].astype(np.float32)
    for node in graph.users.get(name, ()):
        layer = quantised_layer(node)
        if node.op == "opaque" and node.attrs["target"] == "ai.onnx::DequantizeLinear" and node.inputs[0] == name:
            axis = int(onnx_attributes(node).get("axis", 1))
            scale, zero = operand(node, 1), operand(node, 2)
        elif layer is not None and operand(node, layer.weight) == name and layer.kind != "lstm":
            axis, scale, zero = rows_axis(node, layer), operand(node, layer.rows[0]), operand(node, layer.zeros[0])
            scale = None if scale == zero else scale  # it is multiplied by later
        else:
            continue
        below, by = _along(graph, zero, array, axis), _along(graph, scale, array, axis)
        return (array - (0 if below is None else below)) * (1 if by is None else by)
    return array


def _along(graph: Graph, name: str | None, array: Array, axis: int) -> Array | None:
    """A stored scale or zero point, to be spread over the weight."""
    found = graph.weights.get(name or "")
    if found is None or (found.size > 1 and (found.ndim != 1 or found.size != array.shape[axis])):
        return None
    return found.astype(np.float32).reshape([-1 if i == axis % array.ndim else 1 for i in range(array.ndim)])


def macs(graph: Graph, node: Node) -> int:
    """Multiply-accumulates of a quantised layer, 0 for other nodes."""
    layer = quantised_layer(node)
    if layer is None:
        return 0
    weight = graph.value(str(node.inputs[layer.weight])).shape
    x = graph.value(str(node.inputs[layer.x])).shape
    if layer.kind == "lstm":
        recurrent = graph.value(str(node.inputs[layer.weight + 1])).shape
        return _size(x[:2]) * (_size(weight) + _size(recurrent))
    return _size(node.out.shape) * (_size(weight[1:]) if layer.kind == "conv" else int(x[-1]))


def widths(graph: Graph, node: Node) -> tuple[int, int] | None:
    """Input and output channels of a quantised layer with a weight, None for other nodes."""
    layer = quantised_layer(node)
    if layer is None or str(node.inputs[layer.weight]) not in graph.weights:
        return None
    weight = graph.value(str(node.inputs[layer.weight])).shape
    if layer.kind == "lstm":
        return int(weight[1]), int(weight[0] * weight[2] // 4)
    if layer.kind == "conv":
        return int(weight[1] * onnx_attributes(node).get("group", 1)), int(weight[0])
    return int(graph.value(str(node.inputs[layer.x])).shape[-1]), int(node.out.shape[-1])


def _size(shape: tuple[int, ...]) -> int:
    total = 1
    for d in shape:
        total *= int(d)
    return total
