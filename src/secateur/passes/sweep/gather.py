"""``gather``: the pass that runs the sweep."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from secateur.ir import Graph, InputError
from secateur.passes.context import context_of

if TYPE_CHECKING:
    from secateur.passes.score.criterion import Criterion


@dataclass(frozen=True)
class Gather:
    """Sweep once over the calibration data for everything that these criteria need.

    The data are those of the graph's ``Context``. ``batch``: examples that are run at a time, which bounds the memory.
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
        from .run import sweep

        needs = [need for criterion in asking for need in criterion.needs(graph)]
        return sweep(
            graph, calibration.data, needs, seed=calibration.seed, batch=self.batch, progress=context.progress,
            examples=calibration.examples,
        )  # fmt: skip
