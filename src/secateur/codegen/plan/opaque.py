"""Operators of ONNX that the IR has no name for and that have code all the same, on row-major tensors.

How each is computed stands in ``emit.topi_onnx``, under the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from secateur.ir import Graph, Node
from secateur.ir.graph import Attr
from secateur.ir.opaque import onnx_attributes

from .program import Attrs

QUANTISED = frozenset({"i8", "u8", "i16", "u16", "i32"})
Accepts = Callable[[Graph, Node, Attrs], bool]


def has_code(graph: Graph, node: Node) -> bool:
    """Is this opaque node of a kind that is compiled?"""
    accepts = CODED.get(str(node.attrs["target"]))
    return accepts is not None and accepts(graph, node, onnx_attributes(node))


def attributes(node: Node) -> dict[str, Attr]:
    """What a spec of this node holds: an opaque node's own attributes, text decoded."""
    found = onnx_attributes(node) if node.op == "opaque" else node.attrs
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in found.items()}


def _quantiser(graph: Graph, node: Node, a: Attrs) -> bool:
    """One scale for all or for each index of an axis, from or to float32."""
    types = {graph.value(str(node.inputs[0])).dtype, node.out.dtype}
    plain = not a.get("block_size", 0) and len(graph.value(str(node.inputs[1])).shape) <= 1
    return plain and "f32" in types and bool(types & QUANTISED)


def _scatter(graph: Graph, node: Node, a: Attrs) -> bool:
    """Whole slices along the leading axes, or elements: what stands last at a place stays."""
    known = str(node.inputs[1]) in graph.weights
    return known and a.get("reduction", b"none") in (b"none", "none") and len(node.out.shape) > 0


def _gather_elements(graph: Graph, node: Node, a: Attrs) -> bool:
    return True


CODED: Mapping[str, Accepts] = MappingProxyType(
    {
        "ai.onnx::QuantizeLinear": _quantiser, "ai.onnx::DequantizeLinear": _quantiser,
        "ai.onnx::ScatterND": _scatter, "ai.onnx::GatherElements": _gather_elements,
    }
)  # fmt: skip
