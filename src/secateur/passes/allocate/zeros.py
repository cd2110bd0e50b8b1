"""Removing what is zero already: the end of training with a penalty that leaves exact zeros."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Graph, InputError
from secateur.passes.notes import KeepMask

from .amount import Allocation
from .budget import notes_of
from .select import climb


@dataclass(frozen=True)
class Zeros:
    """Every channel goes whose score is exactly zero, and no other: there is no budget.

    With ``l1`` those whose filters are all zero, with ``slimming`` those whose batch norm scales are, with
    ``group_lasso{groups=channel}`` those that nothing reads. Channels that must survive in equal numbers go as far as
    all of them have zeros, and one channel of every layer stays.
    """

    name: ClassVar[str] = "zeros"
    budgeted: ClassVar[bool] = False
    macs: ClassVar[None] = None
    params: ClassVar[None] = None
    bytes: ClassVar[None] = None
    latency_ms: ClassVar[None] = None
    speedup: ClassVar[None] = None
    rounds: ClassVar[int] = 1
    round_to: int | str = "auto"

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError for widths that are to be multiples of something: zeros are where they are."""
        if self.round_to not in ("auto", 1):
            raise InputError(f"zeros{{round_to={self.round_to}}}: what is zero goes, in no multiples; leave it at auto")
        coupling, importance = notes_of(graph, self.name, self.rounds)
        ladder = climb(coupling, np.asarray(importance.scores))
        kept = ladder.least.copy()
        alive = ladder.score != 0
        np.maximum.at(kept, ladder.orbit[alive], ladder.rank[alive] + 1)
        mask = ladder.mask(kept)
        gone = int((~mask).sum())
        zero = int((np.asarray(importance.scores) == 0).sum())
        remarks = [f"{gone} of {coupling.size} channels were zero by {importance.criterion}, and went"]
        if zero > gone:
            remarks.append(
                f"{zero - gone} more are zero and stay: frozen, or in no equal numbers with those they are bound to"
            )
        return graph.with_note(KeepMask(mask), Allocation(None, coupling.size, int(mask.sum()), 1, tuple(remarks)))
