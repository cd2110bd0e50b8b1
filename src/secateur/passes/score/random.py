"""Random scores: the baseline that any criterion must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Graph
from secateur.passes.notes import Importance

from .criterion import OfWeights
from .slots import coupling_of


@dataclass(frozen=True)
class Random(OfWeights):
    """Uniform random scores from a seed: the baseline (Mittal et al., "Recovering from Random Pruning", WACV 2018)."""

    name: ClassVar[str] = "random"
    unscored: ClassVar[str] = ""
    seed: int = 0

    def __call__(self, graph: Graph) -> Graph:
        size = coupling_of(graph, self.name).size
        return graph.with_note(Importance(np.random.default_rng(self.seed).random(size), f"random{{seed={self.seed}}}"))
