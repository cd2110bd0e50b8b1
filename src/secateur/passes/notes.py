"""What the analyses find out about a graph, kept with it as notes keyed by type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from secateur.ir import Array


@dataclass(frozen=True, slots=True, eq=False)
class Channels:
    """Where a value keeps its channels: one unit per position along ``axis``; -1 has no unit."""

    axis: int
    units: Array


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """A weight axis that carries channels.

    ``units`` has one entry per position, -1 where nothing can be removed. ``role`` is "out" (rows of a
    producer), "in" (columns of a consumer) or "tied" (a parameter applied channel by channel). For a
    grouped convolution's input axis ``groups`` > 1 and ``units`` covers all groups one after the other.
    """

    weight: str
    axis: int
    units: Array
    role: str
    node: str
    groups: int = 1

    def __str__(self) -> str:
        return f"{self.weight}[{self.axis}]"


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Units with the same slots. ``frozen`` is the reason why none of them may be removed, or None."""

    id: str
    units: Array
    slots: tuple[str, ...]
    why: tuple[str, ...]
    frozen: str | None

    @property
    def size(self) -> int:
        return len(self.units)


@dataclass(frozen=True, slots=True, eq=False)
class Constraint:
    """Blocks of positions that must keep equally many survivors (a grouped convolution's groups)."""

    node: str
    side: str
    units: Array
    block: Array


@dataclass(frozen=True, slots=True, eq=False)
class Mixing:
    """A node that reads across channels without a weight that could be cut.

    ``mode``: "sum" (exact on the kept channels), "mean" (exact once rescaled), "kept" (statistics over
    the kept channels: inexact), "expand" (the node sees zeros at full width), "pick" (an operand that has all channels
    is read where the others live), "select" (the same, and what is not read has to be zero), "own" (a layer that keeps
    its own channels of what it reads: its weight lists them).
    """

    node: str
    label: str
    input: int
    axis: int
    units: Array
    mode: str


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """An orbit whose cells are not alike: the numbers of survivors that they may have together.

    ``counts`` is int[levels, cells], rising; the last level keeps all.
    """

    cells: Array
    counts: Array


@dataclass(frozen=True)
class Coupling:
    """Which channels live and die together, and which may not die.

    ``domain`` numbers the domain in which units compete (same producers, or bound by the same constraints);
    ``cell`` numbers, inside a domain, the sets that must keep equally many units: cells with the same
    ``orbit`` keep the same count, or stand on the same level where ``levels`` lists their orbit.
    Unconstrained units have a cell of their own domain and orbit. ``channels`` has the axis of each value that carries
    some, ``seconds`` a second one: of weights that are computed, rows and columns. ``own`` (``coupling.own``): the last
    units are those of readers that keep their own channels, and this says for each which unit is read there.
    """

    size: int
    channels: Mapping[str, Channels]
    slots: tuple[Slot, ...]
    groups: tuple[Group, ...]
    constraints: tuple[Constraint, ...]
    mixing: tuple[Mixing, ...]
    frozen: Array
    domain: Array
    cell: Array
    orbit: Array
    blocked: Mapping[str, str]  # nodes whose own output channels have no unit, with the reason
    levels: Mapping[int, Levels] = field(default_factory=dict)
    seconds: Mapping[str, Channels] = field(default_factory=dict)
    own: Array = field(default_factory=lambda: np.zeros(0, np.int64))

    def lines(self) -> list[str]:
        """One paragraph a group for the text form: size, slots, and why they are tied or frozen."""
        out = []
        for group in self.groups:
            out.append(f"group {group.id}: {group.size} channels")
            out.append(f"  slots  {' '.join(group.slots) or 'none'}")
            out += [f"  why    {why}" for why in group.why]
            cells = len(np.unique(self.cell[group.units]))
            if cells > 1:
                out.append(f"  cells  {cells} that keep equally many")
            if group.frozen:
                out.append(f"  frozen {group.frozen}")
        return out

    def live(self, units: Array, keep: Array) -> Array:
        """bool per position: does it survive ``keep`` (bool[size])? Positions without a unit do."""
        result: Array = np.append(keep, True)[units]  # the last entry answers for position -1
        return result


class Survivors:
    """What a keep mask (bool[size]) leaves of each axis, worked out once for each array of units."""

    def __init__(self, keep: Array) -> None:
        self._kept = np.append(keep, True)  # the last entry answers for position -1
        self._known: dict[int, tuple[Array, Array]] = {}  # the units are held, so that no other array takes their id

    def __call__(self, units: Array) -> Array:
        """bool per position: does it survive? Positions without a unit do. Not to be written to."""
        found = self._known.get(id(units))
        if found is None:
            found = self._known[id(units)] = (units, self._kept[units])
        return found[1]


@dataclass(frozen=True, eq=False)
class Importance:
    """One score per unit, higher = keep. ``criterion`` is the spec that gave it."""

    scores: Array
    criterion: str


@dataclass(frozen=True, eq=False)
class KeepMask:
    """bool per unit, True = stays."""

    mask: Array
