"""Values that only copy others: seen as views where strides can say where they lie, else copied by tables.

An address is a memory's number and an offset in floats in one integer, so a chain of moves is NumPy on addresses
(``moves``), and what it comes to is looked at once, at its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .axes import nchw
from .copy_specs import TableCopySpec
from .program import Argument, Port, Program, Table, Weight
from .tensors import Address, Blocked, Buffer, Dense, Extent, Ints

SHIFT = 40  # an address is (memory << SHIFT) + offset
OFFSET = (1 << SHIFT) - 1
FEW = 1 << 14  # numbers that may have a table with an entry for each
PATTERNS = 64  # copies that a move may be taken apart into
Memory = Buffer | Port | Weight
# A part of a copy in vectors: memory (None: zeros), pixels, blocks, and where both lie from the memory's beginning.
VectorCopy = tuple[Memory | None, Ints, Ints, Ints | None, Ints | None]


@dataclass
class Memories:
    """Numbers for buffers, ports and weights."""

    known: list[Memory] = field(default_factory=list)

    def number(self, memory: Memory) -> int:
        """The memory's number, in the high bits of an address."""
        for i, other in enumerate(self.known):
            if other is memory or (not isinstance(memory, Buffer) and other == memory):
                return i << SHIFT
        self.known.append(memory)
        return (len(self.known) - 1) << SHIFT

    def of_blocked(self, x: Blocked, shape: tuple[int, ...], axis: int) -> Ints:
        """The address of each element of an NCHWc value."""
        places, extent = x.places(), x.extent
        firsts = np.array([self.number(b) + first for b, first in x.blocks], np.int64)
        channels = firsts[places // extent.lanes] + places % extent.lanes
        pixels = offsets_of(extent).reshape([d for i, d in enumerate(shape) if i != axis])
        found: Ints = np.moveaxis(pixels[..., None] + channels, -1, axis)
        return found

    def of_dense(self, x: Dense) -> Ints:
        """The address of each element of a row-major value."""
        memory = x.buffer if x.port is None else Port(x.port)
        assert memory is not None
        return self.number(memory) + np.arange(int(np.prod(x.shape)), dtype=np.int64).reshape(x.shape)

    def of_weight(self, weight: Weight, shape: tuple[int, ...]) -> Ints:
        """The address of each element of a constant."""
        return self.number(weight) + np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)

    def split(self, addresses: Ints) -> Iterator[tuple[Memory | None, NDArray[np.bool_]]]:
        """Each memory with the elements that lie in it; None for zeros."""
        numbers = addresses >> SHIFT
        for i, count in enumerate(np.bincount(numbers.reshape(-1) + 1)):
            if count:
                yield (None if i == 0 else self.known[i - 1]), numbers == i - 1


def offsets_of(extent: Extent) -> Ints:
    """Floats from the first pixel to each, [n, h, w]."""
    n, h, w = (np.arange(d, dtype=np.int64) for d in (extent.n, extent.h, extent.w))
    found: Ints = (n * extent.image)[:, None, None] + (h * extent.row)[:, None] + w * extent.column
    return found


def as_matrix(addresses: Ints, axis: int) -> Ints:
    """[pixels, channels]; of a single number one of each."""
    if not addresses.ndim:
        return addresses.reshape(1, 1)
    last = np.moveaxis(addresses, axis, -1)
    return last.reshape(-1, last.shape[-1])


def separate(matrix: Ints) -> tuple[Ints, Ints] | None:
    """Per row and per column summands that make up the matrix, the first row's 0; None if there are none."""
    rows, columns = matrix[:, 0] - matrix[0, 0], matrix[0]
    return (rows, columns) if np.array_equal(matrix, rows[:, None] + columns) else None


def view(memories: Memories, addresses: Ints, axis: int, lanes: int) -> Blocked | None:
    """The tensor with these addresses as blocks that are there already, if that is what it is."""
    n, c, h, w = nchw(addresses.shape, axis)
    matrix = as_matrix(addresses, axis)
    numbers = matrix >> SHIFT
    if numbers.min() < 0 or np.any(numbers != numbers[0]):  # zeros, or pixels of one channel in several memories
        return None
    apart = separate(matrix)
    if apart is None:
        return None
    rows, columns = apart
    steps = _affine(rows.reshape(n, h, w), lanes)
    offsets = columns & OFFSET
    starts = columns - offsets % lanes
    firsts, where = np.unique(starts, return_inverse=True)
    order = np.argsort([np.flatnonzero(where == i)[0] for i in range(len(firsts))])
    firsts, where = firsts[order], np.argsort(order)[where]
    if steps is None or len(np.unique(columns)) < c:
        return None
    buffers = [memories.known[f >> SHIFT] for f in firsts]
    if not all(isinstance(b, Buffer) for b in buffers) or not _lanes_are_written(memories, columns, starts, lanes):
        return None
    channels = np.full(len(firsts) * lanes, -1, np.int64)
    channels[where * lanes + offsets % lanes] = np.arange(c)
    first = [int(f) & OFFSET for f in firsts]
    block = first[1] - first[0] if len(first) > 1 else n * steps[0]
    blocks = tuple((b, f) for b, f in zip(buffers, first, strict=True) if isinstance(b, Buffer))
    return Blocked(Extent(n, h, w, 0, lanes, (block, *steps)), blocks, channels)


def _lanes_are_written(memories: Memories, columns: Ints, starts: Ints, lanes: int) -> bool:
    """May whole vectors be read? A buffer of blocks is written in all its lanes; a row-major one only where data is."""
    loose = [i for i, m in enumerate(memories.known) if isinstance(m, Buffer) and not m.blocks]
    inside = np.isin(columns >> SHIFT, loose)
    return not inside.any() or bool(np.all(np.unique(starts[inside], return_counts=True)[1] == lanes))


def _affine(offsets: Ints, lanes: int) -> tuple[int, int, int] | None:
    """Strides (image, row, column) in whole vectors that make up the offsets [n, h, w]."""
    n, h, w = offsets.shape
    column = int(offsets[0, 0, 1]) if w > 1 else lanes
    row = int(offsets[0, 1, 0]) if h > 1 else w * column
    image = int(offsets[1, 0, 0]) if n > 1 else h * row
    if any(s % lanes for s in (column, row, image)):
        return None
    made = offsets_of(Extent(n, h, w, 0, lanes, (0, image, row, column)))
    return (image, row, column) if np.array_equal(made, offsets) else None


@dataclass(frozen=True)
class CopyEmitter:
    """Copies what lies at addresses to the pixels and channels of a target, both in floats from ``y`` on."""

    program: Program
    memories: Memories
    threads: int
    label: str
    y: Argument

    def to_blocked(self, matrix: Ints, out: Blocked) -> None:
        """Fill blocks from addresses [pixels, channels]."""
        lanes, used = out.extent.lanes, out.channels >= 0
        base = out.offset(0)
        firsts = [first - out.blocks[0][1] for _, first in out.blocks]
        assert all(b is base.buffer for b, _ in out.blocks)
        pixels = offsets_of(out.extent).reshape(-1)
        wanted = matrix[:, out.channels[used]]
        place = np.flatnonzero(used)
        y = np.array(firsts, np.int64)[place // lanes] + place % lanes
        copies = self._vectors(wanted, place, lanes) if lanes > 1 else None
        if copies is not None:
            for memory, rows, blocks, x_pixels, x_blocks in copies:
                starts = np.array(firsts, np.int64)[blocks]
                self._copy(memory, lanes, (pixels[rows], x_pixels), (starts, x_blocks))
            return
        if not used.all():  # lanes that hold nothing hold zeros
            empty = np.flatnonzero(~used)
            spare = np.array(firsts, np.int64)[empty // lanes] + empty % lanes
            self._copy(None, 1, (pixels, None), (spare, None))
        self.scattered(wanted, pixels, y)

    def _vectors(self, wanted: Ints, place: Ints, lanes: int) -> list[VectorCopy] | None:
        """The copy in whole vectors, if that does it."""
        found: list[VectorCopy] = []
        for memory, mask in self.memories.split(wanted):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            block = place[columns] // lanes
            touched, first, which = np.unique(block, return_index=True, return_inverse=True)
            complete = np.array_equal(columns, np.flatnonzero(np.isin(place // lanes, touched)))
            if mask.sum() != len(rows) * len(columns) or not complete:
                return None
            if memory is None:
                found.append((None, rows, touched, None, None))
                continue
            apart = separate(wanted[np.ix_(rows, columns)] & OFFSET)
            if apart is None or isinstance(memory, Port):  # a caller's memory need not be aligned
                return None
            starts = apart[1] - place[columns] % lanes
            loose = not isinstance(memory, Buffer) or not memory.blocks
            if not np.array_equal(starts, starts[first][which]) or (loose and len(columns) % lanes):
                return None
            if np.any(starts % lanes) or np.any(apart[0] % lanes):
                return None
            found.append((memory, rows, touched, apart[0], starts[first]))
        return found

    def scattered(self, matrix: Ints, pixels: Ints, channels: Ints) -> None:
        """Number by number, from addresses [pixels, channels]."""
        for memory, mask in self.memories.split(matrix):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            part = matrix[np.ix_(rows, columns)] & OFFSET
            if mask.sum() < part.size:
                self._elements(memory, matrix[mask] & OFFSET, (pixels[:, None] + channels)[mask])
            elif memory is None:
                self._copy(None, 1, (pixels[rows], None), (channels[columns], None))
            else:
                self._alike(memory, part, pixels[rows], channels[columns])

    def _alike(self, memory: Memory, part: Ints, pixels: Ints, channels: Ints) -> None:
        """One copy for the pixels whose channels lie alike; number by number if that is little, or nothing is alike."""
        apart = separate(part)
        if apart is not None:
            self._copy(memory, 1, (pixels, apart[0]), (channels, apart[1]))
            return
        if part.size > FEW:
            _, which = np.unique(part - part[:, :1], axis=0, return_inverse=True)
            which = which.reshape(-1)
            if which.max() < PATTERNS:
                for i in range(int(which.max()) + 1):
                    self._alike(memory, part[which == i], pixels[which == i], channels)
                return
        self._elements(memory, part.reshape(-1), (pixels[:, None] + channels).reshape(-1))

    def _elements(self, memory: Memory | None, x: Ints, y: Ints) -> None:
        """By a table with every single number."""
        nothing = np.zeros(1, np.int64)
        zero = memory is None
        self._copy(memory, 1, (nothing, None if zero else nothing), (y, None if zero else x))

    def _copy(self, memory: Memory | None, lanes: int, pixels: tuple[Ints, Ints | None],
              channels: tuple[Ints, Ints | None]) -> None:  # fmt: skip
        """One call: (offsets in y, offsets in x) of pixels and channels. The longer run in y is the inner loop."""
        tall = len(pixels[0]) > 1 and lanes == 1 and abs(int(pixels[0][1] - pixels[0][0])) == 1
        outer, inner = (channels, pixels) if tall or lanes > 1 else (pixels, channels)
        spec = TableCopySpec(lanes, len(outer[0]), len(inner[0]), memory is None, self.threads)
        tables: list[Argument] = [Table(outer[0]), Table(inner[0])]
        if memory is not None:
            assert outer[1] is not None
            assert inner[1] is not None
            tables = [address_of(memory), Table(outer[1]), Table(inner[1]), *tables]
        self.program.call(spec, None, [*tables, self.y], self.label)


def address_of(memory: Memory) -> Argument:
    """Where a memory begins."""
    return Address(memory) if isinstance(memory, Buffer) else memory
