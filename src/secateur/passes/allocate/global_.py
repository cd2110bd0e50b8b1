"""Global allocation: one threshold over the scores of all layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Array, Graph, InputError

from .alike import by_score_within, kinds
from .amount import one_amount
from .budget import meet, notes_of, share_of_channels
from .select import Ladder, by_score, climb


@dataclass(frozen=True)
class Global:
    """One threshold over all scores, as low as one budget allows.

    ``macs``, ``params``, ``bytes``: what remains at most (50%, 120M); ``channels``: the share of channels kept;
    ``latency_ms``: how long a run may take; ``speedup``: how many times as fast it is at least. ``rounds``: prune in so
    many steps, and repair and score again after each. ``floor``: the share of every set of channels that stays whatever
    its scores, so that no layer is starved. ``alike``: scores compare within a kind of layers alone, and every kind
    shrinks in the same proportion (isomorphic pruning, Fang et al., ECCV 2024).
    """

    name: ClassVar[str] = "global"
    macs: float | int | None = None
    params: float | int | None = None
    bytes: float | int | None = None
    channels: float | int | None = None
    latency_ms: float | None = None
    speedup: float | None = None
    round_to: int | str = "auto"
    rounds: int = 1
    floor: float = 0.1
    alike: bool = False

    def __call__(self, graph: Graph) -> Graph:
        amount = one_amount(self.name, macs=self.macs, params=self.params, bytes=self.bytes, channels=self.channels)
        if not 0 <= self.floor <= 1:
            raise InputError(f"global{{floor={self.floor:g}}}: floor is a share from 0 to 1")
        coupling, importance = notes_of(graph, self.name, self.rounds)
        ladder = climb(coupling, importance.scores, self.floor)
        order = by_score_within(ladder, kinds(graph, coupling, ladder)) if self.alike else by_score(ladder)
        if amount.kind == "channels":
            kept = ladder.kept(order, _count_for_channels(ladder, order, float(amount.value)))
            return share_of_channels(graph, amount, ladder, kept, self.round_to)
        return meet(graph, amount, ladder, order, self.round_to)


def _count_for_channels(ladder: Ladder, order: Array, share: float) -> int:
    """How many of the free rungs stay so that ``share`` of the units in orbits that can shrink do."""
    shrinking = (ladder.least < ladder.length)[ladder.orbit]
    wanted = share * float(ladder.members[shrinking].sum())
    fixed = float(ladder.members[shrinking & (ladder.rank < ladder.least[ladder.orbit])].sum())
    units = fixed + np.cumsum(ladder.members[order])
    return int(np.searchsorted(units, wanted + 1e-9, side="right"))
