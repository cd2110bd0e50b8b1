"""Uniform allocation: every pool keeps the same share of its channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from secateur.ir import Graph
from secateur.passes.analysis.notes import KeepMask

from .budget import Allocation, before, counter, meet, notes_of, one_amount, roundings
from .estimate import estimator
from .select import by_share, climb, count_for_share


@dataclass(frozen=True)
class Uniform:
    """The same share of every pool stays, as large as one budget allows; inside a pool the best scores.

    ``macs``, ``params``, ``bytes``: what remains at most (50%, 120M); ``channels``: the share of channels kept.
    """

    name: ClassVar[str] = "uniform"
    macs: float | int | None = None
    params: float | int | None = None
    bytes: float | int | None = None
    channels: float | int | None = None
    round_to: int | str = "auto"

    def __call__(self, graph: Graph) -> Graph:
        amount = one_amount(self.name, macs=self.macs, params=self.params, bytes=self.bytes, channels=self.channels)
        coupling, importance = notes_of(graph, self.name)
        ladder = climb(coupling, importance.scores)
        order = by_share(ladder)
        if amount.kind == "channels":
            width = roundings(self.round_to)[0]
            count = count_for_share(ladder, order, float(amount.value))
            mask = ladder.mask(ladder.rounded(ladder.kept(order, count), width))
            done = Allocation(amount, coupling.size, int(mask.sum()), width)
            return graph.with_note(KeepMask(mask), done)
        kind = amount.kind
        real, guess = counter(graph, kind), estimator(graph, coupling, kind)
        mask, done = meet(ladder, order, amount, before(graph, kind), real, self.round_to, guess)
        return graph.with_note(KeepMask(mask), done)
