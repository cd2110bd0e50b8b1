"""A 3x3 convolution by Winograd's algorithm: what it computes, and how it can be tiled."""

from __future__ import annotations

from dataclasses import dataclass, replace

from secateur.codegen.kernels.dense_spec import DenseConvolution
from secateur.codegen.plan.post_ops import PostOp
from secateur.codegen.plan.strides import Strides
from secateur.codegen.targets import Target

WINOGRAD_TILES = (4, 2)


@dataclass(frozen=True)
class WinogradSpec(DenseConvolution):
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
    post_ops: tuple[PostOp, ...] = ()
    threads: int = 1

    kernel = (3, 3)
    stride = dilation = (1, 1)
    reached = 0.9  # of the peak, by products
    moved = 6  # multiply-accumulates that it takes to transform a number
    several = True  # may output blocks be computed at once, that multiply the same channels?

    @property
    def kept(self) -> float:
        """Channels that an output block is multiplied with."""
        return self.ci

    @property
    def full(self) -> bool:
        """Is every lane of the input blocks a channel?"""
        return self.ci == self.inputs * self.lanes

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the convolution itself, so that speed over peak may pass 1."""
        return self.n * self.h * self.w * self.ci * 9 * self.blocks * self.lanes

    def estimate(self, target: Target) -> float:
        """Of the better size of tile."""
        return min(self.estimate_of(m, target) for m in WINOGRAD_TILES)

    def estimate_of(self, m: int, target: Target) -> float:
        """Time with tiles of m x m outputs, in multiply-accumulates at the peak: products, weights, transforms."""
        outputs, points, tiles = self.blocks * self.lanes, (m + 2) ** 2, self.tiles(m)
        products = tiles * points * self.kept * outputs / self.reached
        weights = points * self.kept * outputs * target.load
        return max(products, weights) + tiles * points * (self.inputs * self.lanes + outputs) * self.moved

    def tiles(self, m: int) -> int:
        """Tiles of m x m outputs, those that hang over included."""
        return self.n * -(-self.h // m) * -(-self.w // m)

    def workload(self) -> WinogradSpec:
        """The same without its epilogue."""
        return replace(self, post_ops=())


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
