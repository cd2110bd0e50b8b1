"""What the caller of the passes knows, kept apart from what analyses find (``notes``).

A graph carries one ``Context``. Whoever drives the passes adds to it (``in_context``), passes read it (``context_of``),
and it outlives rewrites: the model's cost before anything was done, the target's vectors, a way to measure time, data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol, TypedDict, Unpack

from secateur.ir import Graph
from secateur.ir.progress import Progress, quiet

from .analysis.cost import Costs
from .pipeline import Pass


class LatencyModel(Protocol):
    """A way to measure time."""

    def __call__(self, *graphs: Graph) -> Sequence[float]:
        """Milliseconds of one run of each graph, the median, measured side by side."""

    def layers(self, graph: Graph) -> Mapping[str, float]:
        """Milliseconds of each layer within a run, by its label; nothing where layers cannot be told apart."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Batches that can be gone through more than once.

    ``seed``: of what passes draw from them. ``examples``: how many there are, None where nobody counted. ``swept``: the
    first sweep over them and the graph that it left, for runs that ask the same of the same network (``gather``).
    """

    data: Iterable[object] = field(repr=False)
    seed: int = 0
    examples: int | None = None
    swept: list[tuple[Pass, Graph]] = field(default_factory=list, init=False, repr=False)


@dataclass(frozen=True, eq=False)
class Context:
    """What the caller knows; None where nobody said.

    ``baseline``: what shares of a budget refer to, the cost of the model as it was given. ``lanes``: channels in a
    vector of the target, which ``round_to=auto`` follows. ``latency``: measures graphs. ``calibration``: data.
    ``original``: the network that ``slim`` cut, which compensation compares with. ``given``: the network before the
    rewrites, where values of the same name still mean the same, which repairs follow that can make up for rewrites.
    ``checkpoints``: a folder in which passes that take long keep what they need to go on from. ``progress``: who is
    told what runs.
    """

    outlives_rewrites: ClassVar[bool] = True
    baseline: Costs | None = None
    lanes: int | None = None
    latency: LatencyModel | None = field(default=None, repr=False)
    calibration: Calibration | None = None
    original: Graph | None = field(default=None, repr=False)
    given: Graph | None = field(default=None, repr=False)
    checkpoints: Path | None = field(default=None, repr=False)
    progress: Progress = field(default=quiet, repr=False)


class _Known(TypedDict, total=False):
    baseline: Costs | None
    lanes: int | None
    latency: LatencyModel | None
    calibration: Calibration | None
    original: Graph | None
    given: Graph | None
    checkpoints: Path | None
    progress: Progress


def context_of(graph: Graph) -> Context:
    """What is known about this graph; an empty context where nobody added one."""
    return graph.note(Context) or Context()


def in_context(graph: Graph, **known: Unpack[_Known]) -> Graph:
    """The same graph, with these fields of its context set."""
    return graph.with_note(dataclasses.replace(context_of(graph), **known))
