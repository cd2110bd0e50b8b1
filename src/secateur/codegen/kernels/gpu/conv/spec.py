"""A convolution or linear layer on planes: what it computes, and how it can be tiled."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace

from secateur.codegen.plan.post_ops import PostOp
from secateur.codegen.plan.strides import Strides
from secateur.codegen.targets import Target

NARROW = 8  # outputs a group up to which each work item computes all of them for its pixel
FEW = 8  # pixels up to which a group of work items shares the sum of an output
EDGES = (128, 64, 32)  # outputs and pixels of a tile


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
    def taps(self) -> int:
        """Of the kernel."""
        return self.kernel[0] * self.kernel[1]

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.pixels * self.groups * self.co * self.ci * self.taps

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
    of work items shares the sum of one output, for ``columns`` pixels.
    """

    kind: str
    outputs: int = 1
    pixels: int = 1
    depth: int = 1
    rows: int = 1
    columns: int = 1

    @property
    def items(self) -> int:
        """Work items of a group."""
        return self.outputs * self.pixels // (self.rows * self.columns) if self.kind == "tile" else 128

    @property
    def shared(self) -> int:
        """Bytes of shared memory: two slices of weights and of inputs."""
        return 2 * 4 * self.depth * (self.outputs + self.pixels) if self.kind == "tile" else 4 * self.items


def space(spec: GpuConvSpec, target: Target) -> Iterator[GpuConvChoice]:
    """The choices, the default first."""
    if spec.groups > 1 and spec.co <= NARROW:
        yield GpuConvChoice("direct", rows=spec.co)
    elif spec.pixels <= FEW and spec.taps == spec.groups == 1 and not any(spec.checks):
        yield GpuConvChoice("sum", columns=spec.pixels)
    else:
        yield from tiles(spec.co, spec.pixels, spec.groups, target)


def tiles(outputs: int, pixels: int, batch: int, target: Target) -> list[GpuConvChoice]:
    """Tiles for ``batch`` products onto outputs x pixels that a device has room for, the best first.

    By nothing but counting: rounds of groups on all multiprocessors, times the work of a tile. A tile reads its slices
    once for all its products, so small ones wait for memory: a number that is read counts like 8 products.
    """

    def time(choice: GpuConvChoice) -> float:
        groups = batch * -(-outputs // choice.outputs) * -(-pixels // choice.pixels)
        work = choice.outputs * choice.pixels + 8.0 * (choice.outputs + choice.pixels)
        return -(-groups // target.cores) * work

    fitting = [c for c in (_tile(m, n) for m in EDGES for n in EDGES)
               if c.items <= target.group and c.shared <= target.shared]  # fmt: skip
    return sorted(fitting, key=time)


def _tile(outputs: int, pixels: int) -> GpuConvChoice:
    """64 numbers a work item in the largest tile, 8 in the smallest: at least 128 work items share one."""
    rows, columns = {128: 8, 64: 4, 32: 2}[outputs], {128: 8, 64: 4, 32: 4}[pixels]
    return GpuConvChoice("tile", outputs, pixels, 8 if outputs * pixels > 64 * 64 else 16, rows, columns)
