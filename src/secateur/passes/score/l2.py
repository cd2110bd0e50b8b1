"""L2 norm of filters: the Euclidean variant that Li et al. (ICLR 2017) compare with L1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Array, Graph
from secateur.passes.notes import Importance

from .criterion import OfWeights
from .slots import weight_scores


@dataclass(frozen=True)
class L2(OfWeights):
    """Euclidean norm of a channel's filters (the variant of Li et al., ICLR 2017).

    Several producers and several layers are treated as in ``l1``.
    """

    name: ClassVar[str] = "l2"

    def __call__(self, graph: Graph) -> Graph:
        return graph.with_note(Importance(weight_scores(graph, self.name, euclidean), self.name))


def euclidean(rows: Array) -> Array:
    """f64[rows]: the Euclidean norm of each row."""
    result: Array = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return result
