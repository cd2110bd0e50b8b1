"""What roundings decide in a library of parts: the runtime's choice among nearly equal scores.

Two right programs part there, and everything after it differs. So each part is judged by itself, on what it read in
the library, and then the network as a whole with the library's choices put in its place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from secateur.ir import Array, Error, Graph
from secateur.ir.exporters.onnx.calls import arguments
from secateur.passes.choices import discrete
from secateur.run import evaluate

from .library import Check

if TYPE_CHECKING:
    from secateur.codegen import Library

# Operators of torch that give the largest numbers and their places, and their arguments.
LARGEST = MappingProxyType(
    {"aten.topk.default": ("self", "k", "dim", "largest"), "aten.sort.default": ("self", "dim", "descending")}
)


def decided(check: Check, library: Library, limit: float) -> str:
    """The first part of the library that chooses, where that alone is why it differs from its network; else nothing.

    ``limit``: how far each part, and the network with the library's choices, may be off.
    """
    from secateur.codegen.parted import PartedLibrary

    if not isinstance(library, PartedLibrary):
        return ""
    values = library.values(list(check.given.values()))
    graph, what = check.original, ""
    chosen, scores = list[str](), list[str]()
    try:
        for part in library.parts:
            segment = between(graph, values, part.reads, part.writes)
            alone = Check(segment, {name: values[name] for name in part.reads})
            right = alone.accepted([values[name] for name in part.writes], limit)
            if not right and not (part.what and as_high(segment, values)):
                return ""
            if part.what and any(map(discrete, segment.nodes)):
                chosen, scores, what = [*chosen, *part.writes], [*scores, *part.reads], what or part.what[0]
        if not chosen:
            return ""
        given = {**check.given, **{name: values[name] for name in chosen}}
        compared = [*graph.outputs, *scores]
        whole = Check(between(graph, values, list(given), compared), given)
        return what if whole.accepted([values[name] for name in compared], limit) else ""
    except (Error, KeyError):  # a part that the network does not have so, or that cannot be run by itself
        return ""


def as_high(segment: Graph, values: Mapping[str, Array]) -> bool:
    """Is this the choice of the largest numbers alone, and are those that were chosen as large, in whatever order?"""
    if len(segment.nodes) != 1 or segment.nodes[0].attrs.get("target") not in LARGEST:
        return False
    node = segment.nodes[0]
    (given,), (largest, places) = node.inputs, (v.name for v in node.outputs)
    if given is None or places not in values:
        return False
    (want,) = evaluate(segment.rewrite(outputs=[largest]), {given: values[given]})
    axis = arguments(node, *LARGEST[node.attrs["target"]]).get("dim", -1)
    once = np.diff(np.sort(values[places], axis=axis), axis=axis).all()
    return bool(once) and np.array_equal(np.take_along_axis(values[given], values[places], axis=axis), want)


def between(graph: Graph, values: Mapping[str, Array], reads: Sequence[str], writes: Sequence[str]) -> Graph:
    """What gives these values from those, at the sizes that ``values`` have."""
    needed, nodes = set(writes) - set(reads), []
    for node in reversed(graph.nodes):
        if any(v.name in needed for v in node.outputs):
            nodes.append(node)
            needed.update(name for name in node.inputs if name is not None and name not in reads)
    inputs = [dataclasses.replace(graph.value(name), shape=values[name].shape) for name in reads]
    return graph.rewrite(inputs=inputs, nodes=nodes[::-1], outputs=writes)
