"""Entropy: Luo and Wu, "An Entropy-based Pruning Method for CNN Compression", 2017."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from secateur.ir import Array, Graph, InputError
from secateur.passes.notes import Importance
from secateur.passes.sweep.needs import Need, Pooled
from secateur.passes.sweep.read_sites import read_sites, units_at

from .positions import mean_by_unit
from .slots import coupling_of, statistics_of


@dataclass(frozen=True)
class Entropy:
    """Entropy of a channel's mean activation over the images (Luo and Wu 2017): what hardly varies says little.

    Measured where a layer reads the channel, after the activation. ``bins`` 0 takes a tenth of the images, 2 to 100;
    ``range``: bins between each channel's own extremes (the paper), or between the layer's ("shared", so that a channel
    that hardly moves scores low). Divided by its largest value, the logarithm of the bins.
    """

    name: ClassVar[str] = "entropy"
    data: ClassVar[bool] = True
    unscored: ClassVar[str] = "no layer reads it"
    bins: int = 0
    range: Literal["per_channel", "shared"] = "per_channel"

    def needs(self, graph: Graph) -> tuple[Need, ...]:
        return tuple(map(Pooled, read_sites(graph, coupling_of(graph, self.name))))

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError for bins below 2, or an unknown range."""
        if self.bins == 1 or self.bins < 0 or self.range not in ("per_channel", "shared"):
            raise InputError(f"entropy{{bins={self.bins},range={self.range}}}: give 2 bins or more (0 chooses), and "
                             "range per_channel or shared")  # fmt: skip
        coupling, statistics = coupling_of(graph, self.name), statistics_of(graph, self.name)
        bins = self.bins or min(100, max(2, statistics.examples // 10))
        parts = []
        for need in self.needs(graph):
            assert isinstance(need, Pooled)
            pooled = statistics.of(need, np.ndarray)
            _, units = units_at(graph, coupling, need.site)
            parts.append((units, entropies(pooled, bins, self.range == "shared") / np.log(bins)))
        return graph.with_note(Importance(mean_by_unit(coupling.size, parts), self.name))


def entropies(pooled: Array, bins: int, shared: bool = False) -> Array:
    """f64[channels]: entropy (natural logarithm) of each column's histogram; 0 for a constant one.

    ``pooled``: [images, channels]. The last bin includes its right edge.
    """
    x = pooled.astype(np.float64)
    low, high = (x.min(), x.max()) if shared else (x.min(0), x.max(0))
    width = np.where(high > low, high - low, 1.0)
    index = np.minimum(((x - low) / width * bins).astype(np.int64), bins - 1)
    counts = np.zeros((bins, x.shape[1]))
    np.add.at(counts, (index, np.arange(x.shape[1])), 1.0)
    p = counts / max(len(x), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(-np.where(p > 0, p * np.log(p), 0.0).sum(0) + 0.0)
