"""Group norms of SSL: Wen et al., "Learning Structured Sparsity in Deep Neural Networks", NIPS 2016."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from secateur.ir import Array, Graph, InputError
from secateur.passes.notes import Importance

from .criterion import OfWeights
from .l2 import euclidean
from .slots import coupling_of, mean_over_slots

ROLES = {"filter": ("out",), "channel": ("in",), "both": ("out", "in")}


@dataclass(frozen=True)
class GroupLasso(OfWeights):
    """Euclidean norms of the groups that structured sparsity learning drives to zero (Wen et al. 2016).

    ``groups``: "filter" W[n] of the producers, "channel" W[:, c] of the readers, "both" adds them up, as the paper
    trains with both. Train with the penalty first; a group at exactly zero goes first. Norms are divided by the
    layer's mean, which changes no ranking inside it. Shape-wise groups and whole layers are not channels: not here.
    """

    name: ClassVar[str] = "group_lasso"
    groups: Literal["filter", "channel", "both"] = "both"

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError for an unknown kind of groups."""
        if self.groups not in ROLES:
            raise InputError(f"group_lasso{{groups={self.groups}}}: groups is one of {', '.join(ROLES)}")
        coupling = coupling_of(graph, self.name)
        found: list[Array] = []
        for role in ROLES[self.groups]:
            slots = [s for s in coupling.slots if s.role == role and graph.weights[s.weight].ndim > 1]
            found.append(mean_over_slots(graph, slots, coupling.size, euclidean, normalise=True))
        known = ~np.isnan(found).all(axis=0)
        scores = np.where(known, np.nansum(found, axis=0), np.nan)
        return graph.with_note(Importance(scores, self.name))
