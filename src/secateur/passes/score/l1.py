"""L1 norm of filters: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Array, Graph, InputError
from secateur.passes.notes import Coupling, Importance

from .criterion import OfWeights
from .positions import domains
from .slots import coupling_of, weight_scores, without_columns


@dataclass(frozen=True)
class L1(OfWeights):
    """Sum of absolute weights of a channel's filters (Li et al., ICLR 2017).

    A unit that several layers produce (a residual sum) gets the mean over them. The paper ranks inside a
    layer; to compare layers, each layer's norms are divided by their mean first, which leaves the ranking
    inside a layer as it was. ``greedy``: the paper's greedy mode, from the input to the output: the share of channels
    taken as removed in every layer when the next one is scored, so that their columns no longer count; 0 is the
    independent mode.
    """

    name: ClassVar[str] = "l1"
    greedy: float = 0.0

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError where ``greedy`` is not a share below 1."""
        if not 0 <= self.greedy < 1:
            raise InputError(f"l1{{greedy={self.greedy:g}}}: greedy is the share removed in every layer, from 0 to 99%")
        if self.greedy:
            return graph.with_note(Importance(_greedy(graph, self.name, self.greedy), f"l1{{greedy={self.greedy:g}}}"))
        return graph.with_note(Importance(weight_scores(graph, self.name, absolute), self.name))


def absolute(rows: Array) -> Array:
    """f64[rows]: the sum of absolute values of each row."""
    result: Array = np.abs(rows).sum(axis=1)
    return result


def _greedy(graph: Graph, criterion: str, share: float) -> Array:
    """Scores of one domain after the other, in the order in which the graph produces them."""
    coupling = coupling_of(graph, criterion)
    order = {n.name: i for i, n in enumerate(graph.nodes)}
    first = np.full(coupling.size, len(order))
    for slot in coupling.slots:
        if slot.role == "out":
            np.minimum.at(first, slot.units[slot.units >= 0], order[slot.node])
    scores, weights = np.full(coupling.size, np.nan), dict(graph.weights)
    for _, units in sorted(domains(coupling), key=lambda p: int(first[p[1]].min())):
        found = weight_scores(graph.rewrite(weights=weights, keep=(Coupling,)), criterion, absolute, units)
        scores[units] = found[units]
        ranked = units[np.argsort(np.nan_to_num(found[units], nan=np.inf), kind="stable")]
        gone = np.zeros(coupling.size, bool)
        gone[ranked[: int(share * len(ranked) + 1e-9)]] = True
        for slot in coupling.slots:
            if slot.role == "in" and gone[slot.units[slot.units >= 0]].any():
                weights[slot.weight] = without_columns(weights[slot.weight], slot, gone)
    return scores
