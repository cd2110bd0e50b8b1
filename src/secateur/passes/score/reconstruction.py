"""What each unit contributes to the layers that read it, as one small matrix a domain: the Gram form.

With A_j the part of a layer's output that comes from input channel j, over all samples, the squared error of leaving
out a set T is 1_T' G 1_T with G[i, j] = <A_i, A_j>. G follows from the second moments S of the unfolded input and the
weights alone: the sum over the taps of blocks of S * (W'W). No sampling of outputs, no tensor of all contributions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Array, Graph
from secateur.passes.notes import Coupling, Importance
from secateur.passes.sweep.needs import InputMoments, Moments, Need, ReadSite, Statistics
from secateur.passes.sweep.read_sites import consumers, units_at, window

from .slots import coupling_of, statistics_of

MOST_COLUMNS = 9216  # second moments of wider inputs (a flattened picture before a linear layer) take too much memory


class OfReaders:
    """What criteria have in common that score a domain from what it contributes to its readers, by ``scores_of``."""

    name: ClassVar[str]
    data: ClassVar[bool] = True
    unscored: ClassVar[str] = "no convolution or linear layer of a size that fits into memory reads it"

    def needs(self, graph: Graph) -> tuple[Need, ...]:
        """Second moments of what readers read."""
        return moment_needs(graph, coupling_of(graph, self.name))

    def scores_of(self, part: Contributions) -> Array:
        """f64[units of the domain]."""
        raise NotImplementedError

    def __call__(self, graph: Graph) -> Graph:
        coupling = coupling_of(graph, self.name)
        scores = np.full(coupling.size, np.nan)
        for part in contributions(graph, coupling, statistics_of(graph, self.name)).values():
            scores[part.units] = self.scores_of(part)
        return graph.with_note(Importance(scores, self.name))


@dataclass(frozen=True, eq=False)
class Contributions:
    """Of one domain: ``units`` in rising order, and ``gram`` f64[u, u].

    Several readers are added up, each divided by its own <Y, Y>, with Y what it computes from all its inputs, without
    bias: the numbers are relative errors. ``energy`` is the number of readers (groups count by their share of <Y, Y>).
    """

    units: Array
    gram: Array
    energy: float

    @property
    def target(self) -> Array:
        """f64[u] = <A_j, sum of A over the domain>: what is to be explained. Channels of others stay as they are."""
        result: Array = self.gram.sum(1)
        return result


def reading(graph: Graph, coupling: Coupling) -> tuple[ReadSite, ...]:
    """The readers whose inputs' second moments fit into memory."""
    found = []
    for site in consumers(graph, coupling):
        _, units = units_at(graph, coupling, site)
        groups, taps = window(graph, site)
        if len(units) // groups * taps <= MOST_COLUMNS:
            found.append(site)
    return tuple(found)


def moment_needs(graph: Graph, coupling: Coupling) -> tuple[InputMoments, ...]:
    """What ``contributions`` asks the sweep for."""
    return tuple(InputMoments(site) for site in reading(graph, coupling))


def contributions(graph: Graph, coupling: Coupling, statistics: Statistics) -> dict[int, Contributions]:
    """By domain; domains that no such layer reads are left out, and where it reads nothing but zeros, all is 0."""
    place = np.full(coupling.size, -1, np.int64)
    members: dict[int, Array] = {}
    for domain in np.unique(coupling.domain[~coupling.frozen]).tolist():
        units = np.flatnonzero((coupling.domain == domain) & ~coupling.frozen)
        members[domain] = units
        place[units] = np.arange(len(units))
    grams = {p: np.zeros((len(u), len(u))) for p, u in members.items()}
    energies = dict.fromkeys(members, 0.0)
    read: set[int] = set()
    for need in moment_needs(graph, coupling):
        _, units = units_at(graph, coupling, need.site)
        blocks = channel_gram(graph, need.site, statistics.of(need, Moments))
        energy = float(blocks.sum())
        energy = energy if energy > 0 else 1.0
        for block, row in zip(blocks / energy, units.reshape(len(blocks), -1), strict=True):
            live = (row >= 0) & (place[row] >= 0)
            for domain in np.unique(coupling.domain[row[live]]).tolist():
                mine = live & (coupling.domain[row] == domain)
                at = place[row[mine]]
                np.add.at(grams[domain], (at[:, None], at[None, :]), block[np.ix_(mine, mine)])
                energies[domain] += float(block.sum())
                read.add(domain)
    return {p: Contributions(members[p], grams[p], energies[p]) for p in sorted(read)}


def channel_gram(graph: Graph, site: ReadSite, moments: Moments) -> Array:
    """f64[groups, c, c]: <A_i, A_j> over the input channels of each group of the layer that reads a site."""
    node = graph.producer[site.node]
    weight = graph.weights[node.inputs[1] or ""].astype(np.float64)
    if node.attrs.get("transposed", False):
        weight = weight.T
    groups, columns = moments.first.shape
    w = weight.reshape(groups, weight.shape[0] // groups, columns)

    def summed(strip: Array, start: int) -> Array:
        rows = strip.shape[1] * moments.taps
        product = w[:, :, start : start + rows].transpose(0, 2, 1) @ w[:, :, start:]
        result: Array = np.einsum("gitjs,gitjs->gij", strip, product.reshape(strip.shape))
        return result

    return moments.by_channel(summed)
