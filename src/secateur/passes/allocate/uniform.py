"""Uniform allocation: every set of channels keeps the same share of its channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from secateur.ir import Graph

from .amount import one_amount
from .budget import meet, notes_of, share_of_channels
from .select import by_share, climb, count_for_share


@dataclass(frozen=True)
class Uniform:
    """The same share of every set of channels stays, as large as one budget allows; inside a set the best scores.

    ``macs``, ``params``, ``bytes``: what remains at most (50%, 120M); ``channels``: the share of channels kept;
    ``latency_ms``: how long a run may take; ``speedup``: how many times as fast it is at least. ``rounds``: prune in so
    many steps, and repair and score again after each.
    """

    name: ClassVar[str] = "uniform"
    macs: float | int | None = None
    params: float | int | None = None
    bytes: float | int | None = None
    channels: float | int | None = None
    latency_ms: float | None = None
    speedup: float | None = None
    round_to: int | str = "auto"
    rounds: int = 1

    def __call__(self, graph: Graph) -> Graph:
        amount = one_amount(self.name, macs=self.macs, params=self.params, bytes=self.bytes, channels=self.channels)
        coupling, importance = notes_of(graph, self.name, self.rounds)
        ladder = climb(coupling, importance.scores)
        order = by_share(ladder)
        if amount.kind == "channels":
            kept = ladder.kept(order, count_for_share(ladder, order, float(amount.value)))
            return share_of_channels(graph, amount, ladder, kept, self.round_to)
        return meet(graph, amount, ladder, order, self.round_to)
