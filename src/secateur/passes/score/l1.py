"""L1 norm of filters: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Array, Graph
from secateur.passes.analysis.notes import Importance
from secateur.passes.sweep.needs import Need

from .slots import weight_scores


@dataclass(frozen=True)
class L1:
    """Sum of absolute weights of a channel's filters (Li et al., ICLR 2017).

    A unit that several layers produce (a residual sum) gets the mean over them. The paper ranks inside a
    layer; to compare layers, each layer's norms are divided by their mean first, which leaves the ranking
    inside a layer as it was.
    """

    name: ClassVar[str] = "l1"
    data: ClassVar[bool] = False
    unscored: ClassVar[str] = "no floating weight produces or consumes it"

    def needs(self, graph: Graph) -> tuple[Need, ...]:
        return ()

    def __call__(self, graph: Graph) -> Graph:
        return graph.with_note(Importance(weight_scores(graph, self.name, _norm), self.name))


def _norm(rows: Array) -> Array:
    result: Array = np.abs(rows).sum(axis=1)
    return result
