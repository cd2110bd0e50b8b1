"""CCP: Peng et al., "Collaborative Channel Pruning for Deep Networks", ICML 2019."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Array, Graph, InputError
from secateur.passes.notes import Importance
from secateur.passes.sweep.needs import Gates, GateSums, Need

from .positions import by_order, domains
from .quadratic import greedy, solve
from .slots import coupling_of, statistics_of


@dataclass(frozen=True)
class CCP:
    """Channels chosen together by a quadratic programme on the loss (CCP, Peng et al. 2019).

    Removing the set d changes the loss by f(d) = -u'd + d'S d with u = mean of a and S = A'A / 2N, where a are the
    derivatives of each example's loss by a gate on every unit: after the batch norm, where they mean something. In
    every domain the programme is solved for the share ``keep`` that stays; those it removes leave first.
    ``first_order`` False drops u, for a network trained to its optimum.
    """

    name: ClassVar[str] = "ccp"
    data: ClassVar[bool] = True
    unscored: ClassVar[str] = "no layer reads it"
    keep: float = 0.5
    first_order: bool = True

    def needs(self, graph: Graph) -> tuple[Need, ...]:
        return (Gates(),)

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError where ``keep`` is not a share."""
        if not 0 < self.keep <= 1:
            raise InputError(f"ccp{{keep={self.keep:g}}}: keep is a share above 0, at most 1")
        coupling = coupling_of(graph, self.name)
        gates = statistics_of(graph, self.name).of(Gates(), GateSums)
        scores = np.full(coupling.size, np.nan)
        for domain, units in domains(coupling):
            u = gates.total[units] / gates.examples * float(self.first_order)
            s = gates.products[domain] / (2 * gates.examples)
            removed = solve(u, s, len(units) - max(1, round(self.keep * len(units))))
            scores[units] = by_order(*removal(u, s, removed))
        return graph.with_note(Importance(scores, self.name))


def removal(u: Array, s: Array, removed: Array) -> tuple[Array, Array]:
    """A removal order whose first members are the set ``removed`` (bool[c]), each step the cheapest, and its costs."""
    inside, cost_inside = greedy(u, s, np.flatnonzero(removed), np.zeros(0, np.int64))
    outside, cost_outside = greedy(u, s, np.flatnonzero(~removed), inside)
    # The set was chosen as a whole: it leaves before the rest even where single steps of the rest look cheaper.
    return np.concatenate([inside, outside]), np.concatenate([cost_inside, cost_outside])
