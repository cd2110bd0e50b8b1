"""Depthwise convolution and pooling, block by block: what is computed, and how it can be tiled."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace

from secateur.codegen.plan.post_ops import PostOp
from secateur.codegen.plan.strides import Strides
from secateur.codegen.targets import Target


@dataclass(frozen=True)
class WindowSpec:
    """Convolution in narrow groups ("conv"; depthwise if ``group`` is 1), or pooling ("max", "avg"), block by block.

    For "conv" the input has its halo and the pointer is at the first tap; pools leave out taps outside of the
    extent, and the pointer is at the first pixel. ``count_pad``: the divisor counts those taps too. ``group`` channels
    that follow each other in a block are read by as many outputs in the same lanes; it divides a quad.
    """

    kind: str
    lanes: int
    n: int
    blocks: int
    h: int
    w: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pad: tuple[int, int, int, int]
    size: tuple[int, int]
    x: Strides
    y: Strides
    table: bool
    count_pad: bool = True
    post_ops: tuple[PostOp, ...] = ()
    threads: int = 1
    group: int = 1

    @property
    def macs(self) -> int:
        """Taps, padding lanes included."""
        return self.n * self.h * self.w * self.kernel[0] * self.kernel[1] * self.group * self.blocks * self.lanes

    @property
    def computes(self) -> Hashable:
        """Equal for specs that compute the same, whichever algorithm they are of."""
        return self

    @property
    def title(self) -> str:
        """Channels, kernel and size, for people."""
        return f"{self.kind} {self.blocks * self.lanes} {self.kernel[0]}x{self.kernel[1]} {self.h}x{self.w}"

    def workload(self) -> WindowSpec:
        """The same without its epilogue."""
        return replace(self, post_ops=())


LARGEST = 21  # outputs of a tile


def copies_of_bias(target: Target) -> int:
    """How often the bias of a block lies in a row: once, or for each output of a tile.

    ARM's multipliers also copy registers, and a sum of nine products that begins with a copy is a tenth slower: there
    each begins with a load.
    """
    return LARGEST if target.by_lane else 1


@dataclass(frozen=True)
class WindowChoice:
    """A tile of ``rows`` x ``columns`` outputs in registers."""

    rows: int
    columns: int
