"""Widths that pay: a vector holds ``lanes`` channels, so a layer's time falls in steps, not with each channel.

A layer of n channels fills ceil(n / lanes) vectors. A grouped one fills them group by group, because a vector that
straddles two groups has to read the inputs of both; groups narrower than a vector share one if they fill a half, a
quarter.. of it. An orbit may therefore only stop at certain numbers of rungs: where one more would fill its producers'
vectors worse, and only where they are about as full as they can be, so that time falls as work does.
Depthwise convolutions and element-wise operators have the widths of what they read; consumers read single
channels, and have no say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from secateur.ir import Array
from secateur.passes.notes import Coupling

if TYPE_CHECKING:
    from .select import Ladder

CLOSE = 1e-9
SLACKS = (0.95, 0.8)  # how full vectors are at a stop, of the fullest there is: strictly first, or with more stops


@dataclass(frozen=True, eq=False)
class Stops:
    """Where orbits may stop: entry ``start[orbit] + rungs`` of ``nearest`` and ``above`` answers for so many rungs."""

    start: Array
    nearest: Array
    above: Array

    def rounded(self, kept: Array) -> Array:
        """int[orbits]: the stops nearest to these numbers of rungs, the upper of two; none at all stays none."""
        result: Array = self.nearest[self.start + kept]
        return result

    def wider(self, kept: Array) -> Array:
        """int[orbits]: the stops above these numbers of rungs; whole orbits stay whole."""
        result: Array = self.above[self.start + kept]
        return result


def stops(
    coupling: Coupling, ladder: Ladder, lanes: int, work: Mapping[str, int] | None = None, slack: float = SLACKS[0]
) -> Stops:
    """The stops for vectors of ``lanes`` channels, ``slack`` times as full as at the best of them at least.

    ``work`` by weight says whose steps count for how much where an orbit has several producers (the same without it).
    """
    start = np.cumsum(ladder.length + 1) - (ladder.length + 1)
    orbit = np.repeat(np.arange(len(start)), ladder.length + 1)
    rungs = np.arange(len(orbit)) - start[orbit]
    full = _fullness(_producers(coupling, ladder, start, work), lanes, len(orbit))
    whole = rungs == ladder.length[orbit]
    free = (rungs >= np.maximum(ladder.least[orbit], 1)) & ~whole
    peak = free & (full >= np.append(full[1:], 0) - CLOSE)
    best = np.zeros(len(start))
    np.maximum.at(best, orbit[peak], full[peak])
    return _table(start, orbit, whole | (peak & (full >= slack * best[orbit])), whole)


def _table(start: Array, orbit: Array, stop: Array, whole: Array) -> Stops:
    """Look up the neighbours of every entry once; ``whole`` marks the last entry of each orbit, which is a stop."""
    places = np.arange(len(stop))
    up = np.minimum.accumulate(np.where(stop, places, len(stop))[::-1])[::-1]
    down = np.maximum.accumulate(np.where(stop, places, -1))
    down = np.where(down >= start[orbit], down, up)
    nearest = np.where(places - down < up - places, down, up)
    nearest = np.where(places == start[orbit], places, nearest)
    above = np.where(whole, places, np.append(up[1:], 0))
    return Stops(start, nearest - start[orbit], above - start[orbit])


@dataclass(frozen=True, eq=False)
class _Producers:
    """For every producer of an orbit and every number of rungs, one row: ``entry`` in the tables of all orbits.

    ``live``: its channels that stay; ``whole``: all it has; ``groups`` it has; ``weight``: work of one channel.
    """

    entry: Array
    live: Array
    whole: Array
    groups: Array
    weight: Array


def _producers(coupling: Coupling, ladder: Ladder, start: Array, work: Mapping[str, int] | None) -> _Producers | None:
    """Every slot that makes channels, None without any. A slot whose units are of two orbits counts in both."""
    slots = [s for s in coupling.slots if s.role == "out" and (work is None or work.get(s.weight))]
    if not slots:
        return None
    groups_of = {c.node: int(c.block.max()) + 1 for c in coupling.constraints if c.side == "out"}
    groups = np.array([groups_of.get(s.node, 1) for s in slots])
    sizes = np.array([len(s.units) for s in slots])
    weight = np.array([1.0 if work is None else work[s.weight] for s in slots]) / sizes
    units, slot = np.concatenate([s.units for s in slots]), np.repeat(np.arange(len(slots)), sizes)
    fixed = np.bincount(slot[units < 0], minlength=len(slots))
    slot, rung = slot[units >= 0], ladder.rung[units[units >= 0]]
    pairs, pair = np.unique(slot * len(start) + ladder.orbit[rung], return_inverse=True)
    slot, orbit = np.divmod(pairs, len(start))
    rows = ladder.length[orbit] + 1
    first = np.cumsum(rows) - rows
    total = np.cumsum(np.bincount(first[pair] + ladder.rank[rung] + 1, minlength=int(rows.sum())))
    live = total + np.repeat(fixed[slot] - np.append(0, total)[first], rows)
    whole = np.repeat(live[first + rows - 1], rows)
    entry = np.arange(len(live)) + np.repeat(start[orbit] - first, rows)
    return _Producers(entry, live, whole, np.repeat(groups[slot], rows), np.repeat(weight[slot], rows))


def _fullness(producers: _Producers | None, lanes: int, entries: int) -> Array:
    """f64[entries]: the share of its producers' vectors that an orbit fills; 1 where none of them has steps."""
    result = np.ones(entries)
    if producers is None:
        return result
    p = producers
    width, most = p.live / p.groups, p.whole / p.groups
    shared = np.minimum(2.0 ** np.ceil(np.log2(np.maximum(width, 1))), lanes)
    taken = p.groups * np.where(most <= lanes, shared, np.ceil(width / lanes) * lanes)
    steps = np.where((p.groups > 1) | (most > lanes), p.weight, 0.0)  # a layer that fits one vector has none
    channels, vectors = (np.bincount(p.entry, steps * n, entries) for n in (p.live, taken))
    np.divide(channels, vectors, out=result, where=vectors > 0)
    return result
