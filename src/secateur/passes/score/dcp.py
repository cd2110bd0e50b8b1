"""DCP: Zhuang et al., "Discrimination-aware Channel Pruning for Deep Neural Networks", NeurIPS 2018."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Array, Graph, InputError
from secateur.passes.notes import Importance
from secateur.passes.sweep.needs import Gates, GateSums, Need

from .positions import by_order
from .reconstruction import contributions, moment_needs
from .slots import coupling_of, statistics_of


@dataclass(frozen=True)
class DCP:
    """Channels selected by the gradient of a reconstruction and a discrimination loss (DCP, Zhuang et al. 2018).

    Greedy: the channel whose gate has the largest derivative joins, then the gates of all that joined are solved for
    anew (least squares, exact in Gram form). The paper trains a classifier after every stage for its second loss;
    here it is the network's own loss, by the root mean square of its derivatives by the gates, so no label and no
    training is needed. ``discrimination`` weighs it (the paper's lambda).
    """

    name: ClassVar[str] = "dcp"
    data: ClassVar[bool] = True
    unscored: ClassVar[str] = "no convolution or linear layer of a size that fits into memory reads it"
    discrimination: float = 1.0

    def needs(self, graph: Graph) -> tuple[Need, ...]:
        return (*moment_needs(graph, coupling_of(graph, self.name)), Gates())

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError for a negative weight."""
        if self.discrimination < 0:
            raise InputError(f"dcp{{discrimination={self.discrimination:g}}}: give 0 or more")
        coupling, statistics = coupling_of(graph, self.name), statistics_of(graph, self.name)
        gates = statistics.of(Gates(), GateSums)
        sensitivity = np.sqrt(gates.squares / max(gates.examples, 1.0))
        scores = np.full(coupling.size, np.nan)
        for part in contributions(graph, coupling, statistics).values():
            own = sensitivity[part.units]
            norm = float(np.sqrt((own**2).mean())) if len(own) else 0.0
            bonus = own / norm * self.discrimination if norm > 0 else np.zeros(len(own))
            order, gain = selection_order(part.gram, part.target, bonus, part.energy)
            scores[part.units] = by_order(order[::-1], gain[::-1])
        return graph.with_note(Importance(scores, self.name))


def selection_order(gram: Array, target: Array, bonus: Array, energy: float) -> tuple[Array, Array]:
    """(channels in the order in which they join, how much each lowers the error as a share of ``energy``).

    Each round takes the channel with the largest abs(<A_j, residual>) over the largest at the start, plus ``bonus``,
    then solves the factors of all that joined. One column of a Cholesky factor a round updates them: O(c^2).
    """
    size = len(gram)
    energy = energy if energy > 0 else 1.0
    scale = float(np.abs(target).max()) or 1.0
    lower = np.zeros((size, size))  # rows of the Cholesky factor of gram[order][:, order]
    solved = np.zeros(size)  # lower^-1 target[order]
    projected = np.zeros((size, size))  # lower^-1 gram[order, :]: what each new direction explains of every channel
    residual = target.astype(np.float64).copy()
    left = np.ones(size, bool)
    order, gain = np.empty(size, np.int64), np.empty(size)
    ridge = 1e-9 * float(np.trace(gram)) / max(size, 1)
    for step in range(size):
        wish = np.where(left, np.abs(residual) / scale + bonus, -np.inf)
        j = int(wish.argmax())
        past = projected[:step, j]
        pivot = np.sqrt(max(float(gram[j, j]) + ridge - float(past @ past), 1e-300))
        lower[step, :step], lower[step, step] = past, pivot
        projected[step] = (gram[j] - past @ projected[:step]) / pivot
        solved[step] = (target[j] - past @ solved[:step]) / pivot
        residual -= projected[step] * solved[step]
        order[step], gain[step], left[j] = j, solved[step] ** 2 / energy, False
    return order, gain
