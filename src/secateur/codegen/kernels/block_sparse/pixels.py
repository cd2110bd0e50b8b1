"""How the pixels of a 1x1 convolution lie in panels: tiles of some vectors of pixels, in each channel by channel.

A few pixels more than vectors hold lie by themselves: all channels of one, then of the next.
"""

from __future__ import annotations

from dataclasses import dataclass

from secateur.codegen.plan.tensors import Ints
from secateur.codegen.targets import Target

from .lists import Lists
from .packing import PIECES, Packed, piece
from .spec import APART_VECTORS, PanelSpec, UnstructuredSpec

LINE = 16  # float32 in a cache line
UNROLLED = 4  # kept blocks in a round of the loop


@dataclass(frozen=True)
class Tiles:
    """The vectors of pixels of each of some workers, in tiles of ``vectors`` of them and then in tiles of one less.

    The first ``larger`` workers have one vector more than the ``least`` that all have. ``wide`` and ``narrow``: how
    many tiles such a worker has of each, and how many another one.
    """

    vectors: int
    larger: int
    least: int
    wide: tuple[int, int]
    narrow: tuple[int, int]

    @property
    def most(self) -> int:
        """Tiles that a worker has."""
        return max(map(sum, zip(self.wide, self.narrow, strict=True)))

    def strip(self, wanted: int) -> int:
        """Tiles of a strip, at most ``wanted``: of about as many each."""
        return -(-self.most // -(-self.most // wanted))


@dataclass(frozen=True)
class Pixels:
    """The pixels of an image: ``each`` vectors of a row of outputs, then ``left`` pixels, which only a single row has.

    A tile has room for ``vectors`` of every channel, in whichever way workers share the ``total`` of them.
    """

    each: int
    total: int
    vectors: int
    left: int

    def shared(self, workers: int) -> Tiles:
        """The tiles of each of some workers, which have about as many vectors."""
        least, larger = divmod(self.total, workers)
        most = least + (larger > 0)
        size = divided(most, self.vectors)[0][0]
        counts = -(-most // size), -(-least // size)
        less = counts[0] * size - most, counts[1] * size - least
        return Tiles(size, larger, least, (counts[0] - less[0], counts[1] - less[1]), less)

    def part(self, spec: PanelSpec, parts: int) -> int:
        """Blocks of inputs in each of some parts."""
        return min(piece(spec.ci, spec.lanes) // spec.lanes * (PIECES // parts), spec.inputs)

    def packed(self, spec: PanelSpec, parts: int) -> int:
        """Floats of a part of the inputs of a tile."""
        return self.part(spec, parts) * spec.lanes * self.vectors * spec.lanes

    def sums(self, spec: PanelSpec) -> int:
        """Floats of the results of an output block of a tile."""
        return spec.lanes * self.vectors * spec.lanes

    def turns(self) -> int:
        """Sums of each single pixel: enough of all pixels that no multiply-add waits for the one before."""
        return UNROLLED if self.left <= 2 else UNROLLED // 2

    def sums_left(self, spec: PanelSpec) -> int:
        """Floats of the sums of an output block of the single pixels."""
        return self.turns() * self.left * spec.lanes

    def room(self, spec: PanelSpec, tiles: int, parts: int) -> int:
        """Floats of a thread: the tiles of a strip, then results; of all output blocks where they wait."""
        waits = waiting(spec, parts)
        results = self.sums(spec) * (tiles * spec.blocks if waits else 1)
        left = self.left * spec.ci + self.sums_left(spec) * (spec.blocks if waits else 1)
        return tiles * self.packed(spec, parts) + results + left

    def offsets(self, spec: PanelSpec, packed: Packed | Lists, places: Ints) -> Ints:
        """Where each kept block's input is in a tile; ``places``: the lane of each input channel of the weights."""
        found: Ints = places[packed.channel] * (self.vectors * spec.lanes)
        return found


def pixels_of(spec: PanelSpec, target: Target) -> Pixels:
    """The tiles of a 1x1 kernel."""
    each = -(-(spec.w - spec.left) // spec.lanes)
    total, most = spec.h * each, in_registers(spec, target)[1]
    return Pixels(each, total, divided(total, min(most, total))[0][0], spec.left)


def tilings(spec: PanelSpec, target: Target, workers: int) -> list[tuple[int, int]]:
    """Tiles of a strip, and parts of the inputs: what is worth trying where ``workers`` share pixels, default first.

    Parts such that what the kept blocks of one read of a tile lies in the first cache, or twice as many. All
    tiles in parts are a strip where they and their results fit the second cache: then weights are read once.
    """
    found, tried = pixels_of(spec, target), parts_tried(spec, in_registers(spec, target)[1], target)
    tiles = found.shared(workers)
    wanted, more = [*((1, parts) for parts in tried), (2, tried[-1])], tried
    if not isinstance(spec, UnstructuredSpec):
        more = [p for p in (max(2, tried[0]), max(4, 2 * tried[0])) if p <= PIECES]
    whole = [(tiles.most, p) for p in more if 4 * found.room(spec, tiles.most, p) <= target.l2]
    return list(dict.fromkeys((tiles.strip(number), parts) for number, parts in [*wanted, *whole]))


def waiting(spec: PanelSpec, parts: int) -> bool:
    """Do the results of all output blocks of a tile wait until the last of them are there?"""
    return parts > 1 or isinstance(spec, UnstructuredSpec)


def parts_tried(spec: PanelSpec, vectors: int, target: Target) -> list[int]:
    """What is worth trying: one number where lists are packed by parts, since all choices are timed on the same."""
    parts = parts_of(spec, vectors, target)
    return [parts] if isinstance(spec, UnstructuredSpec) else list(dict.fromkeys((parts, 1)))


def parts_of(spec: PanelSpec, vectors: int, target: Target) -> int:
    """Such that what the kept blocks of a part read for some vectors of pixels lies in the first cache.

    What one output block reads; or all that is packed of a tile, where each output has inputs of its own.
    """
    read, parts = spec.taps * spec.percent // 100 * (vectors * spec.lanes + LINE) * 4, 1
    if isinstance(spec, UnstructuredSpec):
        (kh, kw), (dh, dw), each = spec.kernel, spec.dilation, -(-spec.w // spec.lanes)
        rows = min(spec.h, -(-vectors // each)) + (kh - 1) * dh
        read = spec.ci * 4 * (vectors * spec.lanes if kh == kw == 1 else rows * (spec.w + (kw - 1) * dw))
    while parts < PIECES and read > parts * target.l1 * 3 // 4:
        parts *= 2
    return parts


def in_registers(spec: PanelSpec, target: Target) -> tuple[int, int]:
    """Outputs, and vectors of pixels, that a kernel has in registers.

    Of outputs that read inputs of their own two: six products for each load of a weight, in as much of the first cache
    as two vectors more would take, and half as many loops whose end is not foreseen as with one output.
    """
    if isinstance(spec, UnstructuredSpec):
        return 2, APART_VECTORS
    rows = min(spec.lanes, 4 if target.registers < 32 else 8)
    return rows, 3 if target.registers < 32 or rows == 8 else 6


def divided(vectors: int, most: int) -> list[tuple[int, int]]:
    """Tiles of at most ``most`` vectors and of one less, with how many there are of each: few registers stay empty."""
    count = -(-vectors // most)
    size = -(-vectors // count)
    less = count * size - vectors
    return [(wide, times) for wide, times in ((size, count - less), (size - 1, less)) if times]


def room_of(spec: PanelSpec, target: Target) -> int:
    """Floats of one thread, whatever the choice."""
    found, workers = pixels_of(spec, target), {1, spec.threads}
    return max(found.room(spec, *tiling) for each in workers for tiling in tilings(spec, target, each))
