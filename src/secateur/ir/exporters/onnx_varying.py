"""Which sizes of a graph may vary: its shapes at other sizes of the symbolic inputs."""

from __future__ import annotations

from collections.abc import Iterator

from secateur.ir.frontends.onnx_origin import OnnxOrigin
from secateur.ir.graph import Graph, Sym, Value
from secateur.ir.infer import infer_node


def other_shapes(graph: Graph) -> dict[str, tuple[int, ...]] | None:
    """Every value's shape at other sizes of the inputs; None where no other size could be found.

    A dimension that differs from the recorded one follows the input.
    """
    if not has_symbols(graph):
        return {v.name: v.shape for v in graph.values.values()}
    for inputs in _alternatives(graph):
        found = _infer(graph, inputs)
        if found is not None:
            return found
    return None


def has_symbols(graph: Graph) -> bool:
    """Whether any dimension of an input may vary."""
    return any(isinstance(d, Sym) for v in graph.inputs for d in v.shape)


def _alternatives(graph: Graph) -> Iterator[list[Value]]:
    origin = graph.note(OnnxOrigin)
    if origin is not None and origin.probe:
        yield [
            Value(v.name, tuple(origin.probe.get(d.name, d) if isinstance(d, Sym) else d for d in v.shape), v.dtype)
            for v in graph.inputs
        ]
    for change in (32, 64, 224, 1, 320, 512):
        yield [
            Value(v.name, tuple((2 if d == 1 else d + change) if isinstance(d, Sym) else d for d in v.shape), v.dtype)
            for v in graph.inputs
        ]


def _infer(graph: Graph, inputs: list[Value]) -> dict[str, tuple[int, ...]] | None:
    known = {v.name: v for v in inputs}
    for node in graph.nodes:
        try:
            ins = [None if i is None else known.get(i) or graph.value(i) for i in node.inputs]
            outs = node.outputs if node.op == "opaque" else infer_node(node, ins)
        except (ValueError, IndexError):
            if graph_has_opaque(graph):
                outs = node.outputs
            else:
                return None
        known.update((v.name, v) for v in outs)
    return {name: v.shape for name, v in known.items()}


def graph_has_opaque(graph: Graph) -> bool:
    """Whether any shape is only recorded, not derived."""
    return any(n.op == "opaque" for n in graph.nodes)


def following(graph: Graph) -> set[str]:
    """Values computed from an opaque node, whose shapes may depend on what nobody knows."""
    unsure: set[str] = set()
    for node in graph.nodes:
        if node.op == "opaque" or any(i in unsure for i in node.inputs):
            unsure.update(v.name for v in node.outputs)
    return unsure
