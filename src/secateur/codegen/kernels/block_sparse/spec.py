"""A convolution or linear layer whose weights are zero in whole blocks: what it computes, and how it can be tiled.

Three kernels: one reads channels where they lie, the others pack strips of the input with pixels side by side; of
these one is for zeros that make no blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, Self

from secateur.codegen.kernels.dense_spec import DenseConvolution, DenseShape, title_of
from secateur.codegen.plan.post_ops import PostOp
from secateur.codegen.plan.strides import Strides
from secateur.codegen.targets import Target

from .packing import PIECES

# Fitted to 11 1x1 layers of 256 to 2048 channels at densities of 0.1 to 0.7, with errors of 8 to 10 %. In fused
# multiply-adds of a vector for each vector of numbers:
TURN = 5.3  # an input that is read and transposed
WRITE = 8.6  # an output that is transposed and written
READ = 1.7  # an input that is read where it lies
RESUME = 7.4  # a sum that is read and written again, for each part of the inputs
REACHED = 0.86  # of what loads and registers would allow
APART = 0.625  # of the peak, where each weight has its own input: more loads than products
APART_WINDOW = 0.55  # the same of windows, whose vectors lie across cache lines
APART_RESUME = 4.8  # a sum that is read and written again, and the end of its loop, which is not foreseen
APART_VECTORS = 6  # of pixels in registers
PER_BLOCK = 2  # loads and instructions of a kept block that are not for a pixel
LEFT = 3  # vectors of pixels from which on a few more are computed one by one: fewer vectors would wait for their sums


class _Shape(DenseShape, Protocol):
    """The fields that both specs have."""

    @property
    def percent(self) -> int: ...
    @property
    def taps(self) -> int: ...


class _Kept(DenseConvolution):
    """A dense convolution of which ``percent`` of the blocks of weights are kept."""

    @property
    def taps(self: _Shape) -> int:
        """Taps of all input channels: blocks of weights that an output block has."""
        return self.ci * self.kernel[0] * self.kernel[1]

    @property
    def macs(self: _Shape) -> int:
        """Multiply-accumulates, about: with what is kept."""
        return self.n * self.h * self.w * max(1, self.taps * self.percent // 100) * self.blocks * self.lanes

    @property
    def title(self: _Shape) -> str:
        """Channels, kernel, size and the share of blocks that are kept, for people."""
        return f"{title_of(self)} {self.percent}%"


@dataclass(frozen=True)
class BlockSparseSpec(_Kept):
    """A dense convolution with zeros, onto blocks of ``lanes`` outputs.

    A block of weights is one tap of one input channel for all lanes of an output block; those that are zero are left
    out. ``percent`` of them are kept, by which records are looked up: the kernel does not depend on which, nor on how
    many. The ``ci`` channels are in ``inputs`` blocks.
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
    percent: int
    post_ops: tuple[PostOp, ...] = ()
    threads: int = 1

    @property
    def planar(self) -> bool:
        """Does the input lie in rows of pixels, a channel after the other, instead of in blocks?"""
        return self.x.column < self.lanes

    def estimate(self, target: Target) -> float:
        """Time in multiply-accumulates at the peak: a register for each pixel but two, loads next to each.

        The inputs are taken in parts, so that what a tile reads stays in the first cache.
        """
        pixels, every = min(self.n * self.h * self.w, target.registers - 2), self.n * self.h * self.w
        read = (pixels + self.kernel[1] - 1) * self.kernel[0] * self.ci * 4
        parts = 1
        while parts < PIECES and read > parts * target.l1 * 3 // 4:
            parts *= 2
        moved = every * (READ * self.ci + RESUME * parts * self.blocks * self.lanes)
        return max(self.macs * (1 + PER_BLOCK / pixels) / REACHED, self.macs / every * target.load) + moved

    def workload(self) -> BlockSparseSpec:
        """The same without its epilogue."""
        return replace(self, post_ops=())


@dataclass(frozen=True)
class BlockSparseChoice:
    """``rows`` x ``columns`` pixels in registers.

    The input channels are taken in ``parts``, so that what a tile reads of each stays in the first cache; output blocks
    in ``groups``, so that their weights stay in the second. ``copied``: what a tile reads is copied first, so that it
    lies in few cache lines that do not evict each other. Threads share the ``outer`` "pixels" or "blocks".
    """

    rows: int
    columns: int
    parts: int = 1
    groups: int = 1
    outer: str = "pixels"
    copied: bool = False


@dataclass(frozen=True)
class PanelSpec(_Kept):
    """The same at stride 1, or 1x1 at any, from panels: strips of the input that are packed with pixels side by side.

    ``inputs`` whole blocks of channels, which are looked up if ``table``. ``x``: from one pixel that is read to the
    next, so that the stride of a 1x1 is part of it. There are at least ``lanes`` pixels in a row.
    """

    lanes: int
    n: int
    inputs: int
    blocks: int
    h: int
    w: int
    kernel: tuple[int, int]
    dilation: tuple[int, int]
    x: Strides
    y: Strides
    table: bool
    percent: int
    post_ops: tuple[PostOp, ...] = ()
    threads: int = 1

    stride = (1, 1)

    @property
    def ci(self) -> int:
        """Input channels."""
        return self.inputs * self.lanes

    @property
    def left(self) -> int:
        """Pixels at the end of a single row that are computed one by one; else a vector overlaps the one before."""
        few = self.kernel == (1, 1) and self.h == 1 and self.w % self.lanes <= self.lanes // 2
        return self.w % self.lanes if few and self.w >= LEFT * self.lanes else 0

    def estimate(self, target: Target) -> float:
        """Time in multiply-accumulates at the peak: products, weights, and inputs and outputs that are transposed."""
        # The last vector of a row overlaps the one before; single pixels take three loads and one more each.
        whole = (-(-(self.w - self.left) // self.lanes) * self.lanes + (3 + self.left) * (self.left > 0)) / self.w
        pixels = self.n * self.h * self.w
        moved = whole * pixels * (TURN * self.ci + WRITE * self.blocks * self.lanes)
        return max(whole * self.macs / REACHED, self.macs / pixels * target.load) + moved

    def workload(self) -> Self:
        """The same without its epilogue."""
        return replace(self, post_ops=())


@dataclass(frozen=True)
class PanelChoice:
    """``rows`` outputs by ``vectors`` of pixels in registers, the inputs in ``parts``.

    Threads share the ``outer`` "strips" (of a 1x1 kernel its vectors of pixels) or "blocks". ``tiles``: of a strip of a
    1x1 kernel, at most.
    """

    rows: int
    vectors: int
    outer: str = "strips"
    parts: int = 1
    tiles: int = 1


@dataclass(frozen=True)
class UnstructuredSpec(PanelSpec):
    """The same from panels with zeros anywhere: ``percent`` of the single weights are kept, each with its own input."""

    @property
    def left(self) -> int:
        """None: each output would read inputs of its own."""
        return 0

    def estimate(self, target: Target) -> float:
        """Time in multiply-accumulates at the peak, as of panels with blocks; of each weight an offset is read, too.

        Sums are taken up again for each part of the inputs that the first cache holds of a tile.
        """
        pixels, outputs = self.n * self.h * self.w, self.blocks * self.lanes
        each = -(-self.w // self.lanes) * self.lanes
        parts = max(1.0, self.ci * APART_VECTORS * self.lanes * 4 / (target.l1 * 3 / 4))
        reached = APART if self.kernel == (1, 1) else APART_WINDOW
        moved = pixels * (TURN * self.ci + (WRITE + APART_RESUME * parts) * outputs)
        return max(each / self.w * (self.macs / reached + moved), 2 * self.macs / pixels * target.load)


@dataclass(frozen=True)
class UnstructuredChoice(PanelChoice):
    """As ``PanelChoice``, ``rows`` outputs that read inputs of their own."""
