"""A budget of time: allocate by multiply-accumulates or by what layers take; measurements say how much may remain."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from secateur.ir import BudgetError, Graph, InputError
from secateur.passes.analysis.cost import cost
from secateur.passes.context import LatencyModel, context_of
from secateur.passes.notes import KeepMask
from secateur.passes.pipeline import Pass, with_options

from .amount import Allocation, Allocator, Amount, Trial
from .budget import notes_of
from .estimate import Prices
from .knapsack import Knapsack
from .own_readers import OwnReaders
from .prices import prices
from .rounds import Rounds
from .select import climb

MEASUREMENTS = 10  # the last two are kept for a network and its confirmation
MEASURE = "measure the latency"
HALF = 0.5  # of the multiply-accumulates: the second network whose layers are timed
NEAR = 0.97  # a budget used to this share is used
AIM = 0.985  # the next network is made for this share of the budget


@dataclass(frozen=True)
class Timed:
    """As many multiply-accumulates as a budget of milliseconds, or of times as fast, allows.

    ``at(share)`` leaves a share of them; or, ``by_time``, of the nanoseconds that layers took, where they can be timed
    one by one in the network and in one of half its multiply-accumulates (``Prices``). Each network is measured side
    by side with the original; the one that is taken is measured twice, and the second time counts, as the best of
    several noisy figures is too good. With ``lost``, what a mask gives up, a search by time is followed by one by
    multiply-accumulates, and of what they find the network that gives up less is taken: prices are lines, and time
    goes in steps. Likewise with what ``others`` find, further ways to leave a share.
    """

    name: ClassVar[str] = "timed"
    budget: Amount
    at: Callable[[float], Pass] = field(repr=False)
    by_time: bool = False
    lost: Callable[[Graph], float] | None = field(default=None, repr=False)
    floor: float = 0.0  # the share of every set of channels that the allocation leaves whatever its scores
    others: tuple[Callable[[float], Pass], ...] = field(default=(), repr=False)

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError where nobody can measure, BudgetError that states the fastest network found."""
        context = context_of(graph)
        if context.latency is None:
            raise InputError(
                f"budget {self._spelt}: nobody measures here; use secateur.compile or the command line, or give the "
                "graph a latency model: in_context(graph, latency=..)"
            )
        coupling, _ = notes_of(graph, self.name)
        context.progress(0, MEASUREMENTS + 1, MEASURE)
        (whole,) = context.latency(graph)
        if self.budget.kind == "latency_ms" and whole <= self.budget.value:
            remark = "the original is fast enough: nothing was removed"
            everything = graph.with_note(KeepMask(np.ones(coupling.size, bool)))
            return everything.with_note(Allocation(self.budget, whole, whole, 1, (remark,)))
        priced = self._priced(graph, context.latency) if self.by_time else graph
        starts = [priced] if priced is graph or self.lost is None else [priced, graph]
        ways = [(start, self.at) for start in starts] + [(graph, at) for at in self.others]
        searches = [_Search(start, context.latency, at, self.budget, whole) for start, at in ways]
        met = [found for search in searches if (found := search.run()) is not None]
        best = self._best(met) if met else searches[0].narrowest(self.floor)
        if best is None:
            tried = [found for search in searches for found in search.tried]
            fastest, least = min(found.took for found in tried), searches[0].tried[-1].took
            raise BudgetError(
                f"budget {self._spelt} is out of reach: the original takes {whole:.4g} ms, the fastest of "
                f"{len(tried)} smaller networks {fastest:.4g}; the narrowest that there may be takes "
                f"{least:.4g} ms. Raise the budget, or protect less"
            )
        done = best.graph.note(Allocation)
        how = getattr(context.latency, "how", "measured next to the original")
        remarks = (*(done.remarks if done else ()), *(f"{how}: {search}" for search in searches))
        reached = best.took if self.budget.kind == "latency_ms" else best.whole / best.took
        trials = tuple(Trial(f.share, f.took, f.whole, f.widths, f is best) for s in searches for f in s.tried)
        allocation = Allocation(self.budget, whole, reached, done.round_to if done else 1, remarks, tried=trials)
        return best.graph.with_note(allocation)

    def _best(self, met: Sequence[_Found]) -> _Found:
        """The first, or of several the one whose mask gives up least."""
        lost = self.lost
        return met[0] if lost is None else min(met, key=lambda found: lost(found.graph))

    def _priced(self, graph: Graph, latency: LatencyModel) -> Graph:
        """The graph with prices, if its layers can be timed."""
        from secateur.passes.rewrite.slim import slim

        coupling, _ = notes_of(graph, self.name)
        try:
            mask = self.at(HALF)(graph).note(KeepMask)
        except BudgetError:
            return graph
        assert mask is not None
        found = prices(graph, coupling, latency, slim(graph, mask.mask), mask.mask)
        return graph if found is None else graph.with_note(found)

    @property
    def _spelt(self) -> str:
        return f"{self.budget.kind}={self.budget.value:g}"


@dataclass(frozen=True, eq=False)
class _Found:
    """An allocated network, its widths, and what was measured in one run: its milliseconds and the original's."""

    graph: Graph
    share: float
    took: float
    whole: float
    widths: Mapping[str, tuple[int, int]]


class _Search:
    """Looks for the share of the multiply-accumulates that just meets the budget; ``tried`` is all that it measured."""

    def __init__(
        self, graph: Graph, latency: LatencyModel, at: Callable[[float], Pass], budget: Amount, whole: float
    ) -> None:
        self.graph, self.latency, self.at, self.budget, self.whole = graph, latency, at, budget, whole
        self.tried: list[_Found] = []

    def __str__(self) -> str:
        """What was measured, in a line."""
        what = "MACs" if self.graph.note(Prices) is None else "time that layers took"
        return ", ".join(
            f"{found.share:.0%} of the {what} {found.took:.4g} ms against {found.whole:.4g}" for found in self.tried
        )

    def run(self) -> _Found | None:
        """The slowest network that meets the budget when it is measured again, None where none does."""
        slow, fast = (1.0, self.used(self.whole, self.whole)), (0.0, 0.0)  # the second a guess at first
        best: _Found | None = None
        for _ in range(MEASUREMENTS):
            if len(self.tried) + 2 > MEASUREMENTS or (best is not None and self.used(best.took, best.whole) >= NEAR):
                break
            share = fast[0] + (slow[0] - fast[0]) * (AIM - fast[1]) / max(slow[1] - fast[1], 1e-9)
            share = min(max(share, fast[0] + 0.1 * (slow[0] - fast[0])), fast[0] + 0.9 * (slow[0] - fast[0]))
            try:
                found = self.measured(share, self.at(share)(self.graph))
            except BudgetError:  # no network has so little: look above
                fast = (share, min(fast[1], slow[1]))
                continue
            if self.used(found.took, found.whole) <= 1:
                found = self.measured(share, found.graph)
            used = self.used(found.took, found.whole)
            if used <= 1:
                fast, best = (share, used), found
            else:
                slow = (share, used)
        return best

    def narrowest(self, floor: float) -> _Found | None:
        """The network in which every layer is as narrow as it may be, if that meets the budget; measured last."""
        coupling, importance = notes_of(self.graph, Timed.name)
        ladder = climb(coupling, np.asarray(importance.scores), floor)
        found = self.measured(0.0, self.graph.with_note(KeepMask(ladder.mask(ladder.least))))
        return found if self.used(found.took, found.whole) <= 1 else None

    def measured(self, share: float, allocated: Graph) -> _Found:
        """The network that an allocation leaves, next to the original."""
        from secateur.passes.rewrite.slim import slim

        mask = allocated.note(KeepMask)
        assert mask is not None
        context_of(self.graph).progress(len(self.tried) + 1, MEASUREMENTS + 1, MEASURE)
        small = slim(allocated, mask.mask)
        whole, took = self.latency(self.graph, small)
        widths = {row.label: row.widths for row in cost(small).layers if row.widths is not None}
        self.tried.append(_Found(allocated, share, took, whole, widths))
        return self.tried[-1]

    def used(self, took: float, whole: float) -> float:
        """Which share of the budget a run takes. Both were measured in one run."""
        limit = float(self.budget.value)
        return took / limit if self.budget.kind == "latency_ms" else took * limit / whole


@dataclass(frozen=True)
class _OfTime:
    """An allocation that leaves a share of the time where the graph has prices, else of the multiply-accumulates."""

    name: ClassVar[str] = Knapsack.name
    step: Knapsack
    share: float

    def __call__(self, graph: Graph) -> Graph:
        if graph.note(Prices) is None:
            return with_options(self.step, macs=self.share)(graph)
        return self.step.within(graph, Amount("time", self.share))


def at_share(step: Allocator | Rounds | OwnReaders, share: float) -> Pass:
    """The same allocation, leaving this share of the multiply-accumulates, or of the time of layers."""
    if isinstance(step, Knapsack):
        return _OfTime(step, float(share))
    if isinstance(step, Rounds | OwnReaders):
        return dataclasses.replace(step, allocator=with_options(step.allocator, macs=float(share)))
    return with_options(step, macs=float(share))
