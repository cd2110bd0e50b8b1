"""Selection: which units may go, in which order, and the keep mask of any point on the way.

Units of a domain that must survive in equal numbers (cells of one orbit) are taken out together, one from
each cell: such a bundle is a **rung**. Inside its orbit a rung has a rank; rank 0 holds each cell's best
units. A ``Ladder`` lists all rungs, and an order in which they are given up, so that every selection is a
number of rungs kept, selections are nested, and a budget can be met by bisection. All steps are linear
or one sort; nothing loops over units.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from secateur.ir import Array
from secateur.passes.notes import Coupling


@dataclass(frozen=True, eq=False)
class Ladder:
    """The rungs of a coupling under some scores.

    ``rung``: int[units], the rung of each unit, -1 for none. For each rung its ``orbit``, ``rank`` and ``score``;
    for each orbit ``length`` (rungs) and ``least`` (rungs that must stay). ``members`` counts the units of each rung.
    """

    rung: Array
    orbit: Array
    rank: Array
    score: Array
    length: Array
    least: Array
    members: Array

    def mask(self, kept: Array) -> Array:
        """bool[units]: the units of the first ``kept[orbit]`` rungs of each orbit."""
        result: Array = (self.rank < kept[self.orbit])[self.rung]
        return result

    def free(self) -> Array:
        """int[..]: the rungs that may go, in ladder order."""
        return np.flatnonzero(self.rank >= self.least[self.orbit])

    def kept(self, order: Array, count: int) -> Array:
        """int[orbits]: rungs kept when the first ``count`` of ``order`` stay in addition to those that must."""
        extra = np.bincount(self.orbit[order[:count]], minlength=len(self.least))
        result: Array = self.least + extra
        return result


def climb(coupling: Coupling, scores: Array, floor: float = 0.0) -> Ladder:
    """Build the ladder: frozen and unscored units stay, and the best of every slot and channel axis.

    ``scores``: f64[units], NaN where a unit has none. ``floor``: the share of every orbit that stays.
    """
    size = coupling.size
    index = np.arange(size)
    fixed = coupling.frozen.astype(bool) | np.isnan(scores)
    values = np.where(np.isnan(scores), 0.0, scores)
    order = np.lexsort((index, -values, ~fixed))
    must = fixed | _best_of_each(axes(coupling), order, size)
    cell, orbit_of_cell = _cells(coupling)
    orbits = int(orbit_of_cell.max(initial=-1)) + 1
    order = np.lexsort((index, -values, ~must, cell))
    sizes = np.bincount(cell, minlength=len(orbit_of_cell))
    starts = np.cumsum(sizes) - sizes
    rank = np.empty(size, np.int64)
    rank[order] = index - starts[cell[order]]
    alike, leveled = _by_level(coupling, cell, orbit_of_cell, rank)
    length = np.zeros(orbits, np.int64)
    orbit = orbit_of_cell[cell]
    np.maximum.at(length, orbit, alike + 1)
    first = np.cumsum(length) - length
    rung = first[orbit] + alike
    rungs = int(length.sum())
    members = np.bincount(rung, minlength=rungs)
    score = np.bincount(rung, values, rungs) / np.maximum(members, 1)
    rung_orbit = np.repeat(np.arange(orbits), length)
    rung_rank = np.arange(rungs) - first[rung_orbit]
    least = np.zeros(orbits, np.int64)
    np.maximum.at(least, orbit[must], alike[must] + 1)
    least = np.maximum(least, np.ceil(floor * length - 1e-9).astype(np.int64))
    least = np.where(leveled, np.maximum(least, 1), least)
    return Ladder(rung, rung_orbit, rung_rank, score, length, least, members)


def _by_level(coupling: Coupling, cell: Array, orbit_of_cell: Array, rank: Array) -> tuple[Array, Array]:
    """(rank of each unit's rung in its orbit, bool per orbit: do its rungs differ).

    In an orbit with levels a unit belongs to the first level that keeps as many of its cell as its rank asks for.
    """
    alike, leveled = rank.copy(), np.zeros(int(orbit_of_cell.max(initial=-1)) + 1, bool)
    for levels in coupling.levels.values():
        for column, name in enumerate(levels.cells):
            mine = np.flatnonzero(coupling.cell == name)
            alike[mine] = np.searchsorted(levels.counts[:, column], rank[mine], side="right")
            leveled[orbit_of_cell[cell[mine[0]]]] = True
    return alike, leveled


def by_share(ladder: Ladder) -> Array:
    """Order of the free rungs in which all orbits shrink in the same proportion."""
    free = ladder.free()
    return free[np.lexsort((free, _share(ladder)[free]))]


def by_score(ladder: Ladder) -> Array:
    """Order of the free rungs by score, best first; among equals the lower unit stays."""
    free = ladder.free()
    return free[np.lexsort((free, -ladder.score[free]))]


def count_for_share(ladder: Ladder, order: Array, share: float) -> int:
    """How many rungs of a ``by_share`` order stay when every orbit keeps ``share`` of its rungs."""
    return int(np.searchsorted(_share(ladder)[order], share, side="right"))


def _share(ladder: Ladder) -> Array:
    """f64[rungs]: the share of its orbit down to the middle of each rung."""
    result: Array = (ladder.rank + 0.5) / ladder.length[ladder.orbit]
    return result


def axes(coupling: Coupling) -> Iterable[Array]:
    """The units along every axis that may not lose all its channels, each array once."""
    seen: dict[int, Array] = {}
    for slot in coupling.slots:
        seen[id(slot.units)] = slot.units
    for mixing in coupling.mixing:
        seen[id(mixing.units)] = mixing.units
    for channels in coupling.channels.values():
        seen[id(channels.units)] = channels.units
    return seen.values()


def _best_of_each(axes: Iterable[Array], order: Array, size: int) -> Array:
    """bool[units]: the first in ``order`` of each axis. Axes with a position that cannot go need none."""
    place = np.full(size + 1, -1, np.int64)  # the last entry answers for position -1, before all others
    place[order] = np.arange(size)
    rows = [np.ravel(units) for units in axes if np.size(units)]
    result = np.zeros(size, bool)
    if not rows:
        return result
    starts = np.cumsum([0, *(len(row) for row in rows[:-1])])
    best = np.minimum.reduceat(place[np.concatenate(rows)], starts)
    result[order[best[best >= 0]]] = True
    return result


def _cells(coupling: Coupling) -> tuple[Array, Array]:
    """(cell of each unit, orbit of each cell), numbered from 0.

    Orbits of one cell bind nothing, so those of a domain become one.
    """
    domain, orbit, name = (np.asarray(a, np.int64) for a in (coupling.domain, coupling.orbit, coupling.cell))
    first, cell = _numbered(domain, orbit, name)
    domain, orbit, name = domain[first], orbit[first], name[first]
    _, number = _numbered(domain, orbit)
    alone = np.bincount(number)[number] == 1
    orbit, name = np.where(alone, -1, orbit), np.where(alone, -1, name)
    first, merged = _numbered(domain, orbit, name)
    return merged[cell], _numbered(domain[first], orbit[first])[1]


def _numbered(*columns: Array) -> tuple[Array, Array]:
    """(first row of each distinct one, the number of each row's), in the order of their columns."""
    key = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        _, place = np.unique(column, return_inverse=True)
        key = key * (int(place.max(initial=0)) + 1) + place
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    return first, inverse
