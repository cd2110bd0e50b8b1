"""A convolution or linear layer on planes: what it computes, and how it is shared among work items."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace

from secateur.codegen.plan.post_ops import PostOp
from secateur.codegen.plan.strides import Strides
from secateur.codegen.targets import Target


@dataclass(frozen=True)
class GpuConvSpec:
    """A convolution of ``groups`` groups of ``ci`` inputs onto ``co`` outputs each, or a linear layer.

    The input has no halo: taps outside of ``size`` read nothing. The input pointer is at its first pixel, ``pad`` the
    rows above it and the columns to its left (negative where the first tap lies further on). ``table``: the input's
    channels are looked up.
    """

    n: int
    groups: int
    ci: int
    co: int
    h: int
    w: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pad: tuple[int, int]
    size: tuple[int, int]
    x: Strides
    y: Strides
    table: bool
    post_ops: tuple[PostOp, ...] = ()
    threads: int = 1

    @property
    def pixels(self) -> int:
        """Outputs of a channel, those of all images."""
        return self.n * self.h * self.w

    @property
    def outputs(self) -> int:
        """Numbers that are computed, of all groups."""
        return self.groups * self.co * self.pixels

    @property
    def taps(self) -> int:
        """Of the kernel."""
        return self.kernel[0] * self.kernel[1]

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.outputs * self.ci * self.taps

    @property
    def checks(self) -> tuple[bool, bool, bool, bool]:
        """Whether taps may lie above, below, left or right of the input."""
        found: list[bool] = []
        for out, stride, pad, kernel, dilation, size in zip(
            (self.h, self.w), self.stride, self.pad, self.kernel, self.dilation, self.size, strict=True
        ):
            found += [pad > 0, (out - 1) * stride - pad + (kernel - 1) * dilation >= size]
        return found[0], found[1], found[2], found[3]

    @property
    def computes(self) -> Hashable:
        """Equal for specs that compute the same."""
        return self

    @property
    def title(self) -> str:
        """Channels, kernel and size, for people."""
        groups = f"{self.groups} groups of " if self.groups > 1 else ""
        return f"{groups}{self.ci}>{self.co} {self.kernel[0]}x{self.kernel[1]} {self.h}x{self.w}"

    def estimate(self, target: Target) -> float:
        """Multiply-accumulates."""
        return float(self.macs)

    def workload(self) -> GpuConvSpec:
        """The same without its epilogue."""
        return replace(self, post_ops=())


@dataclass(frozen=True)
class GpuConvChoice:
    """How a convolution is shared among work items.

    ``kind``: "tile", a group computes ``outputs`` x ``pixels`` from slices of ``depth`` in shared memory, each work
    item ``rows`` x ``columns`` of them; "direct", a work item computes ``rows`` outputs of one pixel; "sum", a group
    of work items shares the sum of one output, for ``columns`` pixels. ``parts``: the reduction of a tile is shared
    among so many groups, and a kernel after it adds what they found, in order.
    """

    kind: str
    outputs: int = 1
    pixels: int = 1
    depth: int = 1
    rows: int = 1
    columns: int = 1
    parts: int = 1

    @property
    def items(self) -> int:
        """Work items of a group."""
        return self.outputs * self.pixels // (self.rows * self.columns) if self.kind == "tile" else 128

    @property
    def shared(self) -> int:
        """Bytes of shared memory: two slices of weights and of inputs."""
        return 2 * 4 * self.depth * (self.outputs + self.pixels) if self.kind == "tile" else 4 * self.items
