"""A budget in milliseconds: allocate by multiply-accumulates, and let a few measurements say how many may remain."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from secateur.ir import BudgetError, Graph, InputError
from secateur.passes.context import LatencyModel, context_of
from secateur.passes.notes import KeepMask
from secateur.passes.pipeline import Pass, with_options

from .amount import Allocation, Allocator, Amount
from .budget import notes_of
from .rounds import Rounds

MEASUREMENTS = 6
MEASURE = "measure the latency"
NEAR = 0.95  # a budget used to this share is used
AIM = 0.98  # the next network is made for this share of the budget


@dataclass(frozen=True)
class Timed:
    """As many multiply-accumulates as the budget allows. ``at(share)`` leaves a share of them."""

    name: ClassVar[str] = "timed"
    latency_ms: float
    at: Callable[[float], Pass] = field(repr=False)

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError where nobody can measure, BudgetError that states the fastest network found."""
        context = context_of(graph)
        latency = context.latency
        if latency is None:
            raise InputError(
                f"budget latency_ms={self.latency_ms:g}: nobody measures here; use secateur.compile or the command "
                "line, or give the graph a latency model: in_context(graph, latency=..)"
            )
        coupling, _ = notes_of(graph, self.name)
        context.progress(0, MEASUREMENTS + 1, MEASURE)
        whole = latency(graph)
        if whole <= self.latency_ms:
            remark = "the original is fast enough: nothing was removed"
            return self._noted(graph.with_note(KeepMask(np.ones(coupling.size, bool))), whole, whole, 1, remark)
        best, reached, seen = self._search(graph, latency, whole)
        if best is None:
            least = (
                f"the fastest of {seen} smaller networks {reached:.4g}" if seen else "and no smaller network was found"
            )
            raise BudgetError(
                f"budget latency_ms={self.latency_ms:g} is out of reach: the original takes {whole:.4g} ms, {least}; "
                "raise the budget, or protect less"
            )
        note = best.note(Allocation)
        rounded = note.round_to if note else 1
        return self._noted(best, whole, reached, rounded, f"found with {seen + 1} measurements")

    def _search(self, graph: Graph, latency: LatencyModel, whole: float) -> tuple[Graph | None, float, int]:
        """(allocated graph or None, its or the least milliseconds, measurements made)."""
        from secateur.passes.rewrite.slim import slim

        slow, fast = (1.0, whole), (0.0, 0.0)  # (share of MACs, milliseconds), the second a guess at first
        best, reached, least, seen = None, 0.0, whole, 0
        while seen < MEASUREMENTS and reached < NEAR * self.latency_ms:
            share = fast[0] + (slow[0] - fast[0]) * (AIM * self.latency_ms - fast[1]) / (slow[1] - fast[1])
            share = min(max(share, fast[0] + 0.1 * (slow[0] - fast[0])), fast[0] + 0.9 * (slow[0] - fast[0]))
            try:
                allocated = self.at(share)(graph)
            except BudgetError:
                break
            mask = allocated.note(KeepMask)
            assert mask is not None
            context_of(graph).progress(seen + 1, MEASUREMENTS + 1, MEASURE)
            took, seen = latency(slim(graph, mask.mask)), seen + 1
            least = min(least, took)
            if took <= self.latency_ms:
                fast = (share, took)
                best, reached = allocated, took
            else:
                slow = (share, took)
        return best, reached if best is not None else least, seen

    def _noted(self, graph: Graph, whole: float, reached: float, round_to: int, remark: str) -> Graph:
        done = graph.note(Allocation)
        remarks = (*(done.remarks if done else ()), remark)
        return graph.with_note(Allocation(Amount("latency_ms", self.latency_ms), whole, reached, round_to, remarks))


def at_share(step: Allocator | Rounds, share: float) -> Pass:
    """The same allocation, leaving this share of the multiply-accumulates."""
    if isinstance(step, Rounds):
        return dataclasses.replace(step, allocator=with_options(step.allocator, macs=float(share)))
    return with_options(step, macs=float(share))
