"""A convolution or linear layer on planes whose weights are zero in whole blocks: what it computes, and how.

A block of weights is one tap of one input channel for ``height`` neighbouring outputs, as many as a work item computes.
Rows of blocks are begun with the longest ("row swizzle" in Gale et al., 2020, "Sparse GPU Kernels for Deep Learning").
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, fields

from secateur.codegen.kernels.gpu.conv.spec import GpuConvSpec
from secateur.codegen.kernels.gpu.conv.tiles import PARTS, SHARERS, joining, kernel_time, slots
from secateur.codegen.targets import Target

HEIGHTS = (32, 16, 8, 4)  # outputs of a block
NUMBERS = 80  # of a work item at most, its sums and the weights of a block: more would spill
SHARED = 32  # sums of a group, at most, where its work items share them
ITEMS = (128, 64)
AHEAD = 4  # blocks of a row whose inputs are on their way at once


@dataclass(frozen=True)
class GpuSparseSpec(GpuConvSpec):
    """A convolution of one group with ``kept`` blocks of ``height`` outputs; the fullest row has ``longest``."""

    height: int = 1
    kept: int = 0
    longest: int = 0

    @staticmethod
    def of(dense: GpuConvSpec, height: int, kept: int, longest: int) -> GpuSparseSpec:
        """The dense convolution with so many blocks."""
        return GpuSparseSpec(**{f.name: getattr(dense, f.name) for f in fields(dense)}, height=height, kept=kept,
                             longest=longest)  # fmt: skip

    @property
    def dense(self) -> GpuConvSpec:
        """The same with all weights."""
        return GpuConvSpec(**{f.name: getattr(self, f.name) for f in fields(GpuConvSpec)})

    @property
    def rows(self) -> int:
        """Rows of blocks."""
        return -(-self.co // self.height)

    @property
    def mean(self) -> float:
        """Blocks of a row."""
        return self.kept / self.rows

    @property
    def stored(self) -> int:
        """Numbers of all blocks."""
        return self.kept * self.height

    @property
    def macs(self) -> int:
        """Multiply-accumulates with what is kept."""
        return self.pixels * self.kept * self.height

    @property
    def computes(self) -> Hashable:
        """Equal for specs that compute the same."""
        return self.dense

    @property
    def title(self) -> str:
        """Channels, kernel, size and the share of blocks that are kept, for people."""
        return f"{super().title} {100 * self.kept / (self.rows * self.ci * self.taps):.0f}%"

    def estimate(self, target: Target) -> float:
        """Time in multiply-accumulates of a multiprocessor, counted."""
        return time(self, next(space(self, target)), target)


@dataclass(frozen=True)
class GpuSparseChoice:
    """How rows of blocks are shared among work items.

    ``kind``: "pixels", each of ``items`` work items has the block's outputs of ``columns`` pixels; "sum", they share
    the blocks of a row, for all ``columns`` pixels that there are. ``parts``: so many groups share a row, and a kernel
    after it adds what they found.
    """

    kind: str
    items: int
    columns: int
    parts: int = 1


def space(spec: GpuSparseSpec, target: Target) -> Iterator[GpuSparseChoice]:
    """The choices, the default first."""
    if spec.few:
        yield GpuSparseChoice("sum", SHARERS, spec.pixels)
        return
    wide = [columns for columns in (4, 2, 1) if (columns + 1) * spec.height <= NUMBERS]
    every = [GpuSparseChoice("pixels", items, columns, parts) for items in ITEMS for columns in wide
             for parts in PARTS if parts <= max(1, spec.longest)]  # fmt: skip
    best = {(c.items, c.columns): c for c in sorted(every, key=lambda c: time(spec, c, target), reverse=True)}
    yield from sorted(best.values(), key=lambda c: time(spec, c, target))


def time(spec: GpuSparseSpec, choice: GpuSparseChoice, target: Target) -> float:
    """As of a tile; rows are of mean length, but for the longest ones, which one round waits for."""
    columns, height, together = choice.columns, spec.height, choice.kind == "sum"
    pixels = 1 if together else choice.items * columns
    groups = spec.rows * (1 if together else -(-spec.pixels // pixels)) * choice.parts
    blocks = (spec.mean + (spec.longest - spec.mean) / -(-groups // target.cores)) / choice.parts
    own = blocks / choice.items if together else blocks  # of a work item
    each = (1 + own) * choice.items * slots(height * columns, columns + 1 + -(-height // 4))
    read = blocks * (columns if together else pixels) + blocks * (height + 1)
    moved = spec.products.moved + (choice.parts * spec.outputs if choice.parts > 1 else 0)
    found = kernel_time(groups, choice.items, height * columns, each, read, moved, target)
    return found + joining(choice.parts, spec.outputs, target)
