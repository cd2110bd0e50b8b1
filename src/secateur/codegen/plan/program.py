"""A planned network: kernels to call in order, and what they read and write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .tensors import Arena, Buffer, Place

OUTPUT = "output:"  # the port of a result begins with this


@dataclass(frozen=True)
class TensorSpec:
    """A node computed row by row through TVM's operator library: shapes, types and constants are part of it."""

    op: str
    attrs: tuple[tuple[str, Any], ...]
    inputs: tuple[tuple[tuple[int, ...], str] | None, ...]
    outputs: tuple[tuple[tuple[int, ...], str], ...]


@dataclass(frozen=True)
class Weight:
    """An address in the weights, in bytes."""

    offset: int


@dataclass(frozen=True)
class Port:
    """The memory of a graph input or output."""

    name: str


@dataclass(frozen=True, eq=False)
class Table:
    """Offsets in floats, known when buffers are placed: of places, or plain numbers."""

    entries: tuple[Place | int, ...] | NDArray[np.int64]
    base: Place | None = None

    def resolve(self) -> NDArray[np.int32]:
        """The numbers; relative to ``base`` if there is one."""
        if isinstance(self.entries, np.ndarray):
            return self.entries.astype(np.int32)
        start = 0 if self.base is None else self.base.offset
        return np.array([e if isinstance(e, int) else e.offset - start for e in self.entries], np.int32)


Argument = Place | Weight | Port | Table


@dataclass(frozen=True, eq=False)
class Call:
    """One kernel call. ``spec`` is a kernel family's or a ``TensorSpec``, ``choice`` is how its template is tiled;
    ``label`` names the layer.

    Calls of one ``step`` need nothing of each other, so threads meet only when it ends. A kernel for a single thread is
    called by one ``worker``, the first if it says none; those for several are shared by all.
    """

    spec: Any
    choice: Any
    arguments: tuple[Argument, ...]
    label: str = ""
    step: int = 0
    worker: int | None = None


@dataclass
class Program:
    """Calls in order, weights as bytes, and the arena."""

    calls: list[Call] = field(default_factory=list)
    weights: list[bytes] = field(default_factory=list)
    weight_bytes: int = 0
    arena: Arena = field(default_factory=Arena)
    by_library: list[str] = field(default_factory=list)  # nodes that no template computes
    step: int = 0  # of the next call

    def weight(self, array: NDArray[Any]) -> Weight:
        """Store constants; returns their address, aligned to a cache line."""
        data = np.ascontiguousarray(array).tobytes()
        data += bytes(-len(data) % 64 or (64 if not data else 0))
        at = Weight(self.weight_bytes)
        self.weights.append(data)
        self.weight_bytes += len(data)
        return at

    def call(self, spec: Any, choice: Any, arguments: Sequence[Argument], label: str,
             also: Sequence[Buffer] = (), worker: int | None = None, more: bool = False) -> None:  # fmt: skip
        """Append a call; every buffer it names, and those in ``also``, live until its step ends.

        ``worker``: see ``Call``. ``more``: the next call needs nothing of this one, so it is of the same step.
        """
        self.calls.append(Call(spec, choice, tuple(arguments), label, self.step, worker))
        for argument in arguments:
            places = argument.entries if isinstance(argument, Table) else (argument,)
            for place in places if isinstance(places, tuple) else ():
                if isinstance(place, Place):
                    place.buffer.touch(self.step)
        for buffer in also:
            buffer.touch(self.step)
        self.step += not more
