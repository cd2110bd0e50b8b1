"""What the rules of coupling record: where channels lie, which belong together, and which must stay.

Atoms are numbered from 1; 0 stands where nothing can be removed.
"""

from __future__ import annotations

from dataclasses import dataclass

from secateur.ir import Array, Node


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """Atoms along one axis of a value."""

    axis: int
    atoms: Array

    def moved(self, axis: int) -> Track:
        return self if axis == self.axis else Track(axis, self.atoms)


@dataclass(frozen=True, slots=True, eq=False)
class RawSlot:
    """An axis of a weight and the atom at each position, by the node that has the weight and its ``role`` there."""

    weight: str
    axis: int
    atoms: Array
    role: str
    node: str
    groups: int


@dataclass(frozen=True, slots=True, eq=False)
class RawConstraint:
    """Blocks of positions at a node that must keep equally many: the atom and the block at each."""

    node: str
    side: str
    atoms: Array
    block: Array


@dataclass(frozen=True, slots=True, eq=False)
class RawMixing:
    """An input of a node that mixes along channels without a weight, and the atoms along that axis."""

    node: Node
    input: int
    axis: int
    atoms: Array
    mode: str


@dataclass(frozen=True, slots=True, eq=False)
class Tie:
    """Atoms that live and die together, pair by pair, because of this node."""

    left: Array
    right: Array
    node: Node


@dataclass(frozen=True, slots=True, eq=False)
class Freeze:
    """Atoms that must stay, and why; ``node``: the one that ties them to what nothing can remove."""

    atoms: Array
    reason: str
    node: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class FullRead:
    """A layer whose input has no track: the axis of its weight that takes the input's channels, and theirs."""

    node: Node
    weight: str
    axis: int
    at: int
