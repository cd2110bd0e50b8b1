"""APoZ: Hu, Peng, Tai and Tang, "Network Trimming: A Data-Driven Neuron Pruning Approach", 2016."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Array, Graph, InputError
from secateur.passes.notes import Importance
from secateur.passes.sweep.needs import Examples, ExampleSums
from secateur.passes.sweep.read_sites import outputs_of, units_at

from .positions import domains, mean_by_unit
from .slots import coupling_of, statistics_of


@dataclass(frozen=True)
class APoZ:
    """Average percentage of zeros after a ReLU (network trimming, Hu et al. 2016): often zero means not needed.

    The paper removes a channel where its APoZ exceeds the layer's mean by more than one standard deviation
    (population). Scores are (mean + deviation - APoZ) / deviation: negative exactly for those, and comparable between
    layers. Channels without a ReLU have no score and stay.
    """

    name: ClassVar[str] = "apoz"
    data: ClassVar[bool] = True
    unscored: ClassVar[str] = "no ReLU follows it, so zeros mean nothing"

    def needs(self, graph: Graph) -> tuple[Examples, ...]:
        found = outputs_of(graph, coupling_of(graph, self.name), ("relu", "clip"))
        return tuple(Examples(site) for site in found if graph.producer[site.node].attrs.get("min", 0) == 0)

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError where no channel of the graph passes through a ReLU."""
        coupling, needs = coupling_of(graph, self.name), self.needs(graph)
        if coupling.size and not needs:
            raise InputError(
                f"criterion 'apoz' counts zeros after ReLUs, and no channel of '{graph.name}' passes through one; "
                "use taylor or l1"
            )
        parts = []
        for need in needs:
            sums = statistics_of(graph, self.name).of(need, ExampleSums)
            parts.append((units_at(graph, coupling, need.site)[1], sums.zeros / max(sums.count, 1)))
        shares = mean_by_unit(coupling.size, parts)
        scores = np.full(coupling.size, np.nan)
        for _, units in domains(coupling):
            known = units[~np.isnan(shares[units])]
            scores[known] = margin(shares[known])
        return graph.with_note(Importance(scores, self.name))


def margin(shares: Array) -> Array:
    """How many standard deviations each share lies below the trimming threshold; 1 where all are equal."""
    deviation = float(shares.std()) if len(shares) else 0.0
    if deviation <= 1e-12:  # equal but for rounding
        return np.ones(len(shares))
    result: Array = (shares.mean() + deviation - shares) / deviation
    return result
