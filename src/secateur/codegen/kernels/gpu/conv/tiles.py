"""How a convolution or a product can be shared among work items, by nothing but counting: no GPU was measured.

Time is in multiply-accumulates of one multiprocessor at its peak.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from secateur.codegen.targets import Target

EDGES = (128, 64, 32)  # outputs and pixels of a tile
PARTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)  # groups that may share a reduction
READ = 8.0  # products in the time in which a multiprocessor reads or writes a number of memory
SHARERS = 128  # work items that share a sum
HIDING = 256  # work items of a multiprocessor from which on its multipliers wait for nothing

Slices = Callable[[int], int]  # the depth of a slice -> slices of a reduction


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
        return self.outputs * self.pixels // (self.rows * self.columns) if self.kind == "tile" else SHARERS

    @property
    def shared(self) -> int:
        """Bytes of shared memory: two slices of weights and of inputs; of a sum, that of each work item."""
        if self.kind == "tile":
            return 2 * 4 * self.depth * (self.outputs + self.pixels)
        return 4 * self.items * self.columns


def tiles(outputs: int, pixels: int, batch: int, target: Target, reduction: Slices,
          parts: tuple[int, ...] = (1,)) -> list[GpuConvChoice]:  # fmt: skip
    """Tiles for ``batch`` products onto outputs x pixels that a device has room for, the best first.

    ``parts``: how many groups may share a reduction; of each tile there is the best number of them.
    """

    def time(choice: GpuConvChoice) -> float:
        return tile_time(choice, outputs, pixels, batch, target, reduction(choice.depth))

    fitting = [c for c in (_tile(m, n) for m in EDGES for n in EDGES)
               if c.items <= target.group and c.shared <= target.shared]  # fmt: skip
    return sorted((min(in_parts(c, reduction(c.depth), parts), key=time) for c in fitting), key=time)


def tile_time(choice: GpuConvChoice, outputs: int, pixels: int, batch: int, target: Target, count: int) -> float:
    """Rounds of groups on all multiprocessors, times the work of a tile on ``count`` slices and the wait for the first.

    A tile reads its slices once for all its products, so small ones wait for memory; where few work items are on a
    multiprocessor at once, all wait. Parts of sums are written and read again, by a kernel more.
    """
    groups = batch * -(-outputs // choice.outputs) * -(-pixels // choice.pixels) * choice.parts
    work = READ * (choice.outputs + choice.pixels)
    work += choice.items * slots(choice.rows * choice.columns, -(-choice.rows // 4) + choice.columns)
    each = work * choice.depth * (1 + -(-count // choice.parts))
    return in_rounds(groups, choice.items, each, target) + joining(choice.parts, batch * outputs * pixels, target)


def slots(products: int, reads: int) -> int:
    """Of a scheduler, for a work item's products and the reads next to them, of which one takes four of products."""
    return max(products + reads, 4 * reads)


def in_rounds(groups: int, items: int, each: float, target: Target) -> float:
    """The time of groups of so many work items that take ``each`` on a multiprocessor that has enough to do."""
    rounds = -(-groups // target.cores)
    return rounds * each / min(1.0, rounds * items / HIDING)


def joining(parts: int, outputs: int, target: Target) -> float:
    """The time of the kernel that adds ``parts`` of each sum, which are written and read."""
    return target.sharing + READ * 2 * parts * outputs / target.cores if parts > 1 else 0.0


def sum_time(groups: int, numbers: int, target: Target) -> float:
    """The time of groups that share one sum each, of which each reads so many numbers."""
    return in_rounds(groups, SHARERS, READ * numbers, target)


def in_parts(choice: GpuConvChoice, count: int, parts: tuple[int, ...]) -> list[GpuConvChoice]:
    """A tile with its reduction of ``count`` slices in so many parts, none of which is empty."""
    even = dict.fromkeys(-(-count // -(-count // p)) for p in parts if p <= count)
    return [replace(choice, parts=p) for p in even]


def _tile(outputs: int, pixels: int) -> GpuConvChoice:
    """64 numbers a work item in the largest tile, 8 in the smallest: at least 128 work items share one."""
    rows, columns = {128: 8, 64: 4, 32: 2}[outputs], {128: 8, 64: 4, 32: 4}[pixels]
    return GpuConvChoice("tile", outputs, pixels, 8 if outputs * pixels > 64 * 64 else 16, rows, columns)
