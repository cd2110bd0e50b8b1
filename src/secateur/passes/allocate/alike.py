"""Layers compared within their kind alone.

Fang, Ma, Mi and Wang, "Isomorphic Pruning for Vision Models", ECCV 2024: scores of sub-structures that differ (the
inside of a bottleneck, a residual sum, a depthwise stage) say nothing about each other, those of one structure do.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from secateur.ir import Array, Graph
from secateur.passes.notes import Coupling

from .select import Ladder


def kinds(graph: Graph, coupling: Coupling, ladder: Ladder) -> Array:
    """int[orbits]: sets of channels are of one kind that the same operators make and read, by windows of one size.

    How many layers are tied makes no difference, nor do widths: all residual sums of a network are one kind.
    """
    marks: dict[int, set[tuple[object, ...]]] = defaultdict(set)
    for slot in coupling.slots:
        weight, op = graph.weights[slot.weight], graph.producer[slot.node].op
        mark = (op, slot.role, slot.axis, weight.shape[2:], slot.groups > 1)
        units = slot.units[slot.units >= 0]
        for orbit in np.unique(ladder.orbit[ladder.rung[units]]).tolist():
            marks[orbit].add(mark)
    numbers: dict[frozenset[tuple[object, ...]], int] = {}
    found = [numbers.setdefault(frozenset(marks[o]), len(numbers)) for o in range(len(ladder.length))]
    return np.asarray(found, np.int64)


def by_score_within(ladder: Ladder, kind: Array) -> Array:
    """Order of the free rungs in which every kind shrinks in the same proportion, by score inside a kind."""
    free = ladder.free()
    mine = kind[ladder.orbit[free]]
    order = np.lexsort((free, -ladder.score[free], mine))
    counts = np.bincount(mine, minlength=int(mine.max(initial=-1)) + 1)
    place = np.arange(len(free)) - (np.cumsum(counts) - counts)[mine[order]]
    share = np.empty(len(free))
    share[order] = (place + 0.5) / counts[mine[order]]
    return free[np.lexsort((free, -ladder.score[free], share))]
