"""How a strip of the input lies in a panel: all pixels of a channel side by side, one channel after the other.

So it is for windows; ``pixels`` has 1x1 convolutions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from secateur.codegen.plan.tensors import Ints
from secateur.codegen.targets import Target

from .lists import Lists
from .packing import Packed
from .pixels import in_registers, pixels_of, waiting
from .pixels import room_of as room_of_pixels
from .spec import PanelSpec


@dataclass(frozen=True)
class Panel:
    """A strip of the outputs of an image, ``vectors`` of ``lanes`` pixels, and what it reads.

    A row of outputs takes ``each`` vectors, of which the last overlaps the one before; a strip has ``rows`` rows. In
    floats: ``pitch`` from one row of inputs to the next, ``channel`` from one channel to the next.
    """

    each: int
    rows: int
    vectors: int
    strips: int
    pitch: int
    channel: int

    def offsets(self, spec: PanelSpec, packed: Packed | Lists, places: Ints) -> Ints:
        """Where each kept block's input is in the panel; ``places``: the lane of each input channel of the weights."""
        row, column = np.divmod(packed.tap, spec.kernel[1])
        inside: Ints = row * spec.dilation[0] * self.pitch + column * spec.dilation[1]
        return places[packed.channel] * self.channel + inside


def panel(spec: PanelSpec, target: Target) -> Panel:
    """The panel of a kernel, such that it fills half of the second cache."""
    v, (kh, kw), (dh, dw) = spec.lanes, spec.kernel, spec.dilation
    each, room = -(-spec.w // v), target.l2 // 2 // (4 * spec.ci)
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
    """Floats of one thread: its panel, then a tile of results; of all output blocks where they wait."""
    if spec.kernel == (1, 1):
        return room_of_pixels(spec, target)
    found = panel(spec, target)
    results = spec.lanes * min(found.vectors, in_registers(spec, target)[1]) * spec.lanes
    return spec.ci * found.channel + results * (spec.blocks if waiting(spec, 1) else 1)


def offsets_in(spec: PanelSpec, packed: Packed | Lists, places: Ints, target: Target) -> Ints:
    """Where each kept block's input is in what is packed; ``places``: the lane of each input channel of the weights."""
    found = pixels_of(spec, target) if spec.kernel == (1, 1) else panel(spec, target)
    return found.offsets(spec, packed, places).reshape(-1)
