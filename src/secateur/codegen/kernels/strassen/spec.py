"""A 1x1 convolution by Strassen's algorithm: what it computes, and how it can be tiled."""

from __future__ import annotations

from dataclasses import dataclass, replace

from secateur.codegen.kernels.dense_spec import DenseConvolution
from secateur.codegen.plan.post_ops import PostOp
from secateur.codegen.plan.strides import Strides
from secateur.codegen.targets import Target


@dataclass(frozen=True)
class StrassenSpec(DenseConvolution):
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
    post_ops: tuple[PostOp, ...] = ()
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

    def estimate(self, target: Target) -> float:
        """Time in multiply-accumulates at the peak: products, weights, sums, partial sums.

        Halves may share a row. There are 7/4 as many weights, read for each image; what comes from memory besides the
        products takes half of its time on top.
        """
        outputs = self.blocks * self.lanes
        twice = 2 * -(-self.extent // 2) / self.extent
        sums = twice * self.n * self.h * self.w * (10 * self.ci + 6 * outputs)
        return twice * self.macs * 7 / 8 / 0.95 + sums + self.n * self.ci * outputs * 3 / 4 * target.load / 2

    def workload(self) -> StrassenSpec:
        """The same without its epilogue."""
        return replace(self, post_ops=())


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
