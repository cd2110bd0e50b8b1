"""Which shapes of a graph are only recorded."""

from __future__ import annotations

from secateur.ir.graph import Graph


def following(graph: Graph) -> set[str]:
    """Values computed from an opaque node, whose shapes may depend on what nobody knows."""
    unsure: set[str] = set()
    for node in graph.nodes:
        if node.op == "opaque" or any(i in unsure for i in node.inputs):
            unsure.update(v.name for v in node.outputs)
    return unsure
