"""Cost: multiply-accumulates, parameters, bytes and nodes of a graph, in total and layer by layer.

One multiply-accumulate counts 1, at the shapes the graph was captured with. Parameters are the floating
weights a training would change: BatchNorm's scale and shift count, its running statistics, integer and
boolean weights, buffers and constants made by a frontend do not. Bytes are all weights as stored.
Only shapes are read, so a graph whose weights are zero-stride stand-ins counts as well.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from secateur.ir import ELEMENTWISE, REDUCE, RESHAPES, Graph, Node, quantised, torch_recurrent

FLOATS = frozenset({"float16", "float32", "float64", "bfloat16"})
QUANTISED = frozenset({"int8", "uint8", "int4", "uint4", "float8_e4m3fn", "float8_e5m2"})


@dataclass(frozen=True, slots=True)
class LayerCost:
    """One operation that multiplies.

    ``op`` is its name in reports (``conv2d``); ``widths`` are its input and output channels, None where it has none.
    """

    node: str
    label: str
    op: str
    macs: int
    params: int
    widths: tuple[int, int] | None


@dataclass(frozen=True)
class Costs:
    """Totals of a graph, and a row for each operation that multiplies."""

    macs: int
    params: int
    bytes: int
    nodes: int
    layers: tuple[LayerCost, ...] = ()

    def totals(self) -> dict[str, int]:
        """The four numbers by name."""
        return {"macs": self.macs, "params": self.params, "bytes": self.bytes, "nodes": self.nodes}


@dataclass(frozen=True)
class CountCost:
    """Add the note ``Costs``: what the graph costs now."""

    name: ClassVar[str] = "cost"

    def __call__(self, graph: Graph) -> Graph:
        return graph.with_note(cost(graph))


def cost(graph: Graph) -> Costs:
    """Count the graph: totals, and a row for each convolution, linear, matmul, einsum, lstm and gru."""
    layers = []
    total = 0
    learnable = _learnable(graph)
    for node in graph.nodes:
        if node.op in FREE:
            continue
        macs = int(MACS[node.op](graph, node))
        if node.op == "opaque" and not macs:
            continue
        total += macs
        params = sum(learnable.get(name, 0) for name in dict.fromkeys(n for n in node.inputs if n))
        widths = WIDTHS[node.op](graph, node) if node.op in WIDTHS else None
        layers.append(LayerCost(node.name, node.label, _op(graph, node), macs, params, widths))
    stored = sum(w.size * w.dtype.itemsize for w in graph.weights.values())
    return Costs(total, sum(learnable.values()), stored, len(graph.nodes), tuple(layers))


def totals(graph: Graph) -> Costs:
    """The totals alone, for counting many candidates."""
    return dataclasses.replace(cost(graph), layers=())


def _op(graph: Graph, node: Node) -> str:
    """The operator as reports name it: convolutions with their number of spatial axes."""
    if node.op == "opaque":
        return str(node.attrs["target"]).rpartition("::")[2].removeprefix("aten.").partition(".")[0]
    if node.op not in ("conv", "conv_transpose"):
        return node.op
    return f"{node.op}{len(_shape(graph, node.inputs[1])) - 2}d"


def _learnable(graph: Graph) -> dict[str, int]:
    """Elements by name of the weights that a training would change."""
    left_out = {name for node in graph.nodes if node.op == "batch_norm" for name in node.inputs[3:5]}
    for note in graph.notes.values():
        left_out.update(getattr(note, "buffers", ()))
    return {
        name: int(w.size)
        for name, w in graph.weights.items()
        if (w.dtype.name in FLOATS or (w.dtype.name in QUANTISED and w.ndim > 1))
        and name not in left_out
        and not name.startswith("const.")
    }


def _shape(graph: Graph, name: str | None) -> tuple[int, ...]:
    if name is None:
        return ()
    weight = graph.weights.get(name)
    return weight.shape if weight is not None else graph.values[name].shape


def _conv(graph: Graph, node: Node) -> int:
    return math.prod(node.out.shape) * math.prod(_shape(graph, node.inputs[1])[1:])


def _conv_transpose(graph: Graph, node: Node) -> int:
    return math.prod(_shape(graph, node.inputs[0])) * math.prod(_shape(graph, node.inputs[1])[1:])


def _matmul(graph: Graph, node: Node) -> int:
    return math.prod(node.out.shape) * _shape(graph, node.inputs[0])[-1]


def _einsum(graph: Graph, node: Node) -> int:
    """Every letter's size once, times the multiplications among the operands."""
    terms = node.attrs["equation"].replace(" ", "").split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, name in zip(terms, node.inputs, strict=True):
        for letter, size in zip(term, _shape(graph, name), strict=True):
            sizes[letter] = max(int(size), sizes.get(letter, 1))
    return math.prod(sizes.values()) * (len(terms) - 1)


def _lstm(graph: Graph, node: Node) -> int:
    return _steps(graph, node) * sum(math.prod(_shape(graph, name)) for name in node.inputs[1:3])


def _steps(graph: Graph, node: Node) -> int:
    time, batch = _shape(graph, node.inputs[0])[:2]
    return time * batch


def _opaque(graph: Graph, node: Node) -> int:
    """Of those that are neither quantised nor recurrent nobody knows what they multiply; reports name them."""
    return quantised.macs(graph, node) or torch_recurrent.macs(graph, node)


def _opaque_widths(graph: Graph, node: Node) -> tuple[int, int] | None:
    return quantised.widths(graph, node) or torch_recurrent.widths(graph, node)


def _conv_widths(graph: Graph, node: Node) -> tuple[int, int]:
    weight = _shape(graph, node.inputs[1])
    return int(weight[1] * node.attrs["groups"]), int(weight[0])


def _conv_transpose_widths(graph: Graph, node: Node) -> tuple[int, int]:
    weight = _shape(graph, node.inputs[1])
    return int(weight[0]), int(weight[1] * node.attrs["groups"])


def _linear_widths(graph: Graph, node: Node) -> tuple[int, int]:
    return int(_shape(graph, node.inputs[0])[-1]), int(node.out.shape[-1])


def _rnn_widths(graph: Graph, node: Node) -> tuple[int, int]:
    directions = _shape(graph, node.inputs[1])[0]
    return int(_shape(graph, node.inputs[0])[-1]), int(directions * node.attrs["hidden"])


# Multiply-accumulates of one run of the node. Every operator has a row here or stands in ``FREE``.
MACS: Mapping[str, Callable[[Graph, Node], int]] = MappingProxyType(
    {
        "conv": _conv, "conv_transpose": _conv_transpose, "linear": _matmul, "matmul": _matmul,
        "einsum": _einsum, "lstm": _lstm, "gru": _lstm, "rnn": _lstm,
        "opaque": _opaque,
    }
)  # fmt: skip
FREE: frozenset[str] = ELEMENTWISE | REDUCE | RESHAPES | {
    "batch_norm", "layer_norm", "rms_norm", "group_norm", "instance_norm", "lrn",
    "max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "prelu", "softmax", "log_softmax", "cumsum",
    "concat", "split", "slice", "gather", "transpose", "expand", "tile", "pad", "roll", "flip", "resize",
    "depth_to_space", "space_to_depth", "argmax", "argmin",
}  # fmt: skip
WIDTHS: Mapping[str, Callable[[Graph, Node], tuple[int, int] | None]] = MappingProxyType(
    {
        "conv": _conv_widths, "conv_transpose": _conv_transpose_widths, "linear": _linear_widths,
        "lstm": _rnn_widths, "gru": _rnn_widths, "rnn": _rnn_widths, "opaque": _opaque_widths,
    }
)  # fmt: skip
