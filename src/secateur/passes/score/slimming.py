"""BatchNorm scales: Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Array, Graph, InputError
from secateur.passes.notes import Importance

from .criterion import OfWeights
from .slots import coupling_of, mean_over_slots


@dataclass(frozen=True)
class Slimming(OfWeights):
    """Absolute BatchNorm scale of a channel (network slimming, Liu et al., ICCV 2017).

    Scales are compared between layers as they are, as the paper's global threshold does; train with an
    L1 penalty on them first. Channels without a BatchNorm have no score and stay.
    """

    name: ClassVar[str] = "slimming"
    unscored: ClassVar[str] = "no BatchNorm with a scale follows it"

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError where no channel of the graph has a BatchNorm scale."""
        coupling = coupling_of(graph, self.name)
        scales = {n.inputs[1] for n in graph.nodes if n.op == "batch_norm" and n.inputs[1] in graph.weights}
        slots = [s for s in coupling.slots if s.weight in scales]
        scores = mean_over_slots(graph, slots, coupling.size, _norm, normalise=False)
        if coupling.size and np.isnan(scores).all():
            raise InputError(
                f"criterion 'slimming' ranks channels by BatchNorm scales, and graph '{graph.name}' has none "
                "(they may be folded into the convolutions); use l1 or l2"
            )
        return graph.with_note(Importance(scores, self.name))


def _norm(rows: Array) -> Array:
    result: Array = np.abs(rows).sum(axis=1)
    return result
