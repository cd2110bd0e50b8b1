"""Exact swaps in a keep mask, by what leaving channels out costs the layers that read them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Array, Graph, PassError
from secateur.passes.notes import Importance, KeepMask
from secateur.passes.score.criterion import Exchanging
from secateur.passes.score.obs import OBS
from secateur.passes.score.obs_swaps import swapped
from secateur.passes.score.positions import domains
from secateur.passes.score.slots import coupling_of

from .amount import Allocation
from .select import axes


@dataclass(frozen=True)
class Swap:
    """After an allocation: channels of a set change places with others of it until none that stays is worth less.

    The numbers of channels stay in every tensor, and group by group where these are bound, so the budget does as well.
    What a choice costs is what ``obs`` says with the best repair of all readers (``score``), of the choice as a whole.
    """

    name: ClassVar[str] = "swap"
    score: Exchanging = dataclasses.field(default_factory=OBS, repr=False)

    def __call__(self, graph: Graph) -> Graph:
        """Raises PassError where no allocation ran."""
        coupling = coupling_of(graph, self.name)
        mask, importance = graph.note(KeepMask), graph.note(Importance)
        if mask is None or importance is None:
            raise PassError("'swap' exchanges what an allocation chose: put a criterion and an allocation before it")
        keep, every = mask.mask, list(axes(coupling))
        places = np.full(coupling.size, -1, np.int64)  # what lies in the same tensors costs the same
        for number, group in enumerate(coupling.groups):
            places[group.units] = number
        before = after = 0.0
        for number, units in domains(coupling):
            units = units[~np.isnan(importance.scores[units])]
            reads = [] if keep[units].all() else [r for r in self.score.reads(graph, number) if r.energy > 0]
            if not reads:
                continue
            _, alike = np.unique([coupling.cell[units], places[units]], axis=1, return_inverse=True)
            found, costs = swapped(units, reads, keep, alike)
            if all(coupling.live(axis, found).any() for axis in every):
                keep, before, after = found, before + costs[0], after + costs[-1]
        return _noted(graph, keep, int((keep & ~mask.mask).sum()), before, after)


def _noted(graph: Graph, keep: Array, moved: int, before: float, after: float) -> Graph:
    """The graph with the mask, and a sentence in the allocation's remarks where anything moved."""
    done = graph.note(Allocation)
    graph = graph.with_note(KeepMask(keep))
    if done is None or not moved:
        return graph
    remark = f"swaps: {moved} channels changed places, which costs {1 - after / before:.1%} less"
    return graph.with_note(dataclasses.replace(done, remarks=(*done.remarks, remark)))
