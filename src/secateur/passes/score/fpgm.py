"""FPGM: He et al., "Filter Pruning via Geometric Median for Deep CNNs Acceleration", CVPR 2019."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Array, Graph
from secateur.passes.notes import Importance

from .criterion import OfWeights
from .slots import weight_scores


@dataclass(frozen=True)
class FPGM(OfWeights):
    """Sum of the distances from a filter to all others of its layer (FPGM, He et al. 2019): the nearest to the
    geometric median can be replaced by the rest. A control that looks at weights alone; layers compare as in ``l1``.
    """

    name: ClassVar[str] = "fpgm"

    def __call__(self, graph: Graph) -> Graph:
        return graph.with_note(Importance(weight_scores(graph, self.name, distances), self.name))


def distances(rows: Array) -> Array:
    """f64[rows]: the sum of Euclidean distances to the other rows."""
    x = rows.astype(np.float64)
    squares = np.einsum("ij,ij->i", x, x)
    gaps = np.maximum(squares[:, None] + squares[None, :] - 2 * (x @ x.T), 0.0)
    np.fill_diagonal(gaps, 0.0)
    result: Array = np.sqrt(gaps).sum(axis=1)
    return result
