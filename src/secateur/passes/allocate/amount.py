"""How much may remain, and what every allocation is asked for and leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from secateur.ir import InputError
from secateur.passes.pipeline import Pass

KINDS = ("macs", "params", "bytes", "channels")
TIMED = ("latency_ms", "speedup")  # budgets that no count can tell
UNITS = {"macs": "multiply-accumulates", "params": "parameters", "bytes": "bytes of weights", "channels": "channels"}


@dataclass(frozen=True)
class Amount:
    """What must remain at most: a share of the original (float up to 1), an absolute number (int), or milliseconds;
    or ``speedup``, how many times as fast at least.
    """

    kind: str
    value: float | int

    @property
    def share(self) -> bool:
        return isinstance(self.value, float) and self.kind not in TIMED

    def limit(self, before: int) -> int:
        """The absolute number."""
        return int(self.value * before) if self.share else int(self.value)


@dataclass(frozen=True)
class Trial:
    """A network that a budget of time was tried with: the ``share`` it was allocated, and its time.

    ``widths``: channels in and out by layer. ``taken``: it is the one that was allocated in the end. ``off``: half of
    the nominal 95 % interval of its time next to the original's, as a share.
    """

    share: float
    ms: float
    original_ms: float
    widths: Mapping[str, tuple[int, int]]
    taken: bool = False
    off: float = 0.0


@dataclass(frozen=True)
class Allocation:
    """What the allocator did, for the report. ``reached`` is in the budget's unit; ``remarks`` are sentences.

    ``amount`` is None where there was no budget: then ``before`` and ``reached`` count channels.

    ``round_to`` is the number that was used in the end: with it, the same policy gives the same on any machine.
    ``gap``: of an allocation that minimises a loss, by which share of it a better choice may lose less; 1e-4 at most is
    proven, None where nothing is minimised or nothing is known. ``tried``: under a budget of time, every network that
    was measured, in order.
    """

    outlives_rewrites = True
    amount: Amount | None
    before: float
    reached: float
    round_to: int
    remarks: tuple[str, ...] = ()
    gap: float | None = None
    tried: tuple[Trial, ...] = ()

    @property
    def achieved(self) -> float | int:
        """In the terms of the target: a share, or an absolute number."""
        share = self.amount is not None and self.amount.share and self.before
        return self.reached / self.before if share else self.reached


class Allocator(Pass, Protocol):
    """A pass that divides one budget by scores: coupling and ``Importance`` in, ``KeepMask`` and ``Allocation`` out."""

    @property
    def macs(self) -> float | int | None:
        """What remains at most of the multiply-accumulates: a share, or so many; None for no such budget."""

    @property
    def params(self) -> float | int | None:
        """The same of the parameters."""

    @property
    def bytes(self) -> float | int | None:
        """The same of the bytes of weights."""

    @property
    def latency_ms(self) -> float | None:
        """Milliseconds that a run may take at most; None for no such budget."""

    @property
    def speedup(self) -> float | None:
        """How many times as fast as the original a run must be at least; None for no such budget."""

    @property
    def round_to(self) -> int | str:
        """Widths are multiples of this; "auto" follows the target's vectors."""

    @property
    def rounds(self) -> int:
        """In how many steps to prune, repairing and scoring again after each."""


def takes_budget(method: object) -> bool:
    """Is this allocation method told how much may remain? One that says ``budgeted = False`` finds that out itself."""
    return bool(getattr(method, "budgeted", True))


@dataclass(frozen=True)
class Budgeted:
    """The options of allocations under one budget of multiply-accumulates, parameters, bytes or time."""

    name: ClassVar[str]
    macs: float | int | None = None
    params: float | int | None = None
    bytes: float | int | None = None
    latency_ms: float | None = None
    speedup: float | None = None
    round_to: int | str = "auto"
    rounds: int = 1

    @property
    def amount(self) -> Amount:
        """The one that was given. Raises InputError as ``one_amount`` does."""
        return one_amount(self.name, macs=self.macs, params=self.params, bytes=self.bytes)


def one_amount(method: str, **given: float | int | None) -> Amount:
    """The one budget that was given. Raises InputError for none, for two, and for senseless values.

    Time is none that an allocator can count: a policy turns it into multiply-accumulates (``Timed``).
    """
    named = {kind: value for kind, value in given.items() if value is not None}
    if len(named) != 1:
        what = "no budget" if not named else f"the budgets {' and '.join(named)}"
        raise InputError(
            f"'{method}' was given {what}; name exactly one of {', '.join(KINDS)}, for example {method}{{macs=50%}}"
        )
    ((kind, value),) = named.items()
    check_amount(kind, value)
    return Amount(kind, value)


def check_amount(kind: str, value: float | int) -> None:
    """Raises InputError where the value is neither a share nor an absolute number."""
    if kind == "latency_ms":
        if not 0 < value < float("inf"):
            raise InputError(f"budget latency_ms={value:g}: give milliseconds above 0, such as 12.5")
        return
    if kind == "speedup":
        if not 1 < value < float("inf"):
            raise InputError(f"budget speedup={value:g}: give how many times as fast, above 1, such as 2x")
        return
    if isinstance(value, float) and not 0 < value <= 1:
        raise InputError(
            f"budget {kind}={value:g}: a share lies above 0 and is at most 1 (100%), as what remains; "
            "an absolute number is written whole, such as 120M or 120000000"
        )
    if isinstance(value, int) and (value <= 0 or kind == "channels"):
        raise InputError(
            f"budget {kind}={value}: give {'a share such as 50%' if kind == 'channels' else 'more than 0'}"
        )
