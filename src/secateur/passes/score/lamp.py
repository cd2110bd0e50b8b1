"""LAMP: Lee, Park, Mo, Ahn and Shin, "Layer-adaptive Sparsity for the Magnitude-based Pruning", ICLR 2021."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Array, Graph
from secateur.passes.notes import Importance

from .criterion import OfWeights
from .positions import domains
from .slots import coupling_of, weight_scores


@dataclass(frozen=True)
class LAMP(OfWeights):
    """Squared norm of a channel's filters over that of all channels of its layer that are no smaller (Lee et al. 2021).

    The paper's equation 1, of channels in the place of single weights: the score bounds what the output loses if all
    smaller ones are gone already, so that layers compare. The largest of a layer scores 1 and is never the first to go.
    """

    name: ClassVar[str] = "lamp"

    def __call__(self, graph: Graph) -> Graph:
        coupling = coupling_of(graph, self.name)
        found = weight_scores(graph, self.name, squares)
        scores = found.copy()
        for _, units in domains(coupling):
            known = units[~np.isnan(found[units])]
            scores[known] = shares_of_rest(found[known])
        return graph.with_note(Importance(scores, self.name))


def squares(rows: Array) -> Array:
    """f64[rows]: the squared Euclidean norm of each row."""
    result: Array = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    return result


def shares_of_rest(values: Array) -> Array:
    """f64[n]: each value over the sum of itself and of those after it in rising order; 0 where all of them are 0."""
    order = np.argsort(values, kind="stable")
    rest = np.cumsum(values[order][::-1])[::-1]
    result = np.zeros(len(values))
    result[order] = np.divide(values[order], rest, out=np.zeros(len(values)), where=rest > 0)
    return result
