"""Schedules: prune in several rounds, and repair and score the slim network in between."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from secateur.ir import Array, Graph, InputError
from secateur.passes.context import in_context
from secateur.passes.notes import Coupling, KeepMask
from secateur.passes.pipeline import Pass, Pipeline, with_options

from .amount import Allocation, Allocator, Amount
from .budget import before, counter, notes_of

ALWAYS = 100  # rounds that any network may have


@dataclass(frozen=True)
class Rounds:
    """Meet a budget in ``count`` equal ratios: 50 % in two rounds is 71 %, then 71 % of that, scored anew.

    ``again`` repairs, couples and scores a slim network; ``allocator`` has one budget. What was repaired in between is
    scored and no more: the cut is made once, of the original's weights. What goes in the end is told in the
    units of the graph as it came, so that one cut, one recipe and one check of the law against the original follow.
    """

    name: ClassVar[str] = "rounds"
    count: int
    allocator: Allocator = field(repr=False)
    again: tuple[Pass, ...] = field(repr=False)

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError for less than one round or far more than channels, and what the allocator raises."""
        from secateur.passes.rewrite.slim import slim

        if self.count < 1:
            raise InputError(f"{self.allocator.name}{{rounds={self.count}}}: give 1 or more")
        coupling, _ = notes_of(graph, self.name)
        if self.count > max(ALWAYS, coupling.size):
            raise InputError(
                f"{self.allocator.name}{{rounds={self.count}}}: the network has {coupling.size} sets of channels, so "
                f"more rounds than that remove nothing; give at most {coupling.size}"
            )
        kind, value = budget_of(self.allocator)
        whole, keep, scored = before(graph, kind), np.ones(coupling.size, bool), graph
        target = Amount(kind, value).limit(whole)
        for number in range(1, self.count + 1):
            last = number == self.count
            limit = target if last else int(whole * (target / max(whole, 1)) ** (number / self.count))
            done = with_options(self.allocator, **{kind: max(1, limit)})(scored)
            keep = keep & carried(done, coupling, keep)
            if not last:
                scored = Pipeline(self.again)(in_context(slim(graph, keep), original=graph))
        found = done.note(Allocation)
        assert found is not None
        reached = counter(graph, kind)(keep)
        whole_way = dataclasses.replace(found, amount=Amount(kind, value), before=whole, reached=reached)
        return graph.with_note(KeepMask(keep), whole_way)


def budget_of(allocator: Allocator) -> tuple[str, float | int]:
    """The budget that an allocator was given in a unit that can be counted."""
    return next((k, getattr(allocator, k)) for k in ("macs", "params", "bytes") if getattr(allocator, k) is not None)


def carried(done: Graph, original: Coupling, keep: Array) -> Array:
    """bool[units of the original]: what stays of it after the keep mask of ``done``, which was made under ``keep``.

    The positions along each axis of a slim weight are those that lived, in the same order.
    """
    coupling, mask = done.note(Coupling), done.note(KeepMask)
    assert coupling is not None
    assert mask is not None
    result = np.ones(original.size, bool)
    slots = {(s.weight, s.axis): s for s in coupling.slots}
    for slot in original.slots:
        small = slots.get((slot.weight, slot.axis))
        if small is not None:
            lived = slot.units[original.live(slot.units, keep)]
            gone = lived[~coupling.live(small.units, mask.mask)]
            result[gone[gone >= 0]] = False
    return result
