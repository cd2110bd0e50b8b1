"""How what a tile of pixels reads lies in scratch memory: vectors of channels, one block of inputs after the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from secateur.codegen.plan.tensors import Ints
from secateur.codegen.targets import Target

from .packing import Packed
from .spec import BlockSparseSpec


@dataclass(frozen=True)
class Area:
    """``high`` x ``wide`` pixels of each of the inputs' blocks; ``block`` floats from one to the next."""

    high: int
    wide: int
    block: int
    floats: int

    @staticmethod
    def read(spec: BlockSparseSpec, rows: int, columns: int) -> tuple[int, int]:
        """Rows and columns of inputs that so many rows and columns of outputs read."""
        (kh, kw), (sh, sw), (dh, dw) = spec.kernel, spec.stride, spec.dilation
        return (rows - 1) * sh + (kh - 1) * dh + 1, (columns - 1) * sw + (kw - 1) * dw + 1

    def offsets(self, spec: BlockSparseSpec, packed: Packed, lane: Ints) -> Ints:
        """Where each kept block's input is; ``lane``: of each input channel of the weights, among the blocks."""
        block, inside = np.divmod(lane[packed.channel], spec.lanes)
        row, column = np.divmod(packed.tap, spec.kernel[1])
        pixel = row * spec.dilation[0] * self.wide + column * spec.dilation[1]
        found: Ints = block * self.block + pixel * spec.lanes + inside
        return found


def tile_of(spec: BlockSparseSpec, target: Target) -> tuple[int, int]:
    """Rows and columns of pixels in registers: all but one for weights and one for an input."""
    most = target.registers - 2
    if spec.w * 2 <= most and spec.h > 1:
        return _even(spec.h, most // spec.w), spec.w
    return 1, _even(spec.w, most)


def _even(size: int, most: int) -> int:
    """``emit.builder.even_tile``, which loads TVM: planning does not."""
    return -(-size // -(-size // most))


def tile_area(spec: BlockSparseSpec, target: Target) -> Area:
    """The area that a tile of this kernel reads."""
    high, wide = Area.read(spec, *tile_of(spec, target))
    block = high * wide * spec.lanes
    return Area(high, wide, block, spec.inputs * block)
