"""Sensitivity allocation: every set of channels shrinks until the network's outputs have changed equally much."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Array, Graph, InputError
from secateur.ir.numeric import random_inputs
from secateur.ir.progress import Progress, quiet
from secateur.passes.context import context_of

from .amount import Allocation, Budgeted
from .budget import meet, notes_of
from .select import Ladder, climb

STAY = (1.0, 0.75, 0.5, 0.25)  # shares of a set that are tried; the first changes nothing
DRAWN = 8  # random inputs where there are no data


@dataclass(frozen=True)
class Sensitivity(Budgeted):
    """Layers that matter more keep more (the sensitivity analysis of Li et al., ICLR 2017, section 3.2, as a rule).

    Each set of channels alone is slimmed to 75, 50 and 25 %, the lowest scores first, and the relative L2 change of
    the network's outputs is measured. Made monotone and joined by straight lines, these curves say what the next
    channel costs; channels leave where the change that they lead to is least, until the budget is met. Measured on the
    first ``examples`` of the calibration data, or, without any, on 8 batches of standard normal numbers, of which the
    report says. ``macs``, ``params``, ``bytes``: what remains at most (50%, 120M); ``latency_ms``: how long a run may
    take; ``speedup``: how many times as fast it is at least. ``rounds``: prune in so many steps, and score and measure
    again after each. ``floor``: the share of every set that stays.
    """

    name: ClassVar[str] = "sensitivity"
    data: ClassVar[bool] = True
    floor: float = 0.1
    examples: int = 32

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError for senseless options or data, BudgetError that states the least that can be reached."""
        amount = self.amount
        if not 0 <= self.floor <= 1 or self.examples < 1:
            raise InputError(
                f"sensitivity{{floor={self.floor:g},examples={self.examples}}}: floor is a share from 0 to 1, examples "
                "1 or more"
            )
        coupling, importance = notes_of(graph, self.name, self.rounds)
        ladder = climb(coupling, importance.scores, self.floor)
        context = context_of(graph)
        calibration = context.calibration
        seed = calibration.seed if calibration else 0
        data = calibration.data if calibration else [random_inputs(graph, seed + i) for i in range(DRAWN)]
        order = by_change(ladder, changes(graph, ladder, data, self.examples, context.progress))
        done = meet(graph, amount, ladder, order, self.round_to)
        note = done.note(Allocation)
        assert note is not None
        on = "calibration data" if calibration else "random inputs, as no calibration data were given"
        remarks = (*note.remarks, f"sensitivity measured on {on}")
        return done.with_note(dataclasses.replace(note, remarks=remarks))


def changes(graph: Graph, ladder: Ladder, data: Iterable[object], examples: int, progress: Progress = quiet) -> Array:
    """f64[orbits, 4]: the relative L2 change of the outputs with ``STAY`` of one orbit, never falling.

    Orbits that cannot shrink have 0. Raises InputError for unusable data.
    """
    from secateur.passes.rewrite.slim import slim
    from secateur.passes.sweep.outputs import feeds, outputs

    fed = feeds(graph, data, examples)
    wanted = outputs(graph, fed)
    energy = sum(float((y * y).sum()) for y in wanted) or 1.0
    found = np.zeros((len(ladder.length), len(STAY)))
    orbits = np.unique(ladder.orbit[ladder.free()]).tolist()
    for done, orbit in enumerate(orbits):
        progress(done, len(orbits), "measure sensitivity")
        for column, share in enumerate(STAY):
            kept = ladder.length.copy()
            kept[orbit] = max(int(ladder.least[orbit]), round(share * int(ladder.length[orbit])))
            if kept[orbit] == ladder.length[orbit]:
                continue
            had = outputs(slim(graph, ladder.mask(kept)), fed)
            error = sum(float(((a - b) ** 2).sum()) for a, b in zip(wanted, had, strict=True))
            found[orbit, column] = np.sqrt(error / energy)
    return np.asarray(np.maximum.accumulate(found, axis=1))


def by_change(ladder: Ladder, found: Array) -> Array:
    """Order of the free rungs: what would change most stays longest; among equals, small ranks and low numbers.

    The change at a rung is that of its orbit cut above it: curves are straight between the shares that were measured,
    and go on below the last as they came.
    """
    free = ladder.free()
    left = ladder.rank[free] / ladder.length[ladder.orbit[free]]
    change = np.empty(len(free))
    for orbit in np.unique(ladder.orbit[free]).tolist():
        mine = ladder.orbit[free] == orbit
        curve = np.append(found[orbit], 2 * found[orbit, -1] - found[orbit, -2])
        change[mine] = np.interp(left[mine], [0.0, *STAY[::-1]], curve[::-1])
    return free[np.lexsort((free, left, -change))]
