"""A planned network: kernels to call in order, and what they read and write."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import Field, dataclass, field, replace
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from secateur.ir.graph import Attr

from .tensors import Address, AnyArray, Arena, Buffer

Attrs = Mapping[str, Attr]  # of a node, by name
T = TypeVar("T")
OUTPUT = "output:"  # the port of a result begins with this


class Frozen(Hashable, Protocol):
    """A frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


Spec = Frozen  # what a kernel computes: of a family, or a TensorSpec
Choice = Frozen  # how its template is tiled


@dataclass(frozen=True)
class TensorSpec:
    """A node computed on row-major tensors by TVM's operator library: shapes, types and constants are part of it."""

    op: str
    attrs: tuple[tuple[str, Attr], ...]
    inputs: tuple[tuple[tuple[int, ...], str] | None, ...]
    outputs: tuple[tuple[tuple[int, ...], str], ...]


@dataclass(eq=False)
class Constant:
    """Bytes among the weights; ``offset``, in bytes, is known when all of them are laid out."""

    data: bytes
    offset: int = -1


@dataclass(frozen=True)
class Weight:
    """An address in the weights, ``delta`` bytes from where a constant begins."""

    constant: Constant
    delta: int = 0

    @property
    def offset(self) -> int:
        """Bytes from the start of the weights."""
        return self.constant.offset + self.delta

    def at(self, delta: int) -> Weight:
        """So many bytes further on."""
        return Weight(self.constant, self.delta + delta)


@dataclass(frozen=True)
class Port:
    """The memory of a graph input or output."""

    name: str


@dataclass(frozen=True, eq=False)
class Table:
    """Offsets in floats, known when buffers are placed: of places, or plain numbers.

    With ``places`` each number counts from one of them, entry i from ``places[of[i]]``: for tables that are long.
    """

    entries: tuple[Address | int, ...] | NDArray[np.int64]
    base: Address | None = None
    places: tuple[Address, ...] = ()
    of: NDArray[np.int64] | None = None

    def resolve(self) -> NDArray[np.int32]:
        """The numbers; relative to ``base`` if there is one."""
        if isinstance(self.entries, np.ndarray):
            if self.of is None:
                return self.entries.astype(np.int32)
            return (self.entries + np.array([p.offset for p in self.places], np.int64)[self.of]).astype(np.int32)
        start = 0 if self.base is None else self.base.offset
        return np.array([e if isinstance(e, int) else e.offset - start for e in self.entries], np.int32)


Argument = Address | Weight | Port | Table


@dataclass(frozen=True, eq=False)
class Call:
    """One kernel call. ``spec`` is a kernel family's or a ``TensorSpec``, ``choice`` is how its template is tiled;
    ``label`` names the layer.

    Calls of one ``step`` need nothing of each other, so there is a barrier only when it ends. A kernel for a single
    thread is called by one ``worker``, the first if it says none; those for several are partitioned among all.
    """

    spec: Spec
    choice: Choice | None
    arguments: tuple[Argument, ...]
    label: str = ""
    step: int = 0
    worker: int | None = None


Choose = Callable[..., Any]  # (spec, *others that compute the same) -> the choice of one of them, as its type says
Write = Callable[[Any], tuple[Spec, Sequence[Argument]]]  # a choice -> the spec it is of, and the arguments of the call


@dataclass(frozen=True, eq=False)
class Open:
    """A call whose tiling is not chosen yet: by ``write``, once one of ``specs`` has its choice.

    ``call`` is the index of the call, ``constants`` and ``buffers`` say where those that it adds belong.
    """

    call: int
    specs: tuple[Spec, ...]
    write: Write
    also: tuple[Buffer, ...]
    constants: int
    buffers: int


@dataclass
class Program:
    """Calls in order, constants, and the arena.

    ``choose`` tiles the kernels; without it, calls that are tiled stay open until ``settle``, and their weights are
    packed no sooner: who tunes plans once, measures what is open, and packs once.
    """

    choose: Choose | None = None
    calls: list[Call] = field(default_factory=list)
    constants: list[Constant] = field(default_factory=list)
    arena: Arena = field(default_factory=Arena)
    by_library: list[str] = field(default_factory=list)  # nodes that no template computes
    step: int = 0  # of the next call
    open: list[Open] = field(default_factory=list)

    @property
    def weight_bytes(self) -> int:
        """Of all constants."""
        return sum(len(constant.data) for constant in self.constants)

    def weight(self, array: AnyArray) -> Weight:
        """Store constants; returns their address, aligned to a cache line."""
        data = np.ascontiguousarray(array).tobytes()
        self.constants.append(Constant(data + bytes(-len(data) % 64 or (64 if not data else 0))))
        return Weight(self.constants[-1])

    def lay_out(self) -> NDArray[np.float32]:
        """All constants one after another; from here on weights have their offsets."""
        at = 0
        for constant in self.constants:
            constant.offset = at
            at += len(constant.data)
        return np.frombuffer(b"".join(constant.data for constant in self.constants) or bytes(64), np.float32)

    def call(self, spec: Spec, choice: Choice | None, arguments: Sequence[Argument], label: str,
             also: Sequence[Buffer] = (), worker: int | None = None, more: bool = False) -> None:  # fmt: skip
        """Append a call; every buffer it names, and those in ``also``, live until its step ends.

        ``worker``: see ``Call``. ``more``: the next call needs nothing of this one, so it is of the same step.
        """
        self.calls.append(Call(spec, choice, tuple(arguments), label, self.step, worker))
        self._touch(self.calls[-1], also)
        self.step += not more

    def tiled(self, specs: Sequence[Spec], write: Write, label: str, also: Sequence[Buffer] = (),
              worker: int | None = None, more: bool = False) -> None:  # fmt: skip
        """Append the call of the one of ``specs`` (all compute the same) that is chosen, now or by ``settle``."""
        if self.choose is not None:
            choice = self.choose(*specs)
            spec, arguments = write(choice)
            self.call(spec, choice, arguments, label, also, worker, more)
            return
        marks = len(self.constants), len(self.arena.buffers)
        self.open.append(Open(len(self.calls), tuple(specs), write, tuple(also), *marks))
        self.calls.append(Call(specs[0], None, (), label, self.step, worker))
        self.step += not more

    def settle(self, choose: Choose) -> None:
        """Write the calls that are open: the program is then the one that planning with ``choose`` makes."""
        constants, buffers, more = self.constants, self.arena.buffers, (0, 0)
        while self.open:
            late = self.open.pop(0)
            before = len(constants), len(buffers)
            choice = choose(*late.specs)
            spec, arguments = late.write(choice)
            call = replace(self.calls[late.call], spec=spec, choice=choice, arguments=tuple(arguments))
            self.calls[late.call] = call
            self._touch(call, late.also)
            more = (more[0] + _move_back(constants, before[0], late.constants + more[0]),
                    more[1] + _move_back(buffers, before[1], late.buffers + more[1]))  # fmt: skip

    @staticmethod
    def _touch(call: Call, also: Sequence[Buffer]) -> None:
        for argument in call.arguments:
            entries = argument.entries if isinstance(argument, Table) else (argument,)
            places = entries if isinstance(entries, tuple) else ()
            for place in (*places, *(argument.places if isinstance(argument, Table) else ())):
                if isinstance(place, Address):
                    place.buffer.touch(call.step)
        for buffer in also:
            buffer.touch(call.step)


def _move_back(items: list[T], first: int, to: int) -> int:
    """Move what stands from ``first`` on to ``to``; how many there were."""
    new = items[first:]
    del items[first:]
    items[to:to] = new
    return len(new)
