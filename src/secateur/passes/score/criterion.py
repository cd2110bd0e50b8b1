"""What a criterion is: a pass that leaves ``Importance``, and says beforehand what it needs to know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from secateur.ir import Graph, InputError
from secateur.passes.pipeline import Pass
from secateur.passes.sweep.needs import Need

if TYPE_CHECKING:
    from .obs_swaps import Read


class Criterion(Pass, Protocol):
    """``needs(graph)`` lists statistics for the coupled graph; the pass finds them in its ``Statistics`` note.

    ``data``: does it need calibration data? ``unscored`` says why a unit may come out without a score (NaN), for the
    report. No criterion runs the network.
    """

    data: ClassVar[bool]
    unscored: ClassVar[str]

    def needs(self, graph: Graph) -> tuple[Need, ...]:
        """The statistics that it reads, of the coupled graph; none where it reads weights alone."""


@runtime_checkable
class Exchanging(Protocol):
    """A criterion that also prices a choice as a whole, so that channels can be exchanged (``swap``)."""

    @property
    def swaps(self) -> bool:
        """Should they be?"""

    def reads(self, graph: Graph, domain: int) -> Iterator[Read]:
        """Every group of every layer that reads units of a domain, which loses by what is left out."""


@runtime_checkable
class ByReader(Protocol):
    """A criterion that says what channels are worth to each layer that reads them (``knapsack{readers=own}``)."""

    def by_reader(self, graph: Graph) -> Iterator[tuple[str, Read]]:
        """(node, what it reads of all units), of every layer and each of its groups."""


class OfWeights:
    """What criteria that look at weights alone have in common: they need no data."""

    data: ClassVar[bool] = False
    unscored: ClassVar[str] = "no floating weight produces or consumes it"

    def needs(self, graph: Graph) -> tuple[Need, ...]:
        """Nothing."""
        return ()


def check_criterion(given: Criterion) -> Criterion:
    """The criterion itself. Raises InputError where an object of the user's own lacks what a criterion has."""
    lacks = [part for part in ("name", "data", "unscored", "needs") if not hasattr(given, part)]
    if isinstance(given, type) or not callable(given):
        lacks.append("__call__ (an object that is called with the graph, not a class)")
    if lacks:
        raise InputError(
            f"criterion {given!r:.60} lacks {', '.join(lacks)}; derive it from secateur.passes.OfWeights, name it, and "
            "let __call__(graph) return graph.with_note(Importance(scores, name))"
        )
    return given
