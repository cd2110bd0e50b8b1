"""Where tensors lie in memory: buffers in one arena, in vector-wide blocks of channels (NCHWc) or row-major.

A *blocked* tensor is a list of blocks. A block is ``[n, rows, columns, lanes]`` with a halo of zeros around its spatial
extent, and each of its lanes holds one channel, or nothing. Which channel is written in ``channels``, so a concat, a
split and a channel shuffle are other lists of the same blocks: nothing moves. Lanes that hold nothing hold finite
numbers, and their weights are zero. A *view* sees blocks of another tensor with other strides: the heads of an
attention, every second row of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
AnyArray = NDArray[np.generic]
ALIGN = 16  # floats: one cache line


@dataclass(eq=False)
class Buffer:
    """A piece of the arena, in 4-byte words; alive from the step that first writes it to the last that reads it.

    ``blocks``: it holds whole vectors, each of whose lanes is written.
    """

    words: int
    blocks: bool = False
    first: int = -1
    last: int = -1
    offset: int = -1

    def touch(self, step: int) -> None:
        """This step needs the buffer."""
        self.first = step if self.first < 0 else min(self.first, step)
        self.last = max(self.last, step)


@dataclass(frozen=True)
class Extent:
    """The spatial extent of a block: sizes, halo on all four sides, and strides in floats.

    ``strides`` are the strides of a view, (block, image, row, column); without them pixels follow each other.
    """

    n: int
    h: int
    w: int
    halo: int
    lanes: int
    strides: tuple[int, int, int, int] | None = None

    @property
    def column(self) -> int:
        """Floats from one pixel to its right neighbour."""
        return self.lanes if self.strides is None else self.strides[3]

    @property
    def row(self) -> int:
        """Floats from one row to the next."""
        return (self.w + 2 * self.halo) * self.lanes if self.strides is None else self.strides[2]

    @property
    def image(self) -> int:
        """Floats from one batch entry to the next."""
        return (self.h + 2 * self.halo) * self.row if self.strides is None else self.strides[1]

    @property
    def block(self) -> int:
        """Floats from one block to the next; without ``strides``, all that a block takes."""
        return self.n * self.image if self.strides is None else self.strides[0]

    @property
    def origin(self) -> int:
        """Where the first pixel inside the halo lies, from the beginning of a block."""
        return self.halo * (self.row + self.lanes)

    @property
    def pixels(self) -> tuple[int, int, int, int, int, int]:
        """Spatial sizes and strides: what two tensors share whose blocks may stand in one list."""
        return self.n, self.h, self.w, self.image, self.row, self.column


@dataclass(frozen=True, eq=False)
class Blocked:
    """A tensor ``[n, c, h, w]`` (or ``[n, c]``, with one pixel) in blocks of lanes."""

    extent: Extent
    blocks: tuple[tuple[Buffer, int], ...]  # the buffer, and the floats in it before the block's first pixel
    channels: Ints  # [len(blocks) * lanes]: the channel in each lane, or -1

    @property
    def contiguous(self) -> bool:
        """Do the blocks follow each other in one buffer?"""
        buffer, first = self.blocks[0]
        return all(b is buffer and at == first + k * self.extent.block for k, (b, at) in enumerate(self.blocks))

    @property
    def width(self) -> int:
        """The number of channels."""
        return int((self.channels >= 0).sum())

    @property
    def natural(self) -> bool:
        """Contiguous blocks with the channels in their order."""
        return self.contiguous and np.array_equal(self.channels, natural_channels(self.width, self.extent.lanes))

    def places(self) -> Ints:
        """For each channel the lane it is in."""
        places = np.full(self.width, -1, np.int64)
        used = np.flatnonzero(self.channels >= 0)
        places[self.channels[used]] = used
        return places

    def sampled(self, first: tuple[int, int], stride: tuple[int, int], size: tuple[int, int]) -> Blocked:
        """Every ``stride``-th row and column from ``first`` on, ``size`` of them."""
        extent = self.extent
        steps = (extent.block, extent.image, extent.row * stride[0], extent.column * stride[1])
        shift = first[0] * extent.row + first[1] * extent.column
        blocks = tuple((b, at + shift) for b, at in self.blocks)
        return Blocked(Extent(extent.n, *size, 0, extent.lanes, steps), blocks, self.channels)

    def offset(self, place: int) -> Address:
        """Where a lane of the first pixel lies (inside the halo)."""
        buffer, first = self.blocks[place // self.extent.lanes]
        return Address(buffer, first + place % self.extent.lanes)


@dataclass(frozen=True, eq=False)
class Dense:
    """A row-major tensor of any type; ``port`` names a graph input or output that holds it, else ``buffer`` does."""

    shape: tuple[int, ...]
    dtype: str
    buffer: Buffer | None = None
    port: str | None = None


@dataclass(frozen=True, eq=False)
class Address:
    """An address in the arena, known when the buffer has its offset."""

    buffer: Buffer
    delta: int = 0

    @property
    def offset(self) -> int:
        """Words from the start of the arena."""
        return self.buffer.offset + self.delta


def natural_channels(width: int, lanes: int) -> Ints:
    """Channels in their order, the last block filled up with -1."""
    channels = np.full(-(-width // lanes) * lanes, -1, np.int64)
    channels[:width] = np.arange(width)
    return channels


@dataclass
class Arena:
    """The memory of a backend that values lie in: gives buffers their offsets, those that live at once never overlap.

    Buffers begin at multiples of ``align`` numbers.
    """

    align: int = ALIGN
    buffers: list[Buffer] = field(default_factory=list)

    def new(self, words: int, blocks: bool = False) -> Buffer:
        """A buffer of this size, placed later."""
        buffer = Buffer(-(-words // self.align) * self.align, blocks)
        self.buffers.append(buffer)
        return buffer

    def place(self) -> int:
        """Best fit, the largest first. Returns the words of the arena."""
        placed: list[Buffer] = []
        for buffer in sorted(self.buffers, key=lambda b: -b.words):
            others = sorted(
                (b for b in placed if b.first <= buffer.last and buffer.first <= b.last), key=lambda b: b.offset
            )
            best, room, end = -1, 1 << 62, 0
            for other in others:
                gap = other.offset - end
                if buffer.words <= gap < room:
                    best, room = end, gap
                end = max(end, other.offset + other.words)
            buffer.offset = best if best >= 0 else end
            placed.append(buffer)
        return max((b.offset + b.words for b in placed), default=0) or self.align


def select(x: Blocked, index: Ints) -> Blocked:
    """The channels ``index`` of x, in that order; blocks that hold none of them are left out."""
    where = np.full(x.width, -1, np.int64)
    where[index] = np.arange(len(index))
    channels = np.where(x.channels >= 0, where[x.channels], -1)
    lanes = x.extent.lanes
    kept = [b for b in range(len(x.blocks)) if np.any(channels[b * lanes : (b + 1) * lanes] >= 0)]
    parts = [channels[b * lanes : (b + 1) * lanes] for b in kept]
    return Blocked(x.extent, tuple(x.blocks[b] for b in kept), np.concatenate(parts))


def join(parts: Sequence[Blocked]) -> Blocked:
    """A concat along the channels."""
    channels, start = [], 0
    for x in parts:
        channels.append(np.where(x.channels >= 0, x.channels + start, -1))
        start += x.width
    return Blocked(parts[0].extent, tuple(b for x in parts for b in x.blocks), np.concatenate(channels))
