"""What the element type of a network says about its errors, and the same network in a finer one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from .graph import Array, Graph, Node, Value, numpy_dtype
from .onnx_origin import OnnxOrigin

TOLERANCE = 1e-4  # of the largest value, in float32
ROUNDING: Mapping[str, float] = MappingProxyType({"f64": 2.2e-16, "f32": 1.2e-7, "f16": 9.8e-4, "bf16": 7.8e-3})
ROUNDINGS = 16  # of the coarsest type, that add up through a network
HALF = frozenset({"f16", "bf16"})


def coarsest(graph: Graph) -> str:
    """The float type with the largest roundings that the graph computes in."""
    found = {v.dtype for node in graph.nodes for v in node.outputs} & set(ROUNDING)
    return max(found, key=lambda name: ROUNDING[name], default="f32")


def tolerance(graph: Graph, least: float = TOLERANCE) -> float:
    """How far outputs may be off, as a share of their largest value, by the type that computes."""
    return max(least, ROUNDINGS * ROUNDING[coarsest(graph)])


def widened(graph: Graph) -> Graph | None:
    """The same network in float32 where it computes in HALF precision, so that roundings hide nothing.

    None where an opaque node is tied to half precision. A graph without any comes back as it is.
    """
    if coarsest(graph) not in HALF and not any(v.dtype in HALF for v in graph.inputs):
        return graph

    return _retyped(graph, HALF, "f32")


def doubled(graph: Graph) -> Graph | None:
    """The same network in double precision where it computes in float32, to tell roundings from faults.

    None where an opaque node is tied to float32.
    """
    return _retyped(graph, frozenset({"f32"}), "f64")


def _retyped(graph: Graph, types: frozenset[str], to: str) -> Graph | None:
    """The network with another type in the place of these; None where an opaque node has one of them."""

    def retyped(value: Value) -> Value:
        return dataclasses.replace(value, dtype=to) if value.dtype in types else value

    nodes = []
    for node in graph.nodes:
        found = {v.dtype for v in node.outputs} | {graph.value(i).dtype for i in node.inputs if i is not None}
        if node.op == "opaque" and found & types:
            return None
        attrs = {k: to if k == "to" and a in types else a for k, a in node.attrs.items()}
        nodes.append(dataclasses.replace(node, outputs=tuple(map(retyped, node.outputs)), attrs=attrs))
    weights = {n: _cast_array(w, types, to) for n, w in graph.weights.items()}
    made = graph.rewrite(inputs=tuple(map(retyped, graph.inputs)), nodes=nodes, weights=weights)
    origin = made.note(OnnxOrigin)  # the file's own nodes may hold constants of the old type
    return made if origin is None else made.with_note(dataclasses.replace(origin, originals={}))


def computed_wide(graph: Graph) -> Graph:
    """The network computed in float32 between inputs and outputs of the types that they have.

    As it comes where it computes in float32 already, or where an opaque node is tied to half precision.
    """
    wide = widened(graph)
    if wide is None or wide is graph:
        return graph
    inner = {v.name: f"{v.name}.wide" for v in graph.inputs if v.dtype in HALF}
    inner |= {n: f"{n}.wide" for n in graph.outputs if n in graph.producer and graph.value(n).dtype in HALF}
    before = [_cast(inner[v.name], v.name, v, "f32") for v in graph.inputs if v.name in inner]
    nodes = [
        dataclasses.replace(
            node,
            inputs=tuple(inner.get(i, i) if i is not None else None for i in node.inputs),
            outputs=tuple(dataclasses.replace(v, name=inner.get(v.name, v.name)) for v in node.outputs),
        )
        for node in wide.nodes
    ]
    after = [
        _cast(n, inner[n], graph.value(n), graph.value(n).dtype)
        for n in dict.fromkeys(graph.outputs) if n in inner and n in graph.producer
    ]  # fmt: skip
    kept = {n: graph.weights[n] for n in graph.outputs if n in graph.weights}
    return wide.rewrite(inputs=graph.inputs, nodes=[*before, *nodes, *after], weights={**wide.weights, **kept})


def floats_at_edges(graph: Graph) -> Graph:
    """The network with float32 in the place of bfloat16 at its inputs and outputs, and inside as it was.

    ONNX Runtime takes no bfloat16 from NumPy; every bfloat16 is a float32 as well.
    """
    edges = [v for v in graph.inputs if v.dtype == "bf16"]
    ends = [n for n in dict.fromkeys(graph.outputs) if n in graph.producer and graph.value(n).dtype == "bf16"]
    inner = {name: f"{name}.half" for name in (*(v.name for v in edges), *ends)}
    inputs = tuple(dataclasses.replace(v, dtype="f32") if v in edges else v for v in graph.inputs)
    before = [_cast(inner[v.name], v.name, v, "bf16") for v in edges]
    nodes = [
        dataclasses.replace(
            node,
            inputs=tuple(i if i is None else inner.get(i, i) for i in node.inputs),
            outputs=tuple(dataclasses.replace(v, name=inner.get(v.name, v.name)) for v in node.outputs),
        )
        for node in graph.nodes
    ]
    after = [_cast(n, inner[n], graph.value(n), "f32") for n in ends]
    return graph.rewrite(inputs=inputs, nodes=[*before, *nodes, *after]) if inner else graph


def _cast(name: str, source: str, value: Value, to: str) -> Node:
    return Node("cast", (source,), (dataclasses.replace(value, name=name, dtype=to),), {"to": to})


def _cast_array(array: Array, types: frozenset[str], to: str) -> Array:
    return array.astype(numpy_dtype(to)) if array.dtype in map(numpy_dtype, types) else array


def widened_feed(feed: Mapping[str, Array]) -> dict[str, Array]:
    """Inputs for the widened network."""
    return {name: _cast_array(array, HALF, "f32") for name, array in feed.items()}


def doubled_feed(feed: Mapping[str, Array]) -> dict[str, Array]:
    """Inputs for the network in double precision."""
    return {name: _cast_array(array, frozenset({"f32"}), "f64") for name, array in feed.items()}
