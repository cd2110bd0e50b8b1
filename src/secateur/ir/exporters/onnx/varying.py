"""Which shapes of a graph are only recorded, and the graph of which but the batch is fixed."""

from __future__ import annotations

import dataclasses
from collections.abc import Set

from secateur.ir.expr_text import parse
from secateur.ir.followed import followed_shapes, has_symbols
from secateur.ir.graph import Graph, Sym, Value
from secateur.ir.onnx_origin import OnnxOrigin
from secateur.ir.symbolic import as_sym, has_sizes, map_sizes
from secateur.ir.text import reinfer


def following(graph: Graph) -> set[str]:
    """Values computed from an opaque node, whose shapes may depend on what nobody knows."""
    unsure: set[str] = set()
    for node in graph.nodes:
        if node.op == "opaque" or any(i in unsure for i in node.inputs):
            unsure.update(v.name for v in node.outputs)
    return unsure


def with_followed(graph: Graph) -> Graph:
    """The graph with every size that follows the inputs as a symbol, inside as well: no rule takes it for a number."""
    if not has_symbols(graph):
        return graph
    shapes = followed_shapes(graph)

    def sized(value: Value) -> Value:
        shape = tuple(as_sym(d) if isinstance(d, Sym) else d for d in shapes[value.name])
        return Value(value.name, shape, value.dtype)

    nodes = [dataclasses.replace(n, outputs=tuple(map(sized, n.outputs))) for n in graph.nodes]
    return graph.rewrite(nodes=nodes)


def at_its_size(graph: Graph) -> Graph | None:
    """A captured graph at its example's sizes, the batch as open as it is; None where nothing else is open.

    A file's own dynamic axes stay: its user asked for them.
    """
    if graph.note(OnnxOrigin) is not None:
        return None
    batches = {v.shape[0].name for v in graph.inputs if v.shape and isinstance(v.shape[0], Sym)}
    names = {d.name for v in graph.inputs for d in v.shape if isinstance(d, Sym)} - batches
    return _closed(graph, batches) if names else None


def closed(graph: Graph) -> Graph:
    """The graph at its example's sizes, the batch too: a part may follow sizes that no input of its own has."""
    return _closed(graph, set())


def _closed(graph: Graph, batches: Set[str]) -> Graph:
    def at_size(sym: Sym) -> int:
        sizes = {atom.name for atom in parse(sym.name).atoms() if atom.kind in ("size", "unknown")}
        return sym if sizes <= batches else int(sym)

    def sized(value: Value) -> Value:
        return Value(value.name, tuple(at_size(d) if isinstance(d, Sym) else d for d in value.shape), value.dtype)

    nodes = []
    for node in graph.nodes:
        if any(map(has_sizes, node.attrs.values())):
            node = node.with_attrs(**{k: map_sizes(a, at_size) for k, a in node.attrs.items()})
        nodes.append(dataclasses.replace(node, outputs=tuple(map(sized, node.outputs))))  # an opaque node's are records
    inputs = list(map(sized, graph.inputs))
    return reinfer(graph.rewrite(inputs=inputs, nodes=nodes))
