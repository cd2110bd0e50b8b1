"""Readers of one tensor that each go without other channels of it, where the network then loses less."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from secateur.ir import Array, Graph
from secateur.passes.coupling.own import Reader, readers, untied
from secateur.passes.notes import Coupling, KeepMask
from secateur.passes.pipeline import with_options
from secateur.passes.recipe.build import recipe_of
from secateur.passes.recipe.mask import mask_of
from secateur.passes.score.criterion import ByReader
from secateur.passes.score.obs import OBS
from secateur.passes.score.obs_reader import Reader as Leaving
from secateur.passes.score.obs_reader import removal
from secateur.passes.score.obs_swaps import Read, repaired
from secateur.passes.score.slots import coupling_of

from .amount import Allocation, Allocator
from .budget import CLOSE, FILL_TRIES, before, counter, notes_of
from .estimate import work_of_weights
from .rounds import budget_of
from .select import axes

LOOSER = (1.05, 1.1, 1.2, 1.4)  # budgets, of the real one, under which channels are chosen that go for everybody
COPY = 4  # multiply-accumulates that a number counts as which is copied for a reader


@dataclass(frozen=True)
class OwnReaders:
    """Channels go for everybody under a looser budget, and then for single readers, where that is cheapest.

    Wan et al., "UPSCALE: Unconstrained Channel Pruning", ICML 2023, under a budget. What a choice costs is what
    ``score`` says of each reader, best repaired, of all that it goes without (Optimal Brain Surgeon), in sum. Of the
    network whose readers are tied and those that ``LOOSER`` budgets, or none, begin, the one that loses least is
    taken. A reader keeps channels of its own only where the multiply-accumulates that this saves are worth the copy
    (``COPY``), and of what flows in the share that is the allocator's ``floor``, if it has one.
    """

    name: ClassVar[str] = "own_readers"
    allocator: Allocator = field(repr=False)
    score: ByReader = field(default_factory=OBS, repr=False)

    def __call__(self, graph: Graph) -> Graph:
        """Raises what the allocator raises."""
        coupling, _ = notes_of(graph, self.name)
        kind, _ = budget_of(self.allocator)
        tied = self.allocator(graph)
        done, known = allocation_of(tied), readers(graph, coupling)
        assert done.amount is not None
        limit = done.amount.limit(before(graph, kind))
        most = min(before(graph, kind), counter(graph, kind)(np.ones(coupling.size, bool)))
        floor, best, loss = float(getattr(self.allocator, "floor", 0.0)), None, np.inf
        for budget in sorted({most, *(min(int(limit * more), most) for more in LOOSER)}) if known else ():
            loose = with_options(self.allocator, **{kind: budget})(graph)
            found = _Spent(loose, kind, limit, list(known.values()), self.score, floor).network()
            lost = np.inf if found is None else self.lost(found)
            best, loss = (found, lost) if lost < loss else (best, loss)
        usual = self.lost(tied) if best is not None else 0.0
        if best is None or loss >= usual:
            return tied
        own, of = recipe_of(best, coupling_of(best, self.name), mask_of(best)).own, allocation_of(best)
        remark = f"{len(own)} layers keep their own channels of what they read, which costs {1 - loss / usual:.1%} less"
        return best.with_note(
            dataclasses.replace(of, amount=done.amount, before=done.before, gap=None, remarks=(*of.remarks, remark))
        )

    def lost(self, graph: Graph) -> float:
        """What layers get wrong without what the graph's mask leaves out, each as a share of what it puts out."""
        coupling, mask = coupling_of(graph, self.name), mask_of(graph)
        own = {m.node: m.units for m in coupling.mixing if m.mode == "own"}
        total = 0.0
        for node, read in self.score.by_reader(graph):
            units = np.repeat(own[node], len(read.units) // len(own[node])) if node in own else read.units
            total += repaired(read, coupling.live(units, mask))[0] / read.energy if read.energy > 0 else 0.0
        return total


def allocation_of(graph: Graph) -> Allocation:
    """What an allocation left."""
    note = graph.note(Allocation)
    assert note is not None
    return note


@dataclass(frozen=True, eq=False)
class _Steps:
    """What a reader can go without, in order: the positions of each step, what it costs and what it saves.

    ``macs``: multiply-accumulates that each position takes; ``copied``: the numbers of one position; ``kept``: the
    positions that there are.
    """

    reader: Reader
    positions: Sequence[Array]
    costs: Array
    saves: Array
    macs: float
    copied: int
    kept: int

    def pays(self, count: int) -> bool:
        """Do so many steps save more than the copy of what is left takes?"""
        gone = sum(map(len, self.positions[:count]))
        return gone * self.macs >= COPY * self.copied * (self.kept - gone)


@dataclass(frozen=True, eq=False)
class _Spent:
    """A network under a looser budget, of which single readers give up channels until the real one is met."""

    graph: Graph
    kind: str
    limit: int
    known: Sequence[Reader]
    score: ByReader
    floor: float

    def network(self) -> Graph | None:
        """The network that uses the budget best; None where readers cannot give up as much.

        What goes for everybody in the end saves more than its columns, and indices take bytes: so what the readers are
        to save is bisected.
        """
        steps, best, low, high = list(self._steps()), None, 0.0, np.inf
        need = float(counter(self.graph, self.kind)(mask_of(self.graph)) - self.limit)
        for _ in range(FILL_TRIES):
            found = self._giving(steps, need)
            if found is None:
                break
            reached = allocation_of(found).reached
            if reached > self.limit:
                low, need = need, need + reached - self.limit if high == np.inf else (need + high) / 2
                continue
            best, high, need = found, need, (low + need) / 2
            if self.limit - reached <= CLOSE * self.limit:
                break
        return best

    def _giving(self, steps: Sequence[_Steps], need: float) -> Graph | None:
        """The network whose readers save so much, those alone for which that pays; None where they cannot."""
        while (taken := _taken(steps, need)) is not None:
            poor = [s for s, number in zip(steps, taken, strict=True) if number and not s.pays(number)]
            if not poor:
                found = self._untied(steps, taken)
                reached = counter(found, self.kind)(mask_of(found))
                return found.with_note(dataclasses.replace(allocation_of(found), reached=reached))
            steps = [s for s in steps if s not in poor]
        return None

    def _untied(self, steps: Sequence[_Steps], taken: Sequence[int]) -> Graph:
        """The network in which readers have units of their own and do without those of the steps that are taken."""
        which = [(s, number) for s, number in zip(steps, taken, strict=True) if number]
        coupling = untied(coupling_of(self.graph, OwnReaders.name), [s.reader for s, _ in which])
        keep = np.concatenate([mask_of(self.graph), np.ones(len(coupling.own), bool)])
        units = {m.node: m.units for m in coupling.mixing if m.mode == "own"}
        for s, number in which:
            keep[units[s.reader.node.name][np.concatenate(s.positions[:number])]] = False
        return self.graph.with_note(coupling, KeepMask(closed(coupling, keep)))

    def _steps(self) -> Iterator[_Steps]:
        from secateur.passes.rewrite.slim import slim_shapes

        coupling, mask = coupling_of(self.graph, OwnReaders.name), mask_of(self.graph)
        lanes = allocation_of(self.graph).round_to
        shapes = slim_shapes(self.graph, mask)
        work, macs = (work_of_weights(shapes, kind) for kind in (self.kind, "macs"))
        by_node = {reader.node.name: reader for reader in self.known}
        for node, read in self.score.by_reader(self.graph):
            reader = by_node.get(node)
            if reader is None or not read.energy > 0:
                continue
            live = coupling.live(reader.slot.units, mask)
            order, added, number = _order(read, live, reader)
            kept = int(live.sum())
            size = np.bincount(number[number >= 0], minlength=len(order))[order]
            after = kept - np.cumsum(size)
            ends = np.flatnonzero((after % lanes == 0) & (after >= max(1, int(np.ceil(self.floor * kept)))))
            if not len(ends):
                continue
            parts = np.split(np.arange(ends[-1] + 1), ends[:-1] + 1)
            saves = np.array([size[part].sum() for part in parts]) * (work[reader.weight] / kept)
            positions = [np.flatnonzero(np.isin(number, order[part])) for part in parts]
            value = self.graph.value(str(reader.node.inputs[0]))
            copied = int(np.prod([d for axis, d in enumerate(value.shape) if axis != reader.axis]))
            costs = np.array([added[part].sum() for part in parts])
            yield _Steps(reader, positions, costs, saves, macs[reader.weight] / kept, copied, kept)


def _order(read: Read, live: Array, reader: Reader) -> tuple[Array, Array, Array]:
    """(numbers in the order in which they leave, what each costs, the number of each position of the reader or -1).

    ``live``: bool[positions] of what flows in; what is gone has left already, and the rest made up for it.
    """
    free, taps = live & reader.own, len(read.units) // len(live)
    number = np.full(len(live), -1, np.int64)
    units, number[free] = np.unique(reader.slot.units[free], return_inverse=True)
    if not len(units):
        return np.zeros(0, np.int64), np.zeros(0), number
    left = np.repeat(live, taps)
    _, weight = repaired(read, left)
    leaving = Leaving(np.repeat(number, taps)[left], read.damped[np.ix_(left, left)], weight.T, read.energy)
    order, added = removal(np.arange(len(units)), [leaving])
    return order, np.maximum(added, 0.0), number


def _taken(steps: Sequence[_Steps], need: float) -> list[int] | None:
    """How many steps of each reader save as much at the least cost; None where all of them do not."""
    if not steps:
        return None
    rates = [np.maximum.accumulate(s.costs / s.saves) for s in steps]
    whose = np.repeat(np.arange(len(steps)), [len(r) for r in rates])
    order = np.argsort(np.concatenate(rates), kind="stable")
    saved = np.cumsum(np.concatenate([s.saves for s in steps])[order])
    enough = int(np.searchsorted(saved, need - 1e-6)) + 1
    if enough > len(order):
        return None
    taken: list[int] = np.bincount(whose[order[:enough]], minlength=len(steps)).tolist()
    return taken


def closed(coupling: Coupling, keep: Array) -> Array:
    """The mask without what is gone where it comes from, and without what no reader keeps.

    A unit goes with its last reader where nothing else holds it: it may go, is bound to no others by number, and every
    tensor keeps a channel.
    """
    first, result = coupling.size - len(coupling.own), keep.copy()
    result[first:] &= keep[coupling.own]
    held = np.ones(coupling.size, bool)
    held[coupling.own] = coupling.frozen[coupling.own].astype(bool)
    read = [*(s.units for s in coupling.slots if s.role == "in"), *(m.units for m in coupling.mixing)]
    for units in (*read, *(c.units for c in coupling.constraints)):
        held[units[units >= 0]] = True
    held[coupling.own[result[first:]]] = True
    result[:first] &= held[:first]
    for units in axes(coupling):
        if not coupling.live(units, result).any():
            shared = units[units < first]
            result[shared] = keep[shared]
    return result
