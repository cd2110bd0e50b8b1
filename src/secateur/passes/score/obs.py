"""OBS: Hassibi and Stork, "Second order derivatives for network pruning: Optimal Brain Surgeon", NeurIPS 1992.

On channels in place of single weights, and layer by layer: Dong, Chen and Pan, "Learning to Prune Deep Neural Networks
via Layer-wise Optimal Brain Surgeon", NeurIPS 2017; Frantar and Alistarh, "Optimal Brain Compression", NeurIPS 2022.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from secateur.ir import Array, Graph, InputError
from secateur.passes.notes import Coupling, Importance
from secateur.passes.sweep.needs import Moments, Need, Reach, Statistics
from secateur.passes.sweep.read_sites import units_at

from .measured import measured
from .positions import by_order, domains
from .reconstruction import moment_needs
from .slots import coupling_of, statistics_of

STEPS = 128  # a domain of more units loses several at a time, in about so many steps
SHRUNK = 0.8  # matrices are copied without what is gone when less than this share of their columns is left


@dataclass(frozen=True)
class OBS:
    """Order in which units leave when each step costs the layers that read them least, best repaired (OBS).

    Of a reader with weights W and second moments H of its unfolded input, leaving out the columns T and moving all
    other columns to where they make up for them best costs tr(W_T (H^-1_TT)^-1 W_T'), and leaves W - W_T (H^-1_TT)^-1
    H^-1_T and the H^-1 of what remains: the next step is taken from there. So two channels that say the same are worth
    little until one of them has left. The costs of a unit's readers are added up, each as a share of what the reader's
    output varies by; a reader with a bias is spared the means. A unit's score is what its step costs, or the largest
    before it. ``ridge`` is that of ``refit``, which makes these repairs on the network: a share of the mean moment.

    ``of`` "outputs": what a reader gets wrong counts by how far it moves the network's outputs, channel by channel
    (``Reach``), in place of by what the reader's own output varies by, and the sums of the scores are measured
    (``measured``). Then costs of layers compare, and an allocation that adds them up (``knapsack{loss=sum}``) spends
    its budget where it shows. It takes a few runs backwards, and some of each set of channels on ``EXAMPLES`` examples.
    """

    name: ClassVar[str] = "obs"
    data: ClassVar[bool] = True
    unscored: ClassVar[str] = "no convolution or linear layer of a size that fits into memory reads it"
    ridge: float = 1e-2
    of: Literal["layers", "outputs"] = "layers"

    def needs(self, graph: Graph) -> tuple[Need, ...]:
        """Second moments of what readers read, and how far their errors reach."""
        moments = moment_needs(graph, coupling_of(graph, self.name))
        return (*moments, *(Reach(need.site.node) for need in moments if self.of == "outputs"))

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError where ``ridge`` is not above 0, or ``of`` is neither."""
        if not self.ridge > 0:
            raise InputError(f"obs{{ridge={self.ridge:g}}}: give a number above 0")
        if self.of not in ("layers", "outputs"):
            raise InputError(f"obs{{of={self.of}}}: layers or outputs")
        coupling, statistics = coupling_of(graph, self.name), statistics_of(graph, self.name)
        scores = np.full(coupling.size, np.nan)
        for number, units in domains(coupling):
            readers = [r for r in self._readers(graph, coupling, statistics, number) if r.energy > 0]
            read = np.isin(units, np.concatenate([r.units for r in readers])) if readers else np.zeros(len(units), bool)
            if readers:
                scores[units[read]] = by_order(*removal(units[read], readers))
            elif _is_read(graph, coupling, number):
                scores[units] = by_order(np.arange(len(units)), np.zeros(len(units)))
        if self.of == "outputs":
            scores = measured(graph, coupling, statistics, scores, self.ridge)
        return graph.with_note(Importance(scores, self.name))

    def _readers(self, graph: Graph, coupling: Coupling, statistics: Statistics, domain: int) -> Iterator[Reader]:
        """Every group of every layer that reads units of a domain."""
        for need in moment_needs(graph, coupling):
            _, units = units_at(graph, coupling, need.site)
            node = graph.producer[need.site.node]
            mine = np.where((units >= 0) & (coupling.domain[units] == domain) & ~coupling.frozen[units], units, -1)
            if (mine < 0).all():
                continue
            moments = statistics.of(need, Moments)
            weight = graph.weights[node.inputs[1] or ""].astype(np.float64)
            weight = weight.T if node.attrs.get("transposed", False) else weight
            groups, columns = moments.first.shape
            second, means = moments.second / max(moments.rows, 1), moments.first / max(moments.rows, 1)
            reach = statistics.of(Reach(node.name), np.ndarray) if self.of == "outputs" else None
            if reach is not None:
                weight = weight * np.sqrt(reach).reshape(-1, *(1,) * (weight.ndim - 1))
            for g, w in enumerate(weight.reshape(groups, -1, columns)):
                row = mine.reshape(groups, -1)[g]
                if (row >= 0).any():
                    centre = means[g] if len(node.inputs) > 2 and node.inputs[2] is not None else None
                    found = Reader.of(np.repeat(row, moments.taps), second[g], w, centre, self.ridge)
                    yield found if reach is None or not found.energy > 0 else dataclasses.replace(found, energy=1.0)


@dataclass(eq=False)
class Reader:
    """One layer, or one of its groups, while units leave.

    ``units`` i64[columns]: whose each column is, -1 for what stays; ``inverse`` f64[columns, columns]: that of the
    damped second moments; ``weight`` f64[outputs, columns], moved to make up for what has left; ``energy``: the mean
    square of the outputs, of what varies if there is a bias.
    """

    units: Array
    inverse: Array
    weight: Array
    energy: float

    @staticmethod
    def of(units: Array, second: Array, weight: Array, means: Array | None, ridge: float) -> Reader:
        """A reader that has lost nothing. ``means``: of its inputs, where it has a bias."""
        scale = float(np.trace(second)) / len(second)
        seen = second if means is None else second - np.outer(means, means)
        energy = float(np.einsum("oc,cd,od->", weight, seen, weight, optimize=True))
        damped = seen + max(ridge * scale, 1e-12) * np.eye(len(second))
        return Reader(units, np.linalg.inv(damped), weight.copy(), energy)

    def costs(self, size: int) -> Array:
        """f64[size]: what the removal of each unit alone costs, of ``energy``; units are numbered below ``size``."""
        found = np.zeros(size)
        order = np.argsort(self.units, kind="stable")
        order = order[self.units[order] >= 0]
        names, starts = np.unique(self.units[order], return_index=True)
        width = np.diff([*starts, len(order)])
        for k in np.unique(width):  # units of as many columns at once
            at = starts[width == k]
            columns = order[at[:, None] + np.arange(k)]  # [units, k]
            blocks = self.inverse[columns[:, :, None], columns[:, None, :]]
            w = self.weight[:, columns].transpose(1, 2, 0)  # [units, k, outputs]
            found[names[width == k]] = np.einsum("uko,uko->u", w, np.linalg.solve(blocks, w))
        return found / self.energy

    def remove(self, gone: Array) -> None:
        """Take out the columns of these units and move the others to where they make up best."""
        t = np.isin(self.units, gone)
        if not t.any():
            return
        left = np.linalg.solve(self.inverse[np.ix_(t, t)], self.inverse[t])  # (H^-1_TT)^-1 H^-1_T
        self.weight -= self.weight[:, t] @ left
        self.inverse -= self.inverse[:, t] @ left
        self.units = np.where(t, -2, self.units)
        if np.mean(self.units > -2) < SHRUNK:
            keep = self.units > -2
            self.units, self.weight = self.units[keep], self.weight[:, keep]
            self.inverse = self.inverse[np.ix_(keep, keep)]


def removal(units: Array, readers: Sequence[Reader]) -> tuple[Array, Array]:
    """(places in ``units`` in the order in which they leave, what each step costs); ties go to the lower index.

    Where several leave at once, each costs its share of what it would cost alone.
    """
    size = int(units.max()) + 1
    left, order, added = np.ones(len(units), bool), list[int](), list[float]()
    some = max(1, len(units) // STEPS)
    while left.any():
        costs = sum((r.costs(size) for r in readers), np.zeros(size))[units]
        costs[~left] = np.inf
        taken = np.argsort(costs, kind="stable")[: min(some, int(left.sum()))]
        for reader in readers:
            reader.remove(units[taken])
        order += taken.tolist()
        added += costs[taken].tolist()
        left[taken] = False
    return np.array(order, np.int64), np.array(added)


def _is_read(graph: Graph, coupling: Coupling, domain: int) -> bool:
    """Does a layer that is measured read the domain? Then it reads nothing but constants there."""
    sites = (units_at(graph, coupling, need.site)[1] for need in moment_needs(graph, coupling))
    return any(bool(((u >= 0) & (coupling.domain[u] == domain)).any()) for u in sites)
