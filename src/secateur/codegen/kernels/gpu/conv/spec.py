"""A convolution or linear layer on planes: what it computes, and how it can be shared among work items."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from typing import Self

from secateur.codegen.plan.post_ops import PostOp
from secateur.codegen.plan.strides import Strides
from secateur.codegen.targets import Target

from .tiles import PARTS, SHARERS, GpuConvChoice, Products, kernel_time, tile_time, tiles

NARROW = 8  # outputs a group up to which each work item computes all of them for its pixel
FEW = 8  # pixels up to which a group of work items shares the sum of an output


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
    def few(self) -> bool:
        """Is it a product with so few pixels that groups of work items share the sum of an output?"""
        return self.pixels <= FEW and self.taps == self.groups == 1 and not any(self.checks)

    def by_tap(self, depth: int) -> bool:
        """Is a slice of the reduction many channels of one tap? Else it goes through channels, and taps inside."""
        return self.taps > 1 and self.ci >= 2 * depth

    def slices(self, depth: int) -> int:
        """Slices of the reduction; where they are of one tap each, the last of a tap may be filled up."""
        if self.by_tap(depth):
            return self.taps * -(-self.ci // depth)
        return -(-self.ci * self.taps // depth)

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
        """Time in multiply-accumulates of a multiprocessor, counted."""
        choice = next(space(self, target))
        if choice.kind == "direct":
            return self.macs / target.cores
        if choice.kind == "sum":
            read = self.ci * (1 + self.pixels)
            return kernel_time(self.co, SHARERS, self.pixels, 2.0 * read, read, self.products.moved, target)
        return tile_time(choice, self.products, target)

    @property
    def products(self) -> Products:
        """As an implicit product of matrices."""
        read = self.n * self.size[0] * self.size[1] * self.groups * self.ci
        return Products(self.co, self.pixels, self.groups, self.slices, read + self.stored + self.outputs)

    @property
    def stored(self) -> int:
        """Words of weights."""
        return self.groups * self.co * self.ci * self.taps

    def workload(self) -> Self:
        """The same without its epilogue."""
        return replace(self, post_ops=())


def space(spec: GpuConvSpec, target: Target) -> Iterator[GpuConvChoice]:
    """The choices, the default first."""
    if spec.groups > 1 and spec.co <= NARROW:
        yield GpuConvChoice("direct", rows=spec.co)
    elif spec.few:
        yield GpuConvChoice("sum", columns=spec.pixels)
    else:
        yield from tiles(spec.products, target, PARTS)
