"""``gather``: the pass that runs the sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from secateur.ir import Graph, InputError
from secateur.passes.context import context_of
from secateur.passes.notes import Coupling
from secateur.passes.pipeline import Pass

from .needs import Statistics

if TYPE_CHECKING:
    from secateur.passes.score.criterion import Criterion


@dataclass(frozen=True)
class Gather:
    """Sweep once over the calibration data for everything that these criteria need.

    The data are those of the graph's ``Context``. ``batch``: examples that are run at a time, which bounds the memory.
    Who asks the same of the same network again gets what the first sweep found: runs that differ by their budget alone
    share one.
    """

    name: ClassVar[str] = "gather"
    criteria: tuple[Criterion, ...] = field(repr=False)
    batch: int = 8

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError where a criterion needs data and there are none, and as ``sweep`` does."""
        asking = [c for c in self.criteria if c.needs(graph)]
        if not asking:
            return graph
        context = context_of(graph)
        calibration = context.calibration
        if calibration is None:
            raise InputError(
                f"criterion '{asking[0].name}' looks at what flows through the network, so it needs calibration data: "
                "give calibration=batches in Python, --calibration FILE.npz or a folder of images on the command line, "
                "or choose a criterion that reads weights alone (l1, l2, fpgm)"
            )
        if (found := _known(calibration.swept, self, graph)) is not None:
            return graph.with_note(found)
        from .run import sweep

        needs = [need for criterion in asking for need in criterion.needs(graph)]
        done = sweep(
            graph, calibration.data, needs, seed=calibration.seed, batch=self.batch, progress=context.progress,
            examples=calibration.examples,
        )  # fmt: skip
        if not calibration.swept:  # the first network's alone: slim ones differ from budget to budget
            calibration.swept.append((self, done))
        return done


def _known(swept: Sequence[tuple[Pass, Graph]], step: Gather, graph: Graph) -> Statistics | None:
    """What a sweep found that asked the same of a network of the same nodes, weights and coupling."""
    for done, of in swept:
        if done == step and _same(of, graph):
            return of.note(Statistics)
    return None


def _same(one: Graph, other: Graph) -> bool:
    """Are they the same to a sweep? Weights are compared, since each run may have read its own."""
    mine, theirs = one.note(Coupling), other.note(Coupling)
    if (
        mine is None
        or theirs is None
        or not all(np.array_equal(getattr(mine, part), getattr(theirs, part)) for part in ("frozen", "domain"))
    ):
        return False
    if (one.inputs, one.nodes, one.outputs) != (other.inputs, other.nodes, other.outputs):
        return False
    weights = other.weights
    return one.weights.keys() == weights.keys() and all(
        w is weights[name] or (w.dtype == weights[name].dtype and np.array_equal(w, weights[name]))
        for name, w in one.weights.items()
    )
