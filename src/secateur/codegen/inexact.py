"""Layers that a library computes by an algorithm whose rounding is coarser than a sum's, and these layers alone.

Winograd's and Strassen's algorithms sum numbers of different sizes before they multiply. How coarse that is depends on
what a layer reads: so each is run alone, on what it reads in the network.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from secateur.ir import Graph, Node, Value

from .backends import backend_for
from .division import PRODUCTS, Piece, divided
from .plan.family import Family, Workload, family_of
from .plan.lower import lower
from .plan.precision import F32, Precision
from .plan.program import Program
from .records import Records
from .targets import Target, get_target
from .tune.tuner import Tuner, open_records

READ = ".read"  # what the inputs of layers that stand alone end in


def inexact_layers(
    graph: Graph, target: str | Target = "native", threads: int = 1, records: str | Path | Records | None = None
) -> tuple[str, ...]:
    """Labels of the layers that a library of this graph computes by such an algorithm. Raises as ``build`` does."""
    return _layers(graph, get_target(target), threads, records, F32, lambda family: not family.exact)


def narrow_layers(
    graph: Graph, target: Target, threads: int, records: Records, precision: Precision
) -> tuple[str, ...]:
    """Labels of the layers that a library in this precision does not multiply in float32. Raises as ``build`` does."""
    return _layers(graph, target, threads, records, precision, lambda family: family.dtype != "f32")


def _layers(graph: Graph, chosen: Target, threads: int, records: str | Path | Records | None, precision: Precision,
            wanted: Callable[[Family], bool]) -> tuple[str, ...]:  # fmt: skip
    """Labels of the layers whose kernel is of a family that is wanted."""
    backend = backend_for(chosen, precision)
    tuner = Tuner(chosen, threads, open_records(chosen, records))

    def plan(pieces: tuple[Piece, ...]) -> list[Program]:
        return [lower(piece.graph, chosen, threads, None, backend) for piece in pieces if not piece.foreign]

    found: dict[str, None] = {}
    for program in divided(graph, plan):
        for late in program.open:
            specs = [cast(Workload, spec) for spec in late.specs]
            family = family_of(tuner.fastest(specs) if len(specs) > 1 else specs[0], backend.families)
            if family is not None and wanted(family):
                found[program.calls[late.call].label] = None
    return tuple(found)


@dataclass(frozen=True)
class Alone:
    """Layers side by side in ``graph``, which has an input and an output for each that reads and writes something else.

    ``reads``: by input, the value that the network has there. ``labels``: by output, the layer. Outputs are called as
    in the network.
    """

    graph: Graph
    reads: Mapping[str, str]
    labels: Mapping[str, str]


def alone(graph: Graph, layers: Collection[str]) -> Alone:
    """These layers of a network, with the batch norms that are folded into them. What is not found is left out."""
    nodes: list[Node] = []
    reads: dict[str, str] = {}
    labels: dict[str, str] = {}
    for node in graph.nodes:
        read = node.inputs[0]
        if node.op not in PRODUCTS or node.label not in layers or read is None or read in graph.weights:
            continue
        chain = _with_norm(graph, node)
        reads[f"{read}{READ}"] = read
        labels[chain[-1].name] = node.label
        nodes += [dataclasses.replace(node, inputs=(f"{read}{READ}", *node.inputs[1:])), *chain[1:]]
    inputs = [dataclasses.replace(_value(graph, read), name=name) for name, read in reads.items()]
    used = {name for node in nodes for name in node.inputs if name in graph.weights}
    weights = {name: graph.weights[name] for name in graph.weights if name in used}
    return Alone(graph.rewrite(inputs=inputs, nodes=nodes, outputs=list(labels), weights=weights), reads, labels)


def _with_norm(graph: Graph, node: Node) -> list[Node]:
    """The node, and the batch norm that alone reads it."""
    users = graph.users.get(node.name, [])
    follows = len(users) == 1 and users[0].op == "batch_norm" and node.name not in graph.outputs
    return [node, *users] if follows else [node]


def _value(graph: Graph, name: str) -> Value:
    """A value at its captured size: what stands alone has no dynamic axes."""
    found = graph.value(name)
    return dataclasses.replace(found, shape=tuple(map(int, found.shape)))
