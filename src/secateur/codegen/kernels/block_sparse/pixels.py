"""How the pixels of a 1x1 convolution lie in panels: tiles of some vectors of pixels, in each channel by channel."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.codegen.plan.tensors import Ints
from secateur.codegen.targets import Target

from .lists import Lists
from .packing import PIECES, Packed, piece
from .spec import APART_VECTORS, PanelSpec, UnstructuredSpec

LINE = 16  # float32 in a cache line


@dataclass(frozen=True)
class Pixels:
    """The pixels of an image in tiles: ``wide`` of them of ``vectors`` vectors, then ``narrow`` ones of ``less``.

    A row of outputs takes ``each`` vectors. A tile has room for ``vectors`` of every channel.
    """

    each: int
    vectors: int
    wide: int
    narrow: int
    less: int

    @property
    def tiles(self) -> int:
        """All of them."""
        return self.wide + self.narrow

    def strip(self, wanted: int, threads: int) -> int:
        """Tiles of a strip, at most ``wanted``: of about as many each, and as many strips for each thread."""
        strips = -(-self.tiles // wanted)
        return -(-self.tiles // min(-(-strips // threads) * threads, self.tiles))

    def part(self, spec: PanelSpec, parts: int) -> int:
        """Blocks of inputs in each of some parts."""
        return min(piece(spec.ci, spec.lanes) // spec.lanes * (PIECES // parts), spec.inputs)

    def packed(self, spec: PanelSpec, parts: int) -> int:
        """Floats of a part of the inputs of a tile."""
        return self.part(spec, parts) * spec.lanes * self.vectors * spec.lanes

    def sums(self, spec: PanelSpec) -> int:
        """Floats of the results of an output block of a tile."""
        return spec.lanes * self.vectors * spec.lanes

    def room(self, spec: PanelSpec, tiles: int, parts: int) -> int:
        """Floats of a thread: the tiles of a strip, then results; of all output blocks where they wait."""
        results = self.sums(spec) * (tiles * spec.blocks if waiting(spec, parts) else 1)
        return tiles * self.packed(spec, parts) + results

    def offsets(self, spec: PanelSpec, packed: Packed | Lists, places: Ints) -> Ints:
        """Where each kept block's input is in a tile; ``places``: the lane of each input channel of the weights."""
        found: Ints = places[packed.channel] * (self.vectors * spec.lanes)
        return found


def pixels_of(spec: PanelSpec, target: Target) -> Pixels:
    """The tiles of a 1x1 kernel."""
    each = -(-spec.w // spec.lanes)
    total, most = spec.h * each, in_registers(spec, target)[1]
    (vectors, wide), *rest = divided(total, min(most, total))
    less, narrow = rest[0] if rest else (vectors, 0)
    return Pixels(each, vectors, wide, narrow, less)


def tilings(spec: PanelSpec, target: Target) -> list[tuple[int, int]]:
    """Tiles of a strip, and parts of the inputs: what is worth trying, the default first.

    Parts such that what the kept blocks of one read of a tile lies in the first cache, or twice as many. All
    tiles in parts are a strip where they and their results fit the second cache: then weights are read once.
    """
    found, tried = pixels_of(spec, target), parts_tried(spec, in_registers(spec, target)[1], target)
    wanted, more = [*((1, parts) for parts in tried), (2, tried[-1])], tried
    if not isinstance(spec, UnstructuredSpec):
        more = [p for p in (max(2, tried[0]), max(4, 2 * tried[0])) if p <= PIECES]
    whole = [(found.tiles, p) for p in more if 4 * found.room(spec, found.tiles, p) <= target.l2]
    return list(dict.fromkeys((found.strip(tiles, spec.threads), parts) for tiles, parts in [*wanted, *whole]))


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
    found = pixels_of(spec, target)
    return max(found.room(spec, tiles, parts) for tiles, parts in tilings(spec, target))
