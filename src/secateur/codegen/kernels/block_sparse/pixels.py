"""How the pixels of a 1x1 convolution lie in panels: tiles of some vectors of pixels, in each channel by channel."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.codegen.plan.tensors import Ints
from secateur.codegen.targets import Target

from .packing import Packed
from .spec import PanelSpec


@dataclass(frozen=True)
class Pixels:
    """The pixels of an image in tiles: ``wide`` of them of ``vectors`` vectors, then ``narrow`` ones of one less.

    A row of outputs takes ``each`` vectors. A tile has room for ``vectors`` of every channel, a thread for ``most``
    tiles.
    """

    each: int
    vectors: int
    wide: int
    narrow: int
    less: int
    most: int

    @property
    def tiles(self) -> int:
        """All of them."""
        return self.wide + self.narrow

    def tile(self, spec: PanelSpec) -> int:
        """Floats from one tile to the next."""
        return spec.ci * self.vectors * spec.lanes

    def strip(self, wanted: int, threads: int) -> int:
        """Tiles of a strip, at most ``wanted``: of about as many each, and as many strips for each thread."""
        strips = -(-self.tiles // max(1, min(wanted, self.most)))
        return -(-self.tiles // min(-(-strips // threads) * threads, self.tiles))

    def offsets(self, spec: PanelSpec, packed: Packed, places: Ints) -> Ints:
        """Where each kept block's input is in a tile; ``places``: the lane of each input channel of the weights."""
        found: Ints = places[packed.channel] * (self.vectors * spec.lanes)
        return found


def pixels_of(spec: PanelSpec, target: Target) -> Pixels:
    """The tiles of a 1x1 kernel; those of the largest strip fill half of the second cache, or are one."""
    each = -(-spec.w // spec.lanes)
    total, most = spec.h * each, in_registers(spec, target)[1]
    (vectors, wide), *rest = divided(total, min(most, total))
    less, narrow = rest[0] if rest else (vectors, 0)
    room = max(1, target.l2 // 2 // (4 * spec.ci * spec.lanes * vectors))
    return Pixels(each, vectors, wide, narrow, less, min(room, wide + narrow))


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
