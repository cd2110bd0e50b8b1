"""Where a recipe's ``mixing`` entries point to: nodes of the user's file, some of which are several nodes here.

An ONNX operator may become a few IR nodes, such as the Softmax of old operator sets, which flattens first. A recipe
speaks of the file's node: its first output, the position among its inputs and the axis of that input, so that the law
can be repeated with the file alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from secateur.ir import Graph
from secateur.ir.onnx_origin import OnnxOrigin, Part
from secateur.passes.notes import Coupling, Mixing

if TYPE_CHECKING:
    from .recipe import Mixed


def _parts(graph: Graph) -> Mapping[str, Part]:
    origin = graph.note(OnnxOrigin)
    return {} if origin is None else origin.parts


def file_names(graph: Graph) -> Mapping[str, str]:
    """What the file calls weights and values whose names the text form cannot print."""
    origin = graph.note(OnnxOrigin)
    return {} if origin is None else origin.names


def in_file(graph: Graph, coupling: Coupling, m: Mixing) -> Mixing:
    """The same channels at the file's own node, where this one is only a part of it."""
    found = next(((name, part) for name, part in _parts(graph).items() if m.node in part.nodes), None)
    if found is None:
        return m
    name, part = found
    value: str | None = graph.producer[m.node].inputs[m.input]
    while value not in part.inputs:  # what lies between only moves data: it has one input, and channels go through
        maker = graph.producer.get(value or "")
        if maker is None or maker.name not in part.nodes or len(maker.inputs) != 1:
            return m
        value = maker.inputs[0]
    track = coupling.channels.get(value or "")
    if track is None:
        return m
    return replace(m, node=name, input=part.inputs.index(value), axis=track.axis, units=track.units)


def readers(graph: Graph, entry: Mixed) -> tuple[str | None, list[tuple[str, int]]]:
    """The value that an entry speaks of, and each node here that reads it with the input; none where it is unknown."""
    name, at = entry.node, entry.input
    part = _parts(graph).get(name)
    if part is None:
        node = next((n for n in graph.nodes if n.name == name), None)
        value = node.inputs[at] if node is not None and at < len(node.inputs) else None
        return value, [] if node is None else [(name, at)]
    value = part.inputs[at] if at < len(part.inputs) else None
    nodes = [n for n in graph.nodes if n.name in part.nodes]
    return value, [(n.name, i) for n in nodes for i, read in enumerate(n.inputs) if value is not None and read == value]
