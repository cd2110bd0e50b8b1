"""What a report is made of. Counts are of multiply-accumulates, parameters, bytes and nodes; times are milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from secateur.ir.fields import Fields, Json

Widths: TypeAlias = tuple[int, int]  # channels in, channels out
State: TypeAlias = Literal["pruned", "frozen", "kept"]


@dataclass(frozen=True, eq=False)
class Totals(Fields):
    """What a whole network costs. ``macs`` counts a multiplication with its addition as 1."""

    macs: int
    params: int
    bytes: int
    nodes: int

    def of(self, kind: str) -> int:
        """The total by its name. Raises KeyError for another name."""
        return {"macs": self.macs, "params": self.params, "bytes": self.bytes, "nodes": self.nodes}[kind]


@dataclass(frozen=True, eq=False)
class Trial(Fields):
    """A network that a budget of time was tried with; see ``allocate.amount.Trial``."""

    share: float
    ms: float
    original_ms: float
    taken: bool
    off: float
    widths: Mapping[str, Widths]


@dataclass(frozen=True, eq=False)
class Budget(Fields):
    """What was to remain, of what ``kind``, and what does: shares as floats, amounts as whole numbers, or milliseconds.

    ``gap`` is how much better a choice could be at most, relative; None where the method proves nothing. ``tried``:
    under a budget of time every network that was measured, the one that was taken and the widths that were rejected.
    """

    kind: str
    target: float | int
    achieved: float | int
    gap: float | None = None
    tried: tuple[Trial, ...] = ()

    def to_dict(self) -> dict[str, Json]:
        """As JSON has it; without ``tried`` where nothing was measured."""
        found = super().to_dict()
        return found if self.tried else {name: value for name, value in found.items() if name != "tried"}


@dataclass(frozen=True, eq=False)
class Group(Fields):
    """Channels that live and die together: ``kept`` of ``size`` units stay.

    ``slots`` are axes of weights (``conv1.weight[0]``), ``why`` what ties them, ``frozen`` the reason if none may go.
    """

    id: str
    size: int
    kept: int
    slots: tuple[str, ...]
    why: tuple[str, ...]
    frozen: str | None


@dataclass(frozen=True, eq=False)
class Layer(Fields):
    """One layer before and after; the second is None where nothing was changed, as in an inspection.

    ``reason`` says why its outputs stay, or what a rewrite made of it.
    """

    name: str
    op: str
    macs: tuple[int, int | None]
    params: tuple[int, int | None]
    widths: tuple[Widths, Widths | None]
    state: State
    reason: str | None


@dataclass(frozen=True, eq=False)
class Quantiles(Fields):
    """Milliseconds of one run: the median, and what a tenth of the runs stays below and above."""

    median: float
    p10: float
    p90: float


@dataclass(frozen=True, eq=False)
class Latency(Fields):
    """Both networks timed side by side on this machine; ``ratio`` is how many times as fast the slim one is."""

    runtime: str
    threads: int
    before: Quantiles
    after: Quantiles
    ratio: float


@dataclass(frozen=True, eq=False)
class Quality(Fields):
    """How both networks answer, as shares of ``examples``.

    ``agreement``: the most likely class is the same; ``top1``: it is the label, before and after, None without labels.
    ``held_out``: nothing was fitted on these examples.
    """

    agreement: float
    top1: tuple[float, float] | None
    examples: int
    held_out: bool


@dataclass(frozen=True, eq=False)
class Deviation(Fields):
    """How far the outputs are from the original's on ``examples``.

    ``error``: the norm of the difference over that of the original's output, of the output that differs most, in the
    mean of all examples; ``low`` and ``high``: between these it lies on other examples, 95 times in 100.
    ``held_out``: nothing was fitted on these.
    """

    error: float
    low: float
    high: float
    examples: int
    held_out: bool


@dataclass(frozen=True, eq=False)
class PassRun(Fields):
    """A pass that ran, with its options, and the seconds it took."""

    spec: str
    seconds: float
