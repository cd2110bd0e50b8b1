"""A budget of time: allocate by multiply-accumulates or by what layers take; measurements say how much may remain."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from secateur.ir import BudgetError, Graph, InputError
from secateur.passes.context import LatencyModel, context_of
from secateur.passes.notes import KeepMask
from secateur.passes.pipeline import Pass, with_options
from secateur.passes.recipe.mask import mask_of

from .amount import Allocation, Allocator, Amount, Trial
from .budget import LANES, notes_of
from .estimate import Prices
from .knapsack import Knapsack
from .own_readers import OwnReaders
from .prices import halfway, prices
from .repaired import Judged, Repaired
from .rounds import Rounds
from .side_by_side import NEAR, SURE, SideBySide
from .time_search import MEASURE, NETWORKS, Found, TimeSearch
from .uniform import Uniform

HALF = 0.5  # of the multiply-accumulates: the second network whose layers are timed
MACS, TIME, BOTH = "MACs", "time that layers took", "MACs and time in equal parts"
TIED, ALIKE, HALVES = "MACs, with tied readers", "MACs, alike in all layers", "MACs, in halves of vectors"
Way = tuple[Callable[[float], Pass], str]  # an allocation that leaves a share, and what the share is of


@dataclass(frozen=True)
class Timed:
    """As many multiply-accumulates as a budget of milliseconds, or of times as fast, allows.

    ``at(share)`` leaves a share of them; or, ``by_time``, of the nanoseconds that layers took, where they can be timed
    one by one in the network and in one of half its multiply-accumulates (``Prices``). Each network is measured side
    by side with the original (``SideBySide``). With ``lost``, what a mask gives up, there is a search by time, one by
    multiply-accumulates and one by both in equal parts, as prices are lines and time goes in steps. Likewise with
    ``others``, further ways to leave a share. Of all that met the budget as measured the network that gives up least
    is taken; or, with a ``judge`` and data, of the networks that gave up least of each search the one that answers
    most like the original once it is repaired. Without ``lost`` it is the largest network that uses the budget.
    """

    name: ClassVar[str] = "timed"
    budget: Amount
    at: Callable[[float], Pass] = field(repr=False)
    by_time: bool = False
    lost: Callable[[Graph], float] | None = field(default=None, repr=False)
    floor: float = 0.0  # the share of every set of channels that the allocation leaves whatever its scores
    others: tuple[Way, ...] = field(default=(), repr=False)  # where there is a judge, searched where there are data
    judge: Repaired | None = field(default=None, repr=False)

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError where nobody can measure, BudgetError that states the fastest network found."""
        context = context_of(graph)
        if context.latency is None:
            raise InputError(
                f"budget {self._spelt}: nobody measures here; use secateur.compile or the command line, or give the "
                "graph a latency model: in_context(graph, latency=..)"
            )
        coupling, _ = notes_of(graph, self.name)
        context.progress(0, 2 * NETWORKS, MEASURE)
        clock = SideBySide(graph, context.latency, self.budget)
        if clock.fast_enough:
            remark = "the original is fast enough: nothing was removed"
            everything = graph.with_note(KeepMask(np.ones(coupling.size, bool)))
            return everything.with_note(Allocation(self.budget, clock.whole, clock.whole, 1, (remark,)))
        made: dict[tuple[object, ...], Found] = {}
        ways = self._ways(graph, context.latency)
        searches = [TimeSearch(start, at, what, clock, made) for start, at, what in ways]
        for search in searches:
            search.run()
        if any(search.again for search in searches) and not any(search.met for search in searches):
            for search in searches:  # the machine has slowed down since
                search.run()
        if not any(search.met for search in searches):
            self._narrowest(searches, clock)
        best, why = self._best(graph, searches, clock)
        return best.graph.with_note(self._allocation(best, why, searches, clock))

    def _allocation(
        self, best: Found, why: Sequence[str], searches: Sequence[TimeSearch], clock: SideBySide
    ) -> Allocation:
        """What was done, with all networks that were measured."""
        done = best.graph.note(Allocation)
        how = getattr(clock.latency, "how", "measured next to the original")
        measured = (f"{how}: {search}" for search in searches if search.tried)
        remarks = (*(done.remarks if done else ()), *measured, *why, *stated(best, searches, clock))
        trials = tuple(
            Trial(f.share, f.measured.took, f.measured.whole, f.widths, f is best, f.measured.off)
            for s in searches for f in s.tried
        )  # fmt: skip
        reached = clock.reached(best.measured.ratio)
        return Allocation(self.budget, clock.whole, reached, done.round_to if done else 1, remarks, tried=trials)

    def _ways(self, graph: Graph, latency: LatencyModel) -> list[tuple[Graph, Callable[[float], Pass], str]]:
        """What to search: a graph with its prices, an allocation, and what its shares are of."""
        found = self._prices(graph, latency) if self.by_time else None
        others = self.others if self.judge is None or context_of(graph).calibration is not None else ()
        ways = [(graph, at, what) for at, what in ((self.at, MACS), *others)]
        if found is None:
            return ways
        by_time = (graph.with_note(found), self.at, TIME)
        if self.lost is None:
            return [by_time, *ways[1:]]
        return [by_time, (graph.with_note(halfway(graph, found)), self.at, BOTH), *ways]

    def _narrowest(self, searches: Sequence[TimeSearch], clock: SideBySide) -> None:
        """Measures the narrowest network that there may be. Raises BudgetError where not even that meets the budget."""
        least = searches[0].narrowest(self.floor)
        if searches[0].met:
            return
        tried = [found.measured.ratio for search in searches for found in search.tried]
        fast = "" if self.budget.kind == "latency_ms" else f", which is {1 / min(tried):.3g} times as fast"
        wanted = "Raise the budget" if self.budget.kind == "latency_ms" else "Ask for less"
        raise BudgetError(
            f"budget {self._spelt} is out of reach: the original takes {clock.whole:.4g} ms, the fastest of "
            f"{len(tried)} smaller networks {min(tried) * clock.whole:.4g}{fast}; the narrowest that there may be "
            f"takes {least.measured.ratio * clock.whole:.4g} ms. {wanted}, or protect less"
        )

    def _best(self, graph: Graph, searches: Sequence[TimeSearch], clock: SideBySide) -> tuple[Found, Sequence[str]]:
        """The network that is taken of those that met the budget, and a sentence about it if several were repaired."""
        lost, met = self.lost, [found for search in searches for found in search.met]
        if lost is None:
            return max(met, key=lambda found: _fullness(found, clock)), ()
        least = [min(search.met, key=lambda found: lost(found.graph)) for search in searches if search.met]
        rivals = list(dict.fromkeys(least))
        judged = self.judge(graph, [found.graph for found in rivals]) if self.judge and len(rivals) > 1 else None
        if judged is None:
            return min(met, key=lambda found: lost(found.graph)), ()
        return rivals[judged.best], (_said(rivals, judged),)

    def _prices(self, graph: Graph, latency: LatencyModel) -> Prices | None:
        """What layers take, if they can be timed."""
        from secateur.passes.rewrite.slim import slim

        coupling, _ = notes_of(graph, self.name)
        try:
            half = mask_of(self.at(HALF)(graph))
        except BudgetError:
            return None
        return prices(graph, coupling, latency, slim(graph, half), half)

    @property
    def _spelt(self) -> str:
        return f"{self.budget.kind}={self.budget.value:g}"


def _fullness(found: Found, clock: SideBySide) -> tuple[bool, float]:
    """What is more of two networks that meet the budget: the larger where both use it, else how much they use."""
    used = clock.used(found.measured.ratio)
    return used >= NEAR, found.share if used >= NEAR else used


def _said(rivals: Sequence[Found], judged: Judged) -> str:
    """What each network answers once it is repaired, and by how many examples those were judged that were given up."""
    most = max(judged.examples)
    errors = ", ".join(
        f"{error:.1%} ({found.how}{f', given up after {count}' if count < most else ''})"
        for found, error, count in zip(rivals, judged.errors, judged.examples, strict=True)
    )
    found = f"{errors} {judged.what}; taken: the least of those not given up"
    return f"repaired and run on {most} examples that no repair saw: {found}"


def stated(found: Found, searches: Sequence[TimeSearch], clock: SideBySide) -> Iterator[str]:
    """How well a network's time is known, and why it uses less of its budget than there is."""
    used, measured = clock.used(found.measured.ratio), found.measured
    if used < NEAR:
        nearer = any(clock.used(other.measured.ratio) >= NEAR for search in searches for other in search.met)
        why = "what uses more of it was judged worse" if nearer else "no widths that were tried come nearer to it"
        yield f"the budget is used to {used:.1%}: {why}"
    if measured.off > 0:
        noisy = "the machine is not quiet: " if measured.off > 2 * SURE else ""
        yield (
            f"{noisy}what is left of the original's time is known to {measured.off:.1%} up and down at a nominal 95 %, "
            f"from {measured.blocks} repeats by turns"
        )


@dataclass(frozen=True)
class _OfTime:
    """An allocation that leaves a share of the time where the graph has prices, else of the multiply-accumulates.

    ``halves``: widths are multiples of half of the target's vector, which fill it less and keep more of what counts.
    """

    name: ClassVar[str] = Knapsack.name
    step: Knapsack
    share: float
    halves: bool = False

    def __call__(self, graph: Graph) -> Graph:
        lanes = context_of(graph).lanes or LANES
        step = with_options(self.step, round_to=max(1, lanes // 2)) if self.halves else self.step
        if graph.note(Prices) is None:
            return with_options(step, macs=self.share)(graph)
        return step.within(graph, Amount("time", self.share))


def at_share(step: Allocator | Rounds | OwnReaders, share: float) -> Pass:
    """The same allocation, leaving this share of the multiply-accumulates, or of the time of layers."""
    if isinstance(step, Knapsack):
        return _OfTime(step, float(share))
    if isinstance(step, Rounds | OwnReaders):
        return dataclasses.replace(step, allocator=with_options(step.allocator, macs=float(share)))
    return with_options(step, macs=float(share))


def by_time(step: Knapsack, budget: Amount, repairs: Sequence[Pass]) -> Timed:
    """What ``knapsack{by=time}`` does: by time, by multiply-accumulates, and what only a judge could prefer to both."""
    others: list[Way] = [(functools.partial(at_share, Uniform(round_to=step.round_to)), ALIKE)]
    if step.round_to == "auto":
        others.append((functools.partial(_OfTime, step, halves=True), HALVES))
    at = functools.partial(at_share, step)
    return Timed(budget, at, True, step.lost, step.floor, tuple(others), Repaired(tuple(repairs)))
