"""The knapsack by branch and bound over a price for the budget (Lagrangian relaxation).

At a price for each unit of cost the budget falls away, and elimination finds the best choice at once; the dearest bound
over all prices is a lower bound of the loss, and choices seen on the way that fit are candidates. Options that cannot
lead below the best candidate go (reduced costs from min-marginals); what remains is halved where the two choices on
either side of the budget differ most. Held, Wolfe and Crowder 1974; Geoffrion 1974.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from secateur.ir import Array, BudgetError

from .elimination import Bucket, Elimination, Found
from .polish import polish
from .problem import Problem

STEPS = 60  # prices tried for one bound; about ten are needed
CLOSE = 1e-9  # what a bound may still gain when no further price is tried
TIE = 1e-12  # losses (of at most 1) that are equal but for rounding
FITS = 1 + 1e-12  # costs of as many budgets fit
NEAR = 1.001  # choices that lose up to so many times the best are worth a search around them


@dataclass(frozen=True, eq=False)
class _Dual:
    """The best bound: its price, and the choices on either side of the budget (``over`` None where none is)."""

    bound: float
    price: float
    fits: Found | None
    over: Found | None


@dataclass(order=True, frozen=True)
class _Node:
    bound: float
    number: int
    domains: list[Array] = field(compare=False)


class Search:
    """Best bound first. ``gap``: how far, relative to the least loss, the answer may be from it.

    ``turns`` is the problem's order of elimination; losses are not negative. ``left``: after a run, the gap that
    remained, at most ``gap`` unless time was over.
    """

    def __init__(self, problem: Problem, turns: list[Bucket], gap: float, seconds: float) -> None:
        self.given, self.problem, self.turns, self.gap = problem, problem.scaled(), turns, gap
        self.until = time.monotonic() + seconds
        self.best: tuple[int, ...] | None = None
        self.loss = np.inf
        self.left = 0.0

    def run(self) -> list[int]:
        """Raises BudgetError where no choice fits."""
        counter = itertools.count()
        heap = [_Node(-np.inf, next(counter), [np.arange(len(v)) for v in self.problem.loss])]
        while heap:
            if heap[0].bound >= self._enough() or (time.monotonic() > self.until and self.best is not None):
                break
            node = heapq.heappop(heap)
            for domains, bound in self._open(node.domains, node.bound):
                heapq.heappush(heap, _Node(bound, next(counter), domains))
        if self.best is None:
            raise BudgetError(f"no choice of widths costs at most {self.given.budget:,.0f}")
        if heap and self.loss > TIE:
            self.left = float(np.clip((self.loss - heap[0].bound) / self.loss, 0.0, 1.0))
        return list(self.best)

    def _enough(self) -> float:
        """A part whose bound is at least this much holds nothing that is worth finding."""
        return self.loss * (1 - self.gap) - TIE

    def _open(self, domains: Sequence[Array], known: float) -> list[tuple[list[Array], float]]:
        """The parts of a node that are left to search, with their bounds."""
        part = Elimination(self.problem, self.turns, domains)
        dual = self._dual(part)
        if dual.fits is None or dual.over is None or dual.bound >= self._enough():
            return []
        narrow, bound = self._narrow(part, dual), max(known, dual.bound)
        if not all(map(len, narrow)):
            return []
        return [(half, bound) for half in self._halves(narrow, dual.fits, dual.over)]

    def _dual(self, part: Elimination) -> _Dual:
        """Cutting planes in one dimension: the price at which the two choices found so far are worth the same."""
        over, budget = part.least(0.0), self.problem.budget
        if over.cost <= budget * FITS:
            self._candidate(over)
            return _Dual(over.loss, 0.0, over, None)
        fits = part.least(1.0, 0.0)
        if fits.cost > budget * FITS:
            return _Dual(np.inf, 0.0, None, over)
        self._candidate(fits)
        bound, at = over.loss, 0.0
        for _ in range(STEPS):
            price = (fits.loss - over.loss) / (over.cost - fits.cost)
            meeting = fits.loss + price * (fits.cost - budget)
            found = part.least(price)
            value = found.value - price * budget
            if value > bound:
                bound, at = value, price
            if found.cost <= budget * FITS:
                fits = found
                self._candidate(found)
            else:
                over = found
            if meeting - value <= CLOSE * max(1.0, abs(meeting)) or bound >= self._enough():
                break
        return _Dual(bound, at, fits, over)

    def _candidate(self, found: Found) -> None:
        chosen = polish(self.problem, found.chosen) if found.loss < NEAR * self.loss else found.chosen
        loss = self.problem.loss_of(chosen)
        if loss < self.loss:
            self.best, self.loss = tuple(chosen), loss

    def _narrow(self, part: Elimination, dual: _Dual) -> list[Array]:
        """The options with which a better choice is not ruled out."""
        most = self._enough() + dual.price * self.problem.budget
        return [d[m < most] for d, m in zip(part.domains, part.marginals(dual.price), strict=True)]

    def _halves(self, domains: list[Array], fits: Found, over: Found) -> list[list[Array]]:
        """Cut the domain of the group whose two options differ most in loss, between the two."""
        gain = [
            abs(float(loss[a] - loss[b])) if len(d) > 1 else -1.0
            for loss, a, b, d in zip(self.problem.loss, fits.chosen, over.chosen, domains, strict=True)
        ]
        group = int(np.argmax(gain))
        if gain[group] < 0:  # one choice is left: its own node says what it is worth
            return [domains]
        mine, middle = domains[group], (fits.chosen[group] + over.chosen[group]) / 2
        cut = int(np.clip(np.searchsorted(mine, middle), 1, len(mine) - 1))
        return [[p if g == group else d for g, d in enumerate(domains)] for p in (mine[:cut], mine[cut:])]
