"""ThiNet: Luo, Wu and Lin, "ThiNet: A Filter Level Pruning Method for Deep Neural Network Compression", ICCV 2017."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Array, Graph
from secateur.passes.analysis.notes import Importance
from secateur.passes.sweep.needs import Need

from .positions import by_order
from .reconstruction import contributions, moment_needs
from .slots import coupling_of, statistics_of


@dataclass(frozen=True)
class ThiNet:
    """Order in which units leave when each step adds least to the error of the layers that read them (ThiNet, 2017).

    The greedy choice of the paper, exact over all sampled positions (Gram form) rather than over drawn outputs. A
    unit's score is the relative error that its removal adds, or the largest before it, so scores rise along the order
    and compare across layers.
    """

    name: ClassVar[str] = "thinet"
    data: ClassVar[bool] = True
    unscored: ClassVar[str] = "no convolution or linear layer of a size that fits into memory reads it"

    def needs(self, graph: Graph) -> tuple[Need, ...]:
        return moment_needs(graph, coupling_of(graph, self.name))

    def __call__(self, graph: Graph) -> Graph:
        coupling = coupling_of(graph, self.name)
        scores = np.full(coupling.size, np.nan)
        for part in contributions(graph, coupling, statistics_of(graph, self.name)).values():
            scores[part.units] = by_order(*removal_order(part.gram))
        return graph.with_note(Importance(scores, self.name))


def removal_order(gram: Array) -> tuple[Array, Array]:
    """(units in the order in which they go, what each adds to 1_T' G 1_T); ties go to the lower index.

    ``gram``: f64[c, c]. One step costs O(c): the increment of j is G[j, j] + 2 sum of G[j, T].
    """
    size = len(gram)
    cross, diagonal = np.zeros(size), np.diagonal(gram).copy()
    order, added = np.empty(size, np.int64), np.empty(size)
    for step in range(size):
        j = int(np.argmin(diagonal + cross))
        order[step], added[step] = j, diagonal[j] + cross[j]
        cross += 2 * gram[j]
        diagonal[j] = np.inf
    return order, added
