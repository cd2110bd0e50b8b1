"""SNIP: Lee, Ajanthan and Torr, "SNIP: Single-shot Network Pruning based on Connection Sensitivity", ICLR 2019."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Array, Graph
from secateur.passes.notes import Coupling, Importance
from secateur.passes.sweep.needs import Need, WeightGradients

from .positions import mean_by_unit
from .slots import FLOATS, coupling_of, position_norms, statistics_of


@dataclass(frozen=True)
class SNIP:
    """Connection sensitivity summed over a channel's filters (SNIP, Lee et al. 2019): abs(weight * gradient).

    Absolute values are summed, not the signed products: after a batch norm that learns its statistics the signed sum
    of a filter is zero. A channel that several layers produce gets the mean over them. Shares of the whole network:
    where each channel has one producer, they add up to 1, and layers compare.
    """

    name: ClassVar[str] = "snip"
    data: ClassVar[bool] = True
    unscored: ClassVar[str] = "no floating weight produces it"

    def needs(self, graph: Graph) -> tuple[Need, ...]:
        return tuple(map(WeightGradients, _weights(graph, coupling_of(graph, self.name))))

    def __call__(self, graph: Graph) -> Graph:
        coupling, statistics = coupling_of(graph, self.name), statistics_of(graph, self.name)
        weights = _weights(graph, coupling)
        products = {n: graph.weights[n] * statistics.of(WeightGradients(n), np.ndarray) for n in weights}
        total = sum(float(np.abs(p).sum()) for p in products.values()) or 1.0
        parts = [
            (slot.units, position_norms(products[slot.weight], slot, _sum) / total)
            for slot in coupling.slots if slot.role == "out" and slot.weight in products
        ]  # fmt: skip
        return graph.with_note(Importance(mean_by_unit(coupling.size, parts), self.name))


def _sum(rows: Array) -> Array:
    result: Array = np.abs(rows).sum(axis=1)
    return result


def _weights(graph: Graph, coupling: Coupling) -> list[str]:
    names = dict.fromkeys(s.weight for s in coupling.slots if s.role == "out" and graph.weights[s.weight].ndim > 1)
    return [n for n in names if graph.weights[n].dtype.name in FLOATS]
