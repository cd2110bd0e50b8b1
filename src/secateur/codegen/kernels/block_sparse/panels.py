"""How a strip of the input lies in a panel: all pixels of a channel side by side, one channel after the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from secateur.codegen.plan.tensors import Ints
from secateur.codegen.targets import Target

from .packing import Packed
from .spec import PanelSpec

TILE = 3  # vectors of pixels that most kernels have in registers


@dataclass(frozen=True)
class Panel:
    """A strip of the outputs of an image, ``vectors`` of ``lanes`` pixels, and what it reads.

    A row of outputs takes ``each`` vectors, of which the last overlaps the one before. A 1x1 convolution has any
    vectors that follow each other in its strips, else they are of ``rows`` whole rows. In floats: ``pitch`` from one
    row of inputs to the next, ``channel`` from one channel to the next.
    """

    each: int
    rows: int
    vectors: int
    strips: int
    pitch: int
    channel: int

    def offsets(self, spec: PanelSpec, packed: Packed, places: Ints) -> Ints:
        """Where each kept block's input is in the panel; ``places``: the lane of each input channel of the weights."""
        row, column = np.divmod(packed.tap, spec.kernel[1])
        inside: Ints = row * spec.dilation[0] * self.pitch + column * spec.dilation[1]
        return places[packed.channel] * self.channel + inside


def panel(spec: PanelSpec, target: Target) -> Panel:
    """The panel of a kernel, such that it fills half of the second cache."""
    v, (kh, kw), (dh, dw) = spec.lanes, spec.kernel, spec.dilation
    each, room = -(-spec.w // v), target.l2 // 2 // (4 * spec.ci)
    if spec.kernel == (1, 1):
        total = spec.h * each
        strips = _even(-(-total // max(TILE, room // v)), total // TILE, spec.threads)
        vectors = -(-total // strips)
        return Panel(each, 1, vectors, -(-total // vectors), v, (vectors | 1) * v)
    pitch, more = spec.w + (kw - 1) * dw, (kh - 1) * dh
    strips = _even(-(-spec.h // max(1, room // pitch - more)), spec.h, spec.threads)
    rows = -(-spec.h // strips)
    size = (-(-(rows + more) * pitch // v) | 1) * v
    return Panel(each, rows, rows * each, -(-spec.h // rows), pitch, size)


def _even(wanted: int, most: int, threads: int) -> int:
    """So many strips or a few more, such that threads share them evenly; at most ``most``."""
    return min(-(-wanted // threads) * threads, max(1, most))


def scratch(spec: PanelSpec, target: Target) -> int:
    """Floats of the panels of all threads, each with room for a tile of results."""
    return spec.threads * room_of(spec, target)


def room_of(spec: PanelSpec, target: Target) -> int:
    """Floats of one thread: its panel, then a tile of results."""
    found = panel(spec, target)
    return spec.ci * found.channel + spec.lanes * min(found.vectors, 2 * TILE) * spec.lanes
