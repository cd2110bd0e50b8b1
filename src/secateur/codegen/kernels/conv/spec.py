"""A dense convolution or linear layer: what it computes, and how it can be tiled."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from secateur.codegen.kernels.dense_spec import DenseConvolution
from secateur.codegen.plan.family import LATE
from secateur.codegen.plan.post_ops import PostOp
from secateur.codegen.plan.strides import Strides
from secateur.codegen.targets import Target


@dataclass(frozen=True)
class ConvSpec(DenseConvolution):
    """A convolution or linear layer onto blocks of ``lanes`` outputs.

    ``table``: the input's channels are looked up, one offset each; else they lie in whole blocks. The input pointer is
    at the first tap of the first output. The first ``runs`` offsets stand for a vector of channels that lie in a block,
    the others for one each.
    """

    lanes: int
    n: int
    ci: int
    blocks: int
    h: int
    w: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    x: Strides
    y: Strides
    table: bool
    post_ops: tuple[PostOp, ...] = ()
    bias: bool = True
    threads: int = 1
    runs: int = field(default=0, metadata=LATE)

    @property
    def order(self) -> str:
        """How the reduction is nested, outermost first.

        "blocks": block of input channels, taps, channel in the block; "taps": taps, channel; "channels": channel, taps
        (few channels).
        """
        if not self.table:
            return "blocks"
        return "taps" if self.ci >= 8 or self.runs else "channels"

    @property
    def macs(self) -> int:
        """Multiply-accumulates, padding lanes included."""
        return self.n * self.h * self.w * self.ci * self.kernel[0] * self.kernel[1] * self.blocks * self.lanes

    def estimate(self, target: Target) -> float:
        """About its time, in multiply-accumulates at the peak: by which alternatives nobody measured are compared."""
        weights = self.ci * self.kernel[0] * self.kernel[1] * self.blocks * self.lanes
        return max(self.macs / 0.95, weights * target.load)

    def workload(self) -> ConvSpec:
        """The same without its epilogue: what records are looked up by."""
        return replace(self, post_ops=(), bias=True)


@dataclass(frozen=True)
class ConvChoice:
    """How a convolution is tiled: ``nb`` output blocks by ``rows`` x ``columns`` pixels in registers.

    ``outer``: "blocks" keeps the weights of a tile while it walks the pixels, "pixels" keeps the pixels.
    ``ahead``: fetch the weights of the next tile of blocks early.
    """

    nb: int
    rows: int
    columns: int
    outer: str = "blocks"
    ahead: bool = False
