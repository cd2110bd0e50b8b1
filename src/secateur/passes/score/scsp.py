"""SCSP: Zhuo et al., "SCSP: Spectral Clustering Filter Pruning with Soft Self-adaption Manners", 2018."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from secateur.ir import Array, Graph, InputError
from secateur.passes.notes import Coupling, Importance

from .clusters import gaussian_affinity, spectral_clusters
from .criterion import OfWeights
from .l2 import euclidean
from .positions import domains, over_mean
from .slots import FLOATS, coupling_of, position_rows, weight_scores

MOST_COLUMNS = 4096  # longer descriptors are projected to this length, which keeps distances


@dataclass(frozen=True)
class SCSP(OfWeights):
    """Filters in clusters of incoming and outgoing weights (after SCSP, Zhuo et al. 2018; details are our reading).

    ``mode`` "drop_group" removes whole clusters, those of the least mean norm first, the last one as far as the budget
    asks (the paper stops before it); "keep_representative" keeps the
    largest of every cluster longest. ``clusters`` is their number as a share of the channels. The paper repeats it
    every epoch and lets removed filters come back: compile between epochs for that.
    """

    name: ClassVar[str] = "scsp"
    unscored: ClassVar[str] = "no floating weight produces it"
    mode: Literal["drop_group", "keep_representative"] = "drop_group"
    clusters: float = 0.25
    seed: int = 0

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError for an unknown mode or a senseless share."""
        if self.mode not in ("drop_group", "keep_representative") or not 0 < self.clusters <= 1:
            raise InputError(f"scsp{{mode={self.mode},clusters={self.clusters:g}}}: mode is drop_group or "
                             "keep_representative, clusters a share above 0")  # fmt: skip
        coupling = coupling_of(graph, self.name)
        norms = weight_scores(graph, self.name, euclidean)
        scores = np.full(coupling.size, np.nan)
        for _, units in domains(coupling):
            known = units[~np.isnan(norms[units])]
            if len(known) < 2:
                scores[known] = norms[known]
                continue
            affinity = gaussian_affinity(descriptors(graph, coupling, known))
            labels = spectral_clusters(affinity, max(1, round(self.clusters * len(known))), self.seed)
            scores[known] = cluster_scores(norms[known], labels, self.mode == "keep_representative")
        return graph.with_note(Importance(over_mean(coupling, scores), self.name))


def cluster_scores(norms: Array, labels: Array, representatives: bool) -> Array:
    """f64[c]: the mean norm of each channel's cluster, told apart inside it by the channel's own norm.

    With ``representatives`` the largest member of every cluster stands above all the others.
    """
    count = int(labels.max()) + 1
    effect = np.bincount(labels, norms, count) / np.maximum(np.bincount(labels, minlength=count), 1)
    own = norms / (float(norms.max()) or 1.0)
    result = effect[labels] + own * 1e-6 * (float(effect.max()) or 1.0)
    if representatives:
        result = norms.copy()
        top = float(norms.max()) or 1.0
        for label in range(count):
            members = np.flatnonzero(labels == label)
            if len(members):
                result[members[norms[members].argmax()]] += top
    return np.asarray(result)


def descriptors(graph: Graph, coupling: Coupling, units: Array) -> Array:
    """f64[len(units), d]: incoming and outgoing weights of each unit, each part over its mean norm in the domain."""
    place = np.full(coupling.size, -1, np.int64)
    place[units] = np.arange(len(units))
    parts = []
    for slot in coupling.slots:
        weight = graph.weights[slot.weight]
        here = np.where(slot.units >= 0, place[slot.units], -1)
        if slot.role == "tied" or weight.ndim < 2 or weight.dtype.name not in FLOATS or not (here >= 0).any():
            continue
        rows = position_rows(weight, slot).astype(np.float64)
        part = np.zeros((len(units), rows.shape[1]))
        np.add.at(part, here[here >= 0], rows[here >= 0])
        mean = float(np.sqrt((part**2).sum(1)).mean())
        parts.append(_short(part / mean if mean > 0 else part))
    return np.concatenate(parts, axis=1) if parts else np.zeros((len(units), 1))


def _short(part: Array) -> Array:
    """A long descriptor projected by a fixed random matrix (Johnson and Lindenstrauss 1984)."""
    columns = part.shape[1]
    if columns <= MOST_COLUMNS:
        return part
    projection = np.random.default_rng(0).standard_normal((columns, MOST_COLUMNS // 4)) / np.sqrt(MOST_COLUMNS // 4)
    return np.asarray(part @ projection)
