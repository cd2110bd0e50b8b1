"""A linear layer on a few pixels whose zeros are left out row by row: what it computes, and how it can be tiled."""

from __future__ import annotations

from dataclasses import dataclass, replace

from secateur.codegen.kernels.dense_spec import DenseConvolution
from secateur.codegen.plan.post_ops import PostOp
from secateur.codegen.plan.strides import Strides
from secateur.codegen.targets import Target

from .packing import Cycles
from .powers import WORD, Power

REACHED = 0.8  # of what loads, permutations and memory would allow


@dataclass(frozen=True)
class RowSparseSpec(DenseConvolution):
    """A 1x1 convolution or linear layer of which many weights are zero, and most rows lie by ``powers``.

    Of all ``threads`` one computes it: results are put together from products of all rows, and no kernel has a barrier.
    ``shares``: per cent of the vectors of rows that are of each of ``powers``; those that are left keep ``percent`` of
    their weights, by which records are looked up. The ``ci`` channels lie in blocks in order.
    """

    lanes: int
    n: int
    ci: int
    blocks: int
    h: int
    w: int
    x: Strides
    y: Strides
    powers: tuple[int, ...]
    shares: tuple[int, ...]
    percent: int
    post_ops: tuple[PostOp, ...] = ()
    threads: int = 1

    kernel = stride = dilation = (1, 1)

    @property
    def pixels(self) -> int:
        """Of all images."""
        return self.n * self.h * self.w

    def counts(self) -> list[tuple[Power, int]]:
        """Vectors of rows of each power, about."""
        hows = [Power(power, self.lanes, self.ci) for power in self.powers]
        return [(how, self.blocks * share // 100) for how, share in zip(hows, self.shares, strict=True)]

    @property
    def others(self) -> int:
        """Vectors of weights in rows of no power, about."""
        left = self.blocks - sum(count for _, count in self.counts())
        return left * self.ci * self.percent // 100

    @property
    def macs(self) -> int:
        """Multiply-accumulates, about: with what is kept."""
        own = sum(count * how.vectors for how, count in self.counts())
        return self.pixels * (own + self.others) * self.lanes

    def estimate(self, target: Target) -> float:
        """Time in multiply-accumulates at the peak of all threads: a vector of rows meets all pixels at once."""
        cycles = Cycles(self.lanes, 0.0, target.permute_cycles)
        own = sum(count * cycles.permuted(how) for how, count in self.counts())
        every = own + cycles.looked_up(self.others + self.blocks, self.lanes)  # and each sum, from where it is
        read = sum(count * how.vectors * (1 + how.bits / WORD) for how, count in self.counts()) + 2 * self.others
        return self.threads * max(self.pixels * every * target.fmas, read * target.load) * self.lanes / REACHED

    def workload(self) -> RowSparseSpec:
        """The same without its epilogue."""
        return replace(self, post_ops=())


@dataclass(frozen=True)
class RowSparseChoice:
    """``sums`` of a vector of rows that are under way at once."""

    sums: int = 4
