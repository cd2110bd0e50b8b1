"""Subspace clustering of feature maps: Wang et al., "Exploring Linear Relationship in Feature Map Subspace for ConvNets
Compression", 2018."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Array, Graph, InputError
from secateur.passes.notes import Coupling, Importance
from secateur.passes.sweep.needs import Moments, Need, Statistics
from secateur.passes.sweep.read_sites import units_at

from .clusters import spectral_clusters
from .positions import domains
from .reconstruction import moment_needs
from .slots import coupling_of, statistics_of

MANY, NEAREST, BLOCK = 256, 64, 256  # maps, terms that a map looks at beyond so many, columns solved at a time


@dataclass(frozen=True)
class Subspace:
    """Channels whose maps others span go first (after Wang et al. 2018; the coefficients are our reading).

    Every map is written as a sparse combination of the others (ridge-stabilised, from second moments alone), spectral
    clustering of the coefficients gives ``clusters`` (a share of the channels) subspaces, and in each the member that
    explains the others best stays longest. The rest are ordered by what of them the representatives cannot explain.
    ``refit`` folds what was removed into the readers, as the paper's second step does.
    """

    name: ClassVar[str] = "subspace"
    data: ClassVar[bool] = True
    unscored: ClassVar[str] = "no convolution or linear layer of a size that fits into memory reads it"
    clusters: float = 0.5
    sparsity: float = 0.1
    seed: int = 0

    def needs(self, graph: Graph) -> tuple[Need, ...]:
        return moment_needs(graph, coupling_of(graph, self.name))

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError for shares outside of 0 to 1."""
        if not (0 < self.clusters <= 1 and 0 <= self.sparsity < 1):
            raise InputError(f"subspace{{clusters={self.clusters:g},sparsity={self.sparsity:g}}}: both are shares")
        coupling, statistics = coupling_of(graph, self.name), statistics_of(graph, self.name)
        scores = np.full(coupling.size, np.nan)
        grams = map_grams(graph, coupling, statistics)
        for domain, units in domains(coupling):
            if domain in grams:
                scores[units] = map_scores(grams[domain], self.clusters, self.sparsity, self.seed)
        return graph.with_note(Importance(scores, self.name))


def map_grams(graph: Graph, coupling: Coupling, statistics: Statistics) -> dict[int, Array]:
    """By domain f64[u, u]: inner products of the units' maps, as their readers see them, over the mean energy."""
    place = np.full(coupling.size, -1, np.int64)
    sizes = {}
    for domain, units in domains(coupling):
        place[units] = np.arange(len(units))
        sizes[domain] = len(units)
    found: dict[int, Array] = {}
    for need in moment_needs(graph, coupling):
        moments = statistics.of(need, Moments)
        _, units = units_at(graph, coupling, need.site)
        groups, columns = moments.first.shape
        c = columns // moments.taps
        blocks = moments.by_channel(lambda strip, _: np.einsum("gatbt->gab", strip))  # the same tap of both channels
        energy = float(np.einsum("gaa->", blocks)) / (groups * c)
        energy = energy if energy > 0 else 1.0
        for block, row in zip(blocks / energy, units.reshape(groups, c), strict=True):
            live = (row >= 0) & (place[row] >= 0)
            for domain in np.unique(coupling.domain[row[live]]).tolist():
                mine = live & (coupling.domain[row] == domain)
                at = place[row[mine]]
                gram = found.setdefault(domain, np.zeros((sizes[domain], sizes[domain])))
                np.add.at(gram, (at[:, None], at[None, :]), block[np.ix_(mine, mine)])
    return found


def map_scores(gram: Array, share: float, sparsity: float, seed: int) -> Array:
    """f64[c]: representatives above 1; the others the share of their energy that representatives do not explain."""
    size = len(gram)
    energy = np.diagonal(gram).copy()
    scale = np.sqrt(np.maximum(energy, 0.0))
    alive = scale > 1e-8 * (float(scale.max()) if size else 1.0)
    scores = np.zeros(size)
    live = np.flatnonzero(alive)
    if len(live) < 2:
        scores[live] = 1.0
        return scores
    unit = gram[np.ix_(live, live)] / scale[live][:, None] / scale[live][None, :]
    coefficients = self_expression(unit, sparsity)
    labels = spectral_clusters(np.abs(coefficients) + np.abs(coefficients).T, max(1, round(share * size)), seed)
    kept = live[representatives(gram[np.ix_(live, live)], labels)]
    _, lost = fold(gram, kept, np.setdiff1d(live, kept))
    rest = np.setdiff1d(live, kept)
    scores[rest] = np.clip(lost / energy[rest], 0.0, 1.0)
    scores[kept] = 1.0 + energy[kept] / float(energy.max())
    return scores


def self_expression(unit: Array, sparsity: float, rounds: int = 200) -> Array:
    """f64[c, c]: column j writes map j as a sparse sum of the others: min |x_j - X z|^2 / 2 + mu |z|_1, z_j = 0.

    ``unit``: the Gram matrix of normalised maps; mu is ``sparsity`` times the largest correlation of column j. All
    columns at once by proximal gradient steps with momentum. Of more than 256 maps a column looks at the 64 that
    resemble it most, as sparse sums have few terms: O(c) rather than O(c^3) a step.
    """
    size = len(unit)
    if size > MANY:
        return _of_nearest(unit, sparsity, rounds)
    off = unit - np.diag(np.diagonal(unit))
    mu = sparsity * np.abs(off).max(0, keepdims=True)
    step = 1.0 / float(min(np.abs(unit).sum(1).max(), size))
    z = previous = np.zeros((size, size))
    momentum = 1.0
    for _ in range(rounds):
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        at = z + (momentum - 1) / following * (z - previous)
        previous, momentum = z, following
        z = at - step * (unit @ at - unit)
        z = np.sign(z) * np.maximum(np.abs(z) - step * mu, 0.0)
        np.fill_diagonal(z, 0.0)
        if np.abs(z - previous).max() < 1e-5:
            break
    return z


def _of_nearest(unit: Array, sparsity: float, rounds: int) -> Array:
    """``self_expression`` with the terms of each column restricted to its nearest; blocks of columns bound memory."""
    size = len(unit)
    off = np.abs(unit - np.diag(np.diagonal(unit))).astype(np.float32)
    np.fill_diagonal(off, -1.0)  # a map is not its own neighbour
    near = np.sort(np.argpartition(-off, NEAREST, axis=0)[:NEAREST].T, axis=1)  # [c, nearest]
    result = np.zeros((size, size))
    for start in range(0, size, BLOCK):
        mine = np.arange(start, min(start + BLOCK, size))
        at = near[mine]
        grams = unit[at[:, :, None], at[:, None, :]].astype(np.float32)  # [columns, nearest, nearest]
        target = unit[at, mine[:, None]].astype(np.float32)
        mu = sparsity * np.abs(target).max(1, keepdims=True)
        step = 1.0 / np.abs(grams).sum(2).max(1)[:, None]
        result[at, mine[:, None]] = _proximal(grams, target, mu, step, rounds)
    return result


def _proximal(grams: Array, target: Array, mu: Array, step: Array, rounds: int) -> Array:
    """[columns, terms]: min z'Gz / 2 - t'z + mu |z|_1 for many small problems at once."""
    z = previous = np.zeros_like(target)
    momentum = 1.0
    for _ in range(rounds):
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        at = z + np.float32((momentum - 1) / following) * (z - previous)
        previous, momentum = z, following
        z = at - step * (np.matmul(grams, at[:, :, None])[:, :, 0] - target)
        z = np.sign(z) * np.maximum(np.abs(z) - step * mu, 0.0)
        if np.abs(z - previous).max() < 1e-5:
            break
    return z


def representatives(gram: Array, labels: Array) -> Array:
    """int[clusters]: in every cluster the member from which the others are reconstructed with the least error."""
    found = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        block = gram[np.ix_(members, members)]
        own = np.maximum(np.diagonal(block), 1e-300)
        error = np.diagonal(block).sum() - (block**2 / own[:, None]).sum(1)
        found.append(members[int(error.argmin())])
    return np.sort(np.array(found, np.int64))


def fold(gram: Array, kept: Array, removed: Array) -> tuple[Array, Array]:
    """(coefficients f64[removed, kept], squared errors) of the least-squares fit of removed maps by kept ones."""
    block = gram[np.ix_(kept, kept)]
    block = block + np.eye(len(kept)) * 1e-6 * float(np.trace(block)) / max(len(kept), 1)
    cross = gram[np.ix_(kept, removed)]
    a = np.linalg.solve(block, cross)
    error = (
        np.diagonal(gram)[removed]
        - 2 * (a * cross).sum(0)
        + np.einsum("kr,kl,lr->r", a, gram[np.ix_(kept, kept)], a, optimize=True)
    )
    return a.T, np.maximum(error, 0.0)
