"""What a library is judged by: one run next to its network in float32, and where these differ, in double precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from secateur.ir import Array, Error, Graph, LawError
from secateur.ir.numeric import doubtful, moved, random_inputs, relative_error, worst_slice
from secateur.ir.precision import HALF, ROUNDING, doubled, doubled_feed, tolerance, widened, widened_feed
from secateur.run import evaluate

if TYPE_CHECKING:
    from secateur.codegen import Library

TOLERANCE = 1e-3  # of the largest output: a wrong kernel is far off, sums in another order are not
FINE = 1e-4  # a library that is further off has to be as good as float32, or does without fast algorithms


@dataclass(frozen=True)
class Verdict:
    """How far a library is from its network in float32: ``error`` of the largest output, and what else is ``wrong``."""

    error: float
    wrong: str = ""

    def within(self, limit: float) -> bool:
        """Nothing is wrong, and the error is no larger."""
        return not self.wrong and self.error <= limit


class Check:
    """A network on random inputs, or on those that are ``given``: what libraries of it are compared with.

    A graph in half precision is computed in float32 for that, so that only the library's roundings count.
    """

    def __init__(self, graph: Graph, given: dict[str, Array] | None = None) -> None:
        wide = widened(graph)
        self.original, self.given = graph, random_inputs(graph, 0) if given is None else given
        self.graph, self.feed = (graph, self.given) if wide is None else (wide, widened_feed(self.given))
        self.limit = tolerance(graph, TOLERANCE)
        halves = {graph.value(name).dtype for name in graph.outputs} & HALF
        self.fine = FINE + max((ROUNDING[name] for name in halves), default=0.0)
        self.slices = tolerance(graph, FINE)  # by which they are judged, see ``worst_slice``

    @cached_property
    def wants(self) -> list[Array]:
        """The outputs in float32."""
        return evaluate(self.graph, self.feed)

    @cached_property
    def double(self) -> Graph | None:
        """The network in double precision; None where an operator has no such form."""
        return doubled(self.graph)

    @cached_property
    def exact(self) -> list[Array] | None:
        """The outputs in double precision; None where an operator has no code for that."""
        if self.double is None:
            return None
        try:
            return evaluate(self.double, doubled_feed(self.feed))
        except Error:
            return None

    @cached_property
    def own(self) -> float | None:
        """How far float32 itself is from double precision; None where that is not known."""
        if self.exact is None:
            return None
        return max((relative_error(a, b) for a, b in zip(self.exact, self.wants, strict=True)), default=0.0)

    def outputs(self, library: Library) -> Sequence[Array]:
        """What a library computes."""
        found = library(*self.given.values())
        return found if isinstance(found, tuple) else (found,)

    def verdict(self, outputs: Sequence[Array]) -> Verdict:
        """How far outputs are off."""
        wants = self.wants
        error = max((relative_error(want, have) for want, have in zip(wants, outputs, strict=True)), default=0.0)
        if not doubtful(wants, outputs, self.slices):
            return Verdict(error)
        noisy = evaluate(*moved(self.graph, self.feed))
        for name, want, have, noise in zip(self.graph.outputs, wants, outputs, noisy, strict=True):
            wrong = worst_slice(want, have, self.slices, noise)
            if wrong is not None:
                return Verdict(error, f"in '{name}' {wrong}")
        return Verdict(error)

    def as_good_as_float32(self, outputs: Sequence[Array]) -> bool:
        """Are outputs no further from double precision than twice what the network in float32 is?

        So it is where a network magnifies roundings, such as a variance written as E[x^2] - E[x]^2.
        """
        if self.exact is None:
            return False
        return all(
            relative_error(want, have) <= 2 * relative_error(want, near) and worst_slice(want, have, FINE, near) is None
            for want, have, near in zip(self.exact, outputs, self.wants, strict=True)
        )

    def passed(self, outputs: Sequence[Array]) -> bool:
        """As close to float32 as sums in another order are, or as good as it is."""
        return self.accepted(outputs, self.fine)

    def accepted(self, outputs: Sequence[Array], limit: float) -> bool:
        """No further off than this, or as good as float32 is."""
        return self.verdict(outputs).within(limit) or self.as_good_as_float32(outputs)


def differs(graph: Graph, how: str) -> LawError:
    """That a library computes something else than its network."""
    return LawError(
        f"the library of '{graph.name}' differs from the network: {how}. This is a fault in code "
        "generation, so nothing is handed out; run the ONNX file in ONNX Runtime"
    )
