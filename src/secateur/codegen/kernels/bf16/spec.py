"""A dense convolution or linear layer in bfloat16: what it computes, and how it can be tiled."""

from __future__ import annotations

from dataclasses import dataclass, replace

from secateur.codegen.kernels.dense_spec import DenseConvolution
from secateur.codegen.plan.post_ops import PostOp
from secateur.codegen.plan.strides import Strides
from secateur.codegen.targets import Target

ROUNDING = 4.0  # multiply-accumulates of float32 at the peak in the time that one number takes to be rounded


@dataclass(frozen=True)
class Bf16ConvSpec(DenseConvolution):
    """A convolution or linear layer of numbers rounded to bfloat16, added up in float32, onto blocks of outputs.

    Activations are float32 in memory: ``ci`` channels in ``inputs`` whole blocks, which are looked up if ``table``;
    lanes that are no channel are taken as 0. A strip of the input is rounded at a time. The input pointer is at the
    first tap of the first output. A 1x1 convolution has no stride: what it passes over is part of ``x``.
    """

    lanes: int
    n: int
    ci: int
    inputs: int
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
    threads: int = 1
    dtype: str = "bf16"

    @property
    def full(self) -> bool:
        """Is every lane of the input blocks a channel?"""
        return self.ci == self.inputs * self.lanes

    @property
    def taps(self) -> int:
        """Of the kernel."""
        return self.kernel[0] * self.kernel[1]

    @property
    def macs(self) -> int:
        """Multiply-accumulates, padding lanes included."""
        return self.n * self.h * self.w * self.inputs * self.lanes * self.taps * self.blocks * self.lanes

    def estimate(self, target: Target) -> float:
        """About its time, in multiply-accumulates of float32 at the peak: products or weights, and the rounding."""
        weights = self.inputs * self.lanes * self.taps * self.blocks * self.lanes
        read = self.n * self.inputs * self.lanes * self.h * self.stride[0] * self.w * self.stride[1]
        return max(self.macs / target.bf16_rate / 0.9, weights * target.load / 2) + read * ROUNDING

    def workload(self) -> Bf16ConvSpec:
        """The same without its epilogue: what records are looked up by."""
        return replace(self, post_ops=())


@dataclass(frozen=True)
class Bf16Choice:
    """``nb`` output blocks by ``rows`` x ``columns`` pixels in registers.

    ``strip`` rows of outputs (pixels, where there is one row) are rounded at a time. Threads share the strips, or the
    ``outer`` "blocks" of outputs of each strip.
    """

    nb: int
    rows: int
    columns: int
    strip: int
    outer: str = "strips"
