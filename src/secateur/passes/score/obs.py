"""OBS: Hassibi and Stork, "Second order derivatives for network pruning: Optimal Brain Surgeon", NeurIPS 1992.

On channels in place of single weights, and layer by layer: Dong, Chen and Pan, "Learning to Prune Deep Neural Networks
via Layer-wise Optimal Brain Surgeon", NeurIPS 2017; Frantar and Alistarh, "Optimal Brain Compression", NeurIPS 2022.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from secateur.ir import Array, Graph, InputError
from secateur.passes.notes import Coupling, Importance
from secateur.passes.sweep.needs import Moments, Need, Reach
from secateur.passes.sweep.read_sites import units_at

from .measured import measured
from .obs_reader import Reader, moments, removal
from .obs_swaps import Read
from .positions import by_order, domains
from .reconstruction import moment_needs
from .slots import coupling_of, statistics_of

# node, units of columns, second moments, weight [outputs, columns], means if there is a bias, energy if known
_Part = tuple[str, Array, Array, Array, Array | None, float | None]


@dataclass(frozen=True)
class OBS:
    """Order in which units leave when each step costs the layers that read them least, best repaired (OBS).

    Of a reader with weights W and second moments H of its unfolded input, leaving out the columns T and moving all
    other columns to where they make up for them best costs tr(W_T (H^-1_TT)^-1 W_T'), and leaves W - W_T (H^-1_TT)^-1
    H^-1_T and the H^-1 of what remains: the next step is taken from there. So two channels that say the same are worth
    little until one of them has left. The costs of a unit's readers are added up, each as a share of what the reader's
    output varies by; a reader with a bias is spared the means. A unit's score is what its step costs, or the largest
    before it. ``ridge`` is that of ``refit``, which makes these repairs on the network: a share of the mean moment.

    ``swaps``: after the allocation, as long as that costs less, a channel that went comes back and another goes in its
    place, each pair at its exact cost (``swap``): what leaves step by step is not the best to leave together. That
    takes about as long as the scores again, and hardly ever finds more than they did.

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
    swaps: bool = False

    def needs(self, graph: Graph) -> tuple[Need, ...]:
        """Second moments of what readers read, and how far their errors reach."""
        found = moment_needs(graph, coupling_of(graph, self.name))
        return (*found, *(Reach(need.site.node) for need in found if self.of == "outputs"))

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError where ``ridge`` is not above 0, or ``of`` is neither."""
        if not self.ridge > 0:
            raise InputError(f"obs{{ridge={self.ridge:g}}}: give a number above 0")
        if self.of not in ("layers", "outputs"):
            raise InputError(f"obs{{of={self.of}}}: layers or outputs")
        coupling, statistics = coupling_of(graph, self.name), statistics_of(graph, self.name)
        scores = np.full(coupling.size, np.nan)
        for number, units in domains(coupling):
            readers = [r for r in self._readers(graph, number) if r.energy > 0]
            read = np.isin(units, np.concatenate([r.units for r in readers])) if readers else np.zeros(len(units), bool)
            if readers:
                scores[units[read]] = by_order(*removal(units[read], readers))
            elif _is_read(graph, coupling, number):
                scores[units] = by_order(np.arange(len(units)), np.zeros(len(units)))
        if self.of == "outputs":
            scores = measured(graph, coupling, statistics, scores, self.ridge)
        return graph.with_note(Importance(scores, self.name))

    def reads(self, graph: Graph, domain: int) -> Iterator[Read]:
        """Every group of every layer that reads units of a domain, in float64, for ``swapped``."""
        yield from (read for _, read in self._reads(graph, domain))

    def by_reader(self, graph: Graph) -> Iterator[tuple[str, Read]]:
        """(node, each group of it) of every layer whose inputs were measured, with all units that it reads."""
        yield from self._reads(graph, None)

    def _reads(self, graph: Graph, domain: int | None) -> Iterator[tuple[str, Read]]:
        for node, units, second, weight, means, energy in self._parts(graph, domain):
            damped, own = moments(second, weight, means, self.ridge, np.float64)
            yield node, Read(units, damped, weight.T, energy if energy is not None and own > 0 else own)

    def _readers(self, graph: Graph, domain: int) -> Iterator[Reader]:
        for _, units, second, weight, means, energy in self._parts(graph, domain):
            found = Reader.of(units, second, weight, means, self.ridge)
            found.energy = energy if energy is not None and found.energy > 0 else found.energy
            yield found

    def _parts(self, graph: Graph, domain: int | None) -> Iterator[_Part]:
        """Of the units of a domain that may go, or of all units."""
        coupling, statistics = coupling_of(graph, self.name), statistics_of(graph, self.name)
        for need in moment_needs(graph, coupling):
            _, units = units_at(graph, coupling, need.site)
            node = graph.producer[need.site.node]
            free = (coupling.domain[units] == domain) & ~coupling.frozen[units]
            mine = units if domain is None else np.where((units >= 0) & free, units, -1)
            if (mine < 0).all():
                continue
            seen = statistics.of(need, Moments)
            weight = graph.weights[node.inputs[1] or ""].astype(np.float64)
            weight = weight.T if node.attrs.get("transposed", False) else weight
            groups, columns = seen.first.shape
            second, means = seen.second / max(seen.rows, 1), seen.first / max(seen.rows, 1)
            energy = None
            if self.of == "outputs":
                reach = statistics.of(Reach(node.name), np.ndarray)
                weight, energy = weight * np.sqrt(reach).reshape(-1, *(1,) * (weight.ndim - 1)), 1.0
            for g, w in enumerate(weight.reshape(groups, -1, columns)):
                row = mine.reshape(groups, -1)[g]
                if (row >= 0).any():
                    centre = means[g] if len(node.inputs) > 2 and node.inputs[2] is not None else None
                    yield node.name, np.repeat(row, seen.taps), second[g], w, centre, energy


def _is_read(graph: Graph, coupling: Coupling, domain: int) -> bool:
    """Does a layer that is measured read the domain? Then it reads nothing but constants there."""
    sites = (units_at(graph, coupling, need.site)[1] for need in moment_needs(graph, coupling))
    return any(bool(((u >= 0) & (coupling.domain[u] == domain)).any()) for u in sites)
