"""How the pixels of a 1x1 convolution lie in panels: tiles of some vectors of pixels, in each channel by channel."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.codegen.plan.tensors import Ints
from secateur.codegen.targets import Target

from .packing import Packed
from .spec import PanelSpec


@dataclass(frozen=True)
class Strips:
    """``tiles`` tiles of ``vectors`` vectors of pixels from the ``first`` on, ``each`` of them a strip."""

    first: int
    vectors: int
    tiles: int
    each: int

    @property
    def count(self) -> int:
        """How many strips; the last may have fewer tiles."""
        return -(-self.tiles // self.each)


@dataclass(frozen=True)
class Pixels:
    """A row of outputs takes ``each`` vectors; a tile has room for ``vectors`` of every channel."""

    each: int
    vectors: int
    strips: tuple[Strips, ...]

    @property
    def most(self) -> int:
        """Tiles of the largest strip."""
        return max(s.each for s in self.strips)

    def tile(self, spec: PanelSpec) -> int:
        """Floats from one tile to the next."""
        return spec.ci * self.vectors * spec.lanes

    def offsets(self, spec: PanelSpec, packed: Packed, places: Ints) -> Ints:
        """Where each kept block's input is in a tile; ``places``: the lane of each input channel of the weights."""
        found: Ints = places[packed.channel] * (self.vectors * spec.lanes)
        return found


def pixels_of(spec: PanelSpec, target: Target) -> Pixels:
    """The tiles of a 1x1 kernel; those of a strip fill half of the second cache."""
    each = -(-spec.w // spec.lanes)
    total, most = spec.h * each, in_registers(spec, target)[1]
    first, strips = 0, list[Strips]()
    for vectors, tiles in divided(total, min(most, total)):
        room = max(1, target.l2 // 2 // (4 * spec.ci * spec.lanes * vectors))
        wanted = -(-tiles // room)
        wanted = min(-(-wanted // spec.threads) * spec.threads, tiles)
        strips.append(Strips(first, vectors, tiles, -(-tiles // wanted)))
        first += vectors * tiles
    return Pixels(each, min(most, total), tuple(strips))


def in_registers(spec: PanelSpec, target: Target) -> tuple[int, int]:
    """Outputs, and vectors of pixels, that a kernel has in registers."""
    rows = min(spec.lanes, 4 if target.registers < 32 else 8)
    return rows, 3 if target.registers < 32 or rows == 8 else 6


def divided(vectors: int, most: int) -> list[tuple[int, int]]:
    """Tiles of ``most`` vectors and of one less, with how many there are of each: few registers stay empty."""
    count = -(-vectors // most)
    less = count * most - vectors
    if less > count:  # fewer vectors than two tiles
        return [(vectors // count, 1)] if count == 1 else [(most, vectors // most), (vectors % most, 1)]
    return [(size, times) for size, times in ((most, count - less), (most - 1, less)) if size and times]


def room_of(spec: PanelSpec, target: Target) -> int:
    """Floats of one thread: the tiles of a strip, then a tile of results."""
    found = pixels_of(spec, target)
    return found.most * found.tile(spec) + spec.lanes * found.vectors * spec.lanes
