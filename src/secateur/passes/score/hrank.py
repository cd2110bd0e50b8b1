"""HRank: Lin, Ji, Wang, Zhang, Zhang, Tian and Shao, "HRank: Filter Pruning using High-Rank Feature Map", CVPR 2020."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Graph
from secateur.passes.notes import Importance
from secateur.passes.sweep.needs import Need, Ranks, ReadSite
from secateur.passes.sweep.read_sites import outputs_of, units_at

from .positions import mean_by_unit
from .slots import coupling_of, statistics_of

ACTIVATIONS = ("relu", "clip", "silu", "mish", "gelu", "elu", "leaky_relu", "prelu", "hard_swish", "softplus")
LAYERS = ("conv", "conv_transpose")


@dataclass(frozen=True)
class HRank:
    """Mean rank of a channel's feature map over the images (Lin et al. 2020): a map of low rank holds little.

    Measured after the activations, and after layers whose channels pass none; divided by the largest rank that a map
    of its size can have, so that layers compare (the paper ranks within a layer). Channels that are no pictures of at
    least 2 x 2 have no score and stay.
    """

    name: ClassVar[str] = "hrank"
    data: ClassVar[bool] = True
    unscored: ClassVar[str] = "it is not a picture"

    def needs(self, graph: Graph) -> tuple[Need, ...]:
        coupling = coupling_of(graph, self.name)
        after = [site for site in outputs_of(graph, coupling, ACTIVATIONS) if largest_rank(graph, site) > 1]
        seen = {unit for site in after for unit in units_at(graph, coupling, site)[1].tolist()}
        layers = [
            site
            for site in outputs_of(graph, coupling, LAYERS)
            if largest_rank(graph, site) > 1 and not seen.issuperset(units_at(graph, coupling, site)[1].tolist())
        ]
        return tuple(map(Ranks, (*after, *layers)))

    def __call__(self, graph: Graph) -> Graph:
        coupling, parts = coupling_of(graph, self.name), []
        for need in self.needs(graph):
            assert isinstance(need, Ranks)
            ranks = statistics_of(graph, self.name).of(need, np.ndarray)
            parts.append((units_at(graph, coupling, need.site)[1], ranks / largest_rank(graph, need.site)))
        return graph.with_note(Importance(mean_by_unit(coupling.size, parts), self.name))


def largest_rank(graph: Graph, site: ReadSite) -> int:
    """The smaller side of the pictures that a node puts out; 0 where they are none."""
    shape = graph.value(site.node).shape
    return int(min(shape[2:])) if len(shape) == 4 else 0
