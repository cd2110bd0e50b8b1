"""``gather``: the pass that runs the sweep, with the data that the caller gave."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from secateur.ir import Graph, InputError

if TYPE_CHECKING:
    from secateur.passes.score.criterion import Criterion


@dataclass(frozen=True)
class Gather:
    """Sweep over the calibration data for everything that these criteria need; nothing where they need nothing.

    ``data`` can be gone through more than once. It is no part of a policy's text: the front door puts this pass where
    a criterion asks for it.
    """

    name: ClassVar[str] = "gather"
    criteria: tuple[Criterion, ...] = field(repr=False)
    data: Iterable[Any] | None = field(default=None, compare=False, repr=False)
    seed: int = field(default=0, repr=False)
    batch: int = 8
    progress: Callable[[int], None] | None = field(default=None, compare=False, repr=False)

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError where a criterion needs data and there are none, and as ``sweep`` does."""
        asking = [c for c in self.criteria if c.needs(graph)]
        if not asking:
            return graph
        if self.data is None:
            raise InputError(
                f"criterion '{asking[0].name}' looks at what flows through the network, so it needs calibration data: "
                "give calibration=batches in Python, --calibration FILE.npz or a folder of images on the command line, "
                "or choose a criterion that reads weights alone (l1, l2, fpgm)"
            )
        from .run import sweep

        needs = [need for criterion in asking for need in criterion.needs(graph)]
        return sweep(graph, self.data, needs, seed=self.seed, batch=self.batch, progress=self.progress)
