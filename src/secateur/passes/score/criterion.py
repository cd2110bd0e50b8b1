"""What a criterion is: a pass that leaves ``Importance``, and says beforehand what it needs to know."""

from __future__ import annotations

from typing import ClassVar, Protocol

from secateur.ir import Graph
from secateur.passes.pipeline import Pass
from secateur.passes.sweep.needs import Need


class Criterion(Pass, Protocol):
    """``needs(graph)`` lists statistics for the coupled graph; the pass finds them in its ``Statistics`` note.

    ``data``: does it need calibration data? ``unscored`` says why a unit may come out without a score (NaN), for the
    report. No criterion runs the network.
    """

    data: ClassVar[bool]
    unscored: ClassVar[str]

    def needs(self, graph: Graph) -> tuple[Need, ...]: ...


class OfWeights:
    """What criteria that look at weights alone have in common: they need no data."""

    data: ClassVar[bool] = False
    unscored: ClassVar[str] = "no floating weight produces or consumes it"

    def needs(self, graph: Graph) -> tuple[Need, ...]:
        """Nothing."""
        return ()
