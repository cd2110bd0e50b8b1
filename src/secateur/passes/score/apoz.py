"""APoZ: Hu, Peng, Tai and Tang, "Network Trimming: A Data-Driven Neuron Pruning Approach", 2016."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Array, Graph, InputError
from secateur.passes.analysis.notes import Importance
from secateur.passes.sweep.needs import Examples, ExampleSums, Need
from secateur.passes.sweep.taps import outputs_of, units_at

from .positions import mean_by_unit, pools
from .slots import coupling_of, statistics_of


@dataclass(frozen=True)
class APoZ:
    """Average percentage of zeros behind a ReLU (network trimming, Hu et al. 2016): often zero means not needed.

    The paper removes a channel where its APoZ exceeds the layer's mean by more than one standard deviation
    (population). Scores are (mean + deviation - APoZ) / deviation: negative exactly for those, and comparable between
    layers. Channels without a ReLU have no score and stay.
    """

    name: ClassVar[str] = "apoz"
    data: ClassVar[bool] = True
    unscored: ClassVar[str] = "no ReLU follows it, so zeros mean nothing"

    def needs(self, graph: Graph) -> tuple[Need, ...]:
        return tuple(map(Examples, outputs_of(graph, coupling_of(graph, self.name), ("relu", "clip"))))

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError where no channel of the graph passes through a ReLU."""
        coupling, statistics = coupling_of(graph, self.name), statistics_of(graph, self.name)
        parts = []
        for need in self.needs(graph):
            assert isinstance(need, Examples)
            sums = statistics.of(need, ExampleSums)
            if sums.least.min() >= 0:  # a clip that lets negative numbers through is no ReLU
                parts.append((units_at(graph, coupling, need.tap)[1], sums.zeros / max(sums.count, 1)))
        shares = mean_by_unit(coupling.size, parts)
        if coupling.size and np.isnan(shares).all():
            raise InputError(
                f"criterion 'apoz' counts zeros behind ReLUs, and no channel of '{graph.name}' passes through one; "
                "use taylor or l1"
            )
        scores = np.full(coupling.size, np.nan)
        for _, units in pools(coupling):
            known = units[~np.isnan(shares[units])]
            scores[known] = margin(shares[known])
        return graph.with_note(Importance(scores, self.name))


def margin(shares: Array) -> Array:
    """How many standard deviations each share lies below the trimming threshold; 1 where all are equal."""
    deviation = float(shares.std()) if len(shares) else 0.0
    if deviation == 0:
        return np.ones(len(shares))
    result: Array = (shares.mean() + deviation - shares) / deviation
    return result
