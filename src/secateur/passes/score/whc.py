"""WHC: Chen and Wang, "Weighted Hybrid Criterion for Filter Pruning on Convolutional Neural Networks", ICASSP 2023."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Array, Graph
from secateur.passes.notes import Importance

from .criterion import OfWeights
from .slots import weight_scores


@dataclass(frozen=True)
class WHC(OfWeights):
    """A filter's norm times what it differs from all others of its layer, each by its own norm (Chen and Wang 2023).

    |F_i| * sum over j of |F_j| (1 - |cos(F_i, F_j)|): small for filters that are short or point where long ones point,
    backwards too. Layers compare as in ``l1``.
    """

    name: ClassVar[str] = "whc"

    def __call__(self, graph: Graph) -> Graph:
        return graph.with_note(Importance(weight_scores(graph, self.name, weighted_differences), self.name))


def weighted_differences(rows: Array) -> Array:
    """f64[rows]: each row's norm times the sum of the others' norms by one less the absolute cosine between them."""
    x = rows.astype(np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", x, x))
    # |F_i| |F_j| (1 - |cos|) = |F_i| |F_j| - |F_i . F_j|, which is 0 with itself but for rounding.
    apart = np.maximum(norms[:, None] * norms[None, :] - np.abs(x @ x.T), 0.0)
    np.fill_diagonal(apart, 0.0)
    result: Array = apart.sum(axis=1)
    return result
