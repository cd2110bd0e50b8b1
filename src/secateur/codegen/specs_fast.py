"""What a kernel is that needs fewer products than there are multiply-accumulates."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .specs import LOAD, PostOp, Strides

WINOGRAD_TILES = (4, 2)
WORTH = 1.6  # what promises to take this much longer than a rival is not even measured


@dataclass(frozen=True)
class WinogradSpec:
    """A dense 3x3 convolution at stride 1 by Winograd's algorithm (``codegen.winograd``), onto blocks of outputs.

    ``ci`` channels in ``inputs`` blocks, which are looked up if ``table``; of blocks that are not full the channels are
    looked up too. The input pointer is at the first tap of the first output. What tiles at the edge reach beyond the
    last tap of the last output is taken as 0 and never read.
    """

    lanes: int
    n: int
    ci: int
    inputs: int
    blocks: int
    h: int
    w: int
    x: Strides
    y: Strides
    table: bool
    steps: tuple[PostOp, ...] = ()
    threads: int = 1

    kernel = (3, 3)
    stride = dilation = (1, 1)

    @property
    def full(self) -> bool:
        """Is every lane of the input blocks a channel?"""
        return self.ci == self.inputs * self.lanes

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the convolution itself, so that speed over peak may pass 1."""
        return self.n * self.h * self.w * self.ci * 9 * self.blocks * self.lanes

    @property
    def effort(self) -> float:
        """Of the better size of tile."""
        return min(self.effort_of(m) for m in WINOGRAD_TILES)

    def effort_of(self, m: int) -> float:
        """Time with tiles of m x m outputs, in multiply-accumulates at the peak: products, weights, transforms."""
        outputs, points, tiles = self.blocks * self.lanes, (m + 2) ** 2, self.tiles(m)
        products = tiles * points * self.ci * outputs / 0.9
        weights = points * self.ci * outputs * LOAD
        return max(products, weights) + tiles * points * (self.inputs * self.lanes + outputs) * 6

    def tiles(self, m: int) -> int:
        """Tiles of m x m outputs, those that hang over included."""
        return self.n * -(-self.h // m) * -(-self.w // m)

    def workload(self) -> WinogradSpec:
        """The same without its epilogue."""
        return replace(self, steps=())


@dataclass(frozen=True)
class WinogradChoice:
    """Tiles of ``m`` x ``m`` outputs, ``strip`` of them transformed at a time.

    ``nb`` output blocks by ``columns`` tiles are in registers. Threads share the strips, or the ``outer`` "blocks" of
    channels of each strip.
    """

    m: int
    nb: int
    columns: int
    strip: int
    outer: str = "strips"


@dataclass(frozen=True)
class StrassenSpec:
    """A dense 1x1 convolution by Strassen's algorithm (``codegen.strassen``), onto blocks of outputs.

    An image is a sample: its ``h`` x ``w`` pixels are summed with each other, and never with those of another.
    ``inputs`` whole blocks of channels, which are looked up if ``table``; their number and that of ``blocks`` are even.
    ``x``: from one pixel that is read to the next, so that a stride is part of it.
    """

    lanes: int
    n: int
    inputs: int
    blocks: int
    h: int
    w: int
    x: Strides
    y: Strides
    table: bool
    steps: tuple[PostOp, ...] = ()
    threads: int = 1

    kernel = stride = dilation = (1, 1)

    @property
    def ci(self) -> int:
        """Input channels."""
        return self.inputs * self.lanes

    @property
    def flat(self) -> bool:
        """Do the pixels that are read lie as in one row? Then they are halved as such, else by rows."""
        return self.h == 1 or self.x.row == self.w * self.x.column

    @property
    def extent(self) -> int:
        """How many pixels, or rows, are halved."""
        return self.h * self.w if self.flat else self.h

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the convolution itself, so that speed over peak may pass 1."""
        return self.n * self.h * self.w * self.ci * self.blocks * self.lanes

    @property
    def effort(self) -> float:
        """Time in multiply-accumulates at the peak: products, weights, sums, partial sums.

        Halves may share a row. There are 7/4 as many weights, read for each image; what comes from memory beside the
        products takes half of its time on top.
        """
        outputs = self.blocks * self.lanes
        twice = 2 * -(-self.extent // 2) / self.extent
        sums = twice * self.n * self.h * self.w * (10 * self.ci + 6 * outputs)
        return twice * self.macs * 7 / 8 / 0.95 + sums + self.n * self.ci * outputs * 3 / 4 * LOAD / 2

    def workload(self) -> StrassenSpec:
        """The same without its epilogue."""
        return replace(self, steps=())


@dataclass(frozen=True)
class StrassenChoice:
    """``nb`` pairs of output blocks by ``rows`` x ``columns`` pairs of pixels in registers.

    ``size`` rows (or pixels, where they lie as in one row) make half of a strip. Threads share the strips, or the
    ``outer`` "blocks" of channels of each strip.
    """

    nb: int
    rows: int
    columns: int
    size: int
    outer: str = "strips"
