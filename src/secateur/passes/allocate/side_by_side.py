"""How much of a budget of time a network uses: measured next to the original, block by block, until that is known.

What one block says is off by percents where a run takes a millisecond, and a machine's clock drifts by tens of them
within minutes. So a block measures both networks by turns, and counts as the ratio of its two times; blocks are added
until the interval of their median is narrow, or lies on one side of the budget.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from secateur.ir import Graph
from secateur.passes.context import LatencyModel

from .amount import Amount

NEAR = 0.97  # a budget used to this share is used
SURE = 0.01  # a share of the budget that is known to so much, up and down, is known
FAR = 0.05  # a network that misses the budget by more in each block is given no more than FEW
FEW, ENOUGH, MOST = 3, 6, 32  # blocks: of one that is far off, the fewest that have an interval, the most
LONGEST = 30.0  # seconds of one measurement, of FEW blocks at least: what is known by then is reported
DOUBT = 0.05  # one minus the confidence of an interval


@dataclass(frozen=True)
class Measured:
    """Medians over ``blocks``: milliseconds of the network and of the original, and ``ratio``, of the two in a block.

    ``low`` and ``high`` bound the ratio at a nominal 95 %, from 6 blocks on; below they are the least and the largest.
    Nominal, since blocks end when the interval pleases.
    """

    took: float
    whole: float
    ratio: float
    low: float
    high: float
    blocks: int

    @property
    def off(self) -> float:
        """Half of the interval, as a share of the ratio."""
        return (self.high - self.low) / (2 * self.ratio)


class SideBySide:
    """Measures networks next to ``graph``, and says which share of a budget they use."""

    def __init__(self, graph: Graph, latency: LatencyModel, budget: Amount) -> None:
        self.graph, self.latency, self.budget = graph, latency, budget
        self._wholes = [float(latency(graph)[0])]
        if budget.kind == "latency_ms" and abs(self.used(1.0) - 1) < FAR:  # which side it is on is not known yet
            self._wholes += [float(latency(graph)[0]) for _ in range(ENOUGH - 1)]

    @property
    def fast_enough(self) -> bool:
        """Does the original itself meet the budget, for all that is known?"""
        whole = interval(self._wholes)[1] if self.budget.kind == "latency_ms" else self.whole
        return self.used(whole / self.whole) <= 1

    @property
    def whole(self) -> float:
        """Milliseconds of the original: the median of all blocks so far."""
        return float(np.median(self._wholes))

    def used(self, ratio: float) -> float:
        """Which share of the budget a network uses that takes this share of the original's time.

        Under a budget of milliseconds the original's typical time counts, not that of the moment.
        """
        limit = float(self.budget.value)
        return ratio * (self.whole / limit if self.budget.kind == "latency_ms" else limit)

    def meets(self, measured: Measured) -> bool:
        """Is the budget met for all that is known, that is, by the upper end of the interval?"""
        return self.used(measured.high) <= 1

    def reached(self, ratio: float) -> float:
        """The same in the unit of the budget."""
        return ratio * self.whole if self.budget.kind == "latency_ms" else 1 / ratio

    def __call__(self, small: Graph) -> Measured:
        """As many blocks as it takes to know, or as ``LONGEST`` allows."""
        times: list[tuple[float, float]] = []
        end = time.monotonic() + LONGEST
        while True:
            whole, took = self.latency(self.graph, small)
            self._wholes.append(whole)
            times.append((took, whole))
            ratios = [one / other for one, other in times]
            if self._known(ratios) or (len(ratios) >= FEW and time.monotonic() > end):
                one, other = np.median(times, axis=0)
                return Measured(float(one), float(other), float(np.median(ratios)), *interval(ratios), len(ratios))

    def _known(self, ratios: Sequence[float]) -> bool:
        """Do so many blocks say enough? Two that are alike to the last bit are not measured, but from a table."""
        if len(ratios) < FEW:
            return len(ratios) == 2 and ratios[0] == ratios[1]
        if self.used(min(ratios)) > 1 + FAR or self.used(max(ratios)) < NEAR - FAR or len(ratios) >= MOST:
            return True
        low, high = interval(ratios)
        clear = self.used(low) > 1 or self.used(high) < NEAR
        return len(ratios) >= ENOUGH and (clear or high - low <= 2 * SURE * float(np.median(ratios)))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Order statistics between which the median of what the values are drawn from lies at 95 %, whatever it is.

    As many values lie below it as heads fall in so many throws. Of fewer than six the least and the largest.
    """
    count, ordered = len(values), sorted(values)
    below = np.cumsum([math.comb(count, k) for k in range(count)]) / 2.0**count
    at = max(0, int(np.searchsorted(below, DOUBT / 2, side="right")) - 1)
    return float(ordered[at]), float(ordered[count - 1 - at])
