"""What ``sparsify`` did, for the report: a note on the graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from secateur.ir import Graph


@dataclass(frozen=True)
class SparseRow:
    """The share of zeros in a layer's weight."""

    layer: str
    weight: str
    sparsity: float


@dataclass(frozen=True)
class Sparsified:
    """The pattern as ``--block`` spells it, and a row for each weight that lost something."""

    block: str
    rows: tuple[SparseRow, ...]


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
