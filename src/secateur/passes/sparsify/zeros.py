"""What ``sparsify`` did, for the report and for files: a note on the graph, and what a file says of its zeros."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Graph
from secateur.ir.onnx_origin import ZEROS, OnnxOrigin

from .layers import places
from .packed import pack, read


@dataclass(frozen=True)
class SparseRow:
    """The share of zeros in a layer's weight."""

    layer: str
    weight: str
    sparsity: float


@dataclass(frozen=True)
class Sparsified:
    """The pattern as ``--block`` spells it, a row for each weight that lost something, and the outputs of a block."""

    outlives_rewrites: ClassVar[bool] = True
    block: str
    rows: tuple[SparseRow, ...]
    outputs: int = 1

    def onnx_metadata(self, graph: Graph) -> Iterator[tuple[str, str]]:
        """What a file's metadata says next to its dense weights: which blocks of each are zero (``packed``)."""
        found = {place.weight: place for place in places(graph)}
        for row in self.rows:
            if row.weight in found:
                yield row.weight, pack(found[row.weight].rows(graph.weights[row.weight]), self.outputs).text()


def zeros_of(graph: Graph) -> tuple[str, ...]:
    """Sentences for the report: how many weights are zero, where, and what stayed dense."""
    note = graph.note(Sparsified)
    if note is None:
        return ()
    sizes = [graph.weights[row.weight].size for row in note.rows]
    zeros = sum(graph.weights[row.weight].size - np.count_nonzero(graph.weights[row.weight]) for row in note.rows)
    least, most = min(row.sparsity for row in note.rows), max(row.sparsity for row in note.rows)
    spread = f"{least:.1%}" if most - least < 5e-4 else f"{least:.1%} to {most:.1%}"
    every = sum(w.size for w in graph.weights.values())
    return (
        f"sparsity: {spread} of each of {len(note.rows)} weights is zero (block {note.block}), {zeros / every:.1%} of "
        f"all numbers; {every - sum(sizes)} are of biases and norms, or of depthwise, narrow or protected layers",
    )


def notes_of(graph: Graph) -> tuple[Sparsified, ...]:
    """The note, for a graph that is to keep it."""
    note = graph.note(Sparsified)
    return () if note is None else (note,)


def check_zeros(graph: Graph, where: str) -> None:
    """Compare what an ONNX file's metadata say of its zeros with its weights. ``where``: the file, for people.

    What is said of weights that this network does not have is passed over: another tool may have renamed them. Raises
    InputError where it is damaged, and where a block that is said to be zero is not.
    """
    origin = graph.note(OnnxOrigin)
    if origin is None or ZEROS.encode() not in origin.header:
        return
    from onnx import ModelProto

    said = {p.key.removeprefix(ZEROS): p.value for p in ModelProto.FromString(origin.header).metadata_props
            if p.key.startswith(ZEROS)}  # fmt: skip
    for place in places(graph):
        text = said.get(origin.names.get(place.weight, place.weight))
        if text is not None:
            read(text, place.rows(graph.weights[place.weight]), f"{where}: weight '{place.weight}'")
