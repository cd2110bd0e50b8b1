"""The search for the network that just meets a budget of time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from secateur.ir import Array, BudgetError, Graph
from secateur.passes.analysis.cost import cost
from secateur.passes.context import context_of
from secateur.passes.notes import Coupling, KeepMask
from secateur.passes.pipeline import Pass
from secateur.passes.recipe.mask import mask_of

from .budget import notes_of
from .select import axes, climb
from .side_by_side import NEAR, Measured, SideBySide

NETWORKS = 10  # a search makes about so many, each of which may be measured twice
ALLOCATIONS = 24  # it asks for at most so many, as several shares may lead to the same widths
MEASURE = "measure the latency"
AIM = 0.982  # the next network is made for this share of the budget: between NEAR and what is surely below 1
FIRST = 0.025  # how near to the ends of what is left the first share may lie; each time twice as far
FINE = 0.002  # shares so near to each other are one
FURTHER, LARGER = 2, 1.12  # once the budget is used, so many networks so many times as large, which may be as fast


@dataclass(frozen=True, eq=False)
class Found:
    """An allocated network, how it was made, the share it was allocated (of a mixture, between those of the two that it
    is made of), its widths, and what was measured.
    """

    graph: Graph
    how: str
    share: float
    measured: Measured
    widths: Mapping[str, tuple[int, int]]

    @property
    def mask(self) -> Array:
        """What it keeps."""
        return mask_of(self.graph)


@dataclass(frozen=True, eq=False)
class _End:
    """An end of the shares that are searched: what is known to be used there, and the network, if one was made."""

    share: float
    used: float
    found: Found | None = None


@dataclass(frozen=True, eq=False)
class TimeSearch:
    """Looks for the share of ``what`` that just meets the budget; ``at(share)`` allocates it.

    ``made`` holds the networks of all searches by what they keep. ``tried`` is all that was measured here, ``again``
    what met the budget and was measured again: the second figure counts, as the best of several noisy ones is too good.
    """

    graph: Graph
    at: Callable[[float], Pass]
    what: str
    clock: SideBySide
    made: dict[tuple[object, ...], Found] = field(repr=False)
    tried: list[Found] = field(default_factory=list)
    again: list[Found] = field(default_factory=list)

    def __str__(self) -> str:
        """What was measured, in a line."""
        return ", ".join(
            f"{found.how} {found.measured.took:.4g} ms against {found.measured.whole:.4g}" for found in self.tried
        )

    def run(self) -> None:
        """Bisect shares; then make a few networks that are larger, since time goes in steps; or, where no share
        leads to widths that are near enough, bisect the sets that two networks differ in.
        """
        low, high, beyond = _End(0.0, 0.0), _End(1.0, self.clock.used(1.0)), 0  # the first a guess
        for number in range(ALLOCATIONS):
            if self._enough or (self._used and beyond == FURTHER) or high.share - low.share < FINE:
                break
            share = low.share + (high.share - low.share) * (AIM - low.used) / max(high.used - low.used, 1e-9)
            edge = (high.share - low.share) * min(FIRST * 2**number, 0.5)  # time goes in steps: halve in the end
            share = min(max(share, low.share + edge), high.share - edge)
            if self._used:
                share, beyond = min(LARGER * low.share, (low.share + high.share) / 2), beyond + 1
            try:
                allocated = self.at(share)(self.graph)
            except BudgetError:  # no network has so little: look above
                low = _End(share, min(low.used, high.used))
                continue
            found = self._judged(share, f"{share:.0%} of the {self.what}", allocated)
            end = _End(share, self.clock.used(found.measured.ratio), found)
            low, high = (end, high) if self.clock.meets(found.measured) else (low, end)
        if low.found is not None and high.found is not None:
            self._mix(low.found, high.found)

    def _mix(self, under: Found, over: Found) -> None:
        """Between the last two networks: some sets of channels at the widths of one, the others at those of the other.

        The units of a domain go together, so whatever binds them holds.
        """
        coupling = under.graph.note(Coupling)
        if coupling is None or coupling is not over.graph.note(Coupling):
            return  # readers that keep their own channels: the masks are not of the same units
        domains = np.unique(coupling.domain[under.mask != over.mask])
        low, high = 0, len(domains)
        while high - low > 1 and not (self._enough or self._used):
            middle = (low + high) // 2
            mask = np.where(np.isin(coupling.domain, domains[:middle]), over.mask, under.mask)
            if not all(coupling.live(axis, mask).any() for axis in axes(coupling)):
                return
            share = under.share + (over.share - under.share) * middle / len(domains)
            found = self._judged(share, "widths of two of these", under.graph.with_note(KeepMask(mask)))
            low, high = (middle, high) if self.clock.meets(found.measured) else (low, middle)

    @property
    def met(self) -> list[Found]:
        """What meets the budget, by all that is known of the original's time by now."""
        return [found for found in self.again if self.clock.meets(found.measured)]

    @property
    def _enough(self) -> bool:
        """Were enough networks measured?"""
        return len(self.tried) >= 2 * NETWORKS - 1

    @property
    def _used(self) -> bool:
        """Was a network found that meets the budget and uses it?"""
        return any(self.clock.used(found.measured.ratio) >= NEAR for found in self.met)

    def _judged(self, share: float, how: str, allocated: Graph) -> Found:
        """Measured next to the original, and again if it met the budget; once for all searches."""
        from secateur.passes.rewrite.slim import slim

        mask, kept = mask_of(allocated), _kept(allocated)
        found = self.made.get(kept)
        if found is None:
            small = slim(allocated, mask)
            widths = {row.label: row.widths for row in cost(small).layers if row.widths is not None}
            for _ in range(2):
                context_of(self.graph).progress(min(len(self.tried), 2 * NETWORKS), 2 * NETWORKS, MEASURE)
                found = Found(allocated, how, share, self.clock(small), widths)
                self.tried.append(found)
                if not self.clock.meets(found.measured):
                    break
            assert found is not None
            self.made[kept] = found
        if self.clock.meets(found.measured):
            self.again.append(found)
        return found

    def narrowest(self, floor: float) -> Found:
        """The network in which every layer is as narrow as it may be."""
        coupling, importance = notes_of(self.graph, "timed")
        ladder = climb(coupling, np.asarray(importance.scores), floor)
        return self._judged(0.0, "the narrowest", self.graph.with_note(KeepMask(ladder.mask(ladder.least))))


def _kept(allocated: Graph) -> tuple[object, ...]:
    """What an allocated network keeps, with the readers that have channels of their own: their bits stand last."""
    coupling = allocated.note(Coupling)
    own = () if coupling is None else (m for m in coupling.mixing if m.mode == "own")
    return mask_of(allocated).tobytes(), *((m.node, m.units.tobytes()) for m in own)
