"""A convolution in narrow groups, in quads of channels: what it computes, and how it can be tiled."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace

from secateur.codegen.plan.post_ops import PostOp
from secateur.codegen.plan.strides import Strides
from secateur.codegen.targets import Target

QUAD = 4  # channels that a kernel for narrow groups takes together


@dataclass(frozen=True)
class GroupedConvSpec:
    """A convolution in groups, or of one narrow group, on inputs that lie in quads: several pixels a vector.

    A group reads ``ci`` inputs, the first ``depth`` of each of its quads, and has ``quads`` quads of outputs. Tables
    say where each quad of inputs (at the first tap of the first output) and of outputs lies, group by group.
    """

    lanes: int
    n: int
    groups: int
    ci: int
    quads: int
    h: int
    w: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    x: Strides
    y: Strides
    post_ops: tuple[PostOp, ...] = ()
    threads: int = 1
    depth: int = QUAD

    @property
    def blocks(self) -> int:
        """Blocks that all quads of outputs fill."""
        return -(-self.groups * self.quads * QUAD // self.lanes)

    @property
    def macs(self) -> int:
        """Multiply-accumulates, lanes that hold nothing included."""
        taps = self.kernel[0] * self.kernel[1]
        return self.n * self.h * self.w * self.groups * self.ci * taps * self.quads * QUAD

    def estimate(self, target: Target) -> float:
        """About its time, in multiply-accumulates at the peak.

        A vector of one quad is loaded and stored as it lies; others are put together of several.
        """
        outputs = self.n * self.h * self.w * self.groups * self.quads * QUAD
        return self.macs / 0.95 + 3 * outputs if self.lanes == QUAD else self.macs / 0.84 + 10 * outputs

    @property
    def computes(self) -> Hashable:
        """Equal for specs that compute the same, whichever algorithm they are of."""
        return self

    @property
    def title(self) -> str:
        """Channels, kernel and size, for people."""
        return f"{self.ci}>{self.blocks * self.lanes} {self.kernel[0]}x{self.kernel[1]} {self.h}x{self.w}"

    def workload(self) -> GroupedConvSpec:
        """The same without its epilogue."""
        return replace(self, post_ops=())


@dataclass(frozen=True)
class GroupedConvChoice:
    """``quads`` quads of outputs by ``rows`` x ``columns`` pixels in registers."""

    quads: int
    rows: int
    columns: int
