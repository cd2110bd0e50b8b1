"""How a convolution or a product can be shared among work items, by nothing but counting: no GPU was measured.

Time is in multiply-accumulates of one multiprocessor at its peak.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from secateur.codegen.targets import Target

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

EDGES = (128, 64, 32)  # outputs and pixels of a tile
PARTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)  # groups that may share a reduction
READ = 8.0  # products in the time in which a multiprocessor gets a number of the second cache
SHARERS = 128  # work items that share a sum
HIDING = 256  # work items of a multiprocessor from which on its multipliers wait for nothing
IN_FLIGHT = 2  # numbers that a work item waits for at once
WAIT = 0.6  # of the time of a launch, until a number of memory is there
FILE, MOST = 65536, 16  # registers of a multiprocessor, and groups that are on it at once

T = TypeVar("T", bound="DataclassInstance")  # a choice with a number of ``parts``
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


@dataclass(frozen=True)
class Products:
    """``batch`` products of matrices onto outputs x pixels, with so many slices of a depth.

    ``moved``: numbers of all operands, each once.
    """

    outputs: int
    pixels: int
    batch: int
    reduction: Slices
    moved: int


def tiles(work: Products, target: Target, parts: tuple[int, ...] = (1,)) -> list[GpuConvChoice]:
    """Tiles that a device has room for, the best first.

    ``parts``: how many groups may share a reduction; of each tile there is the best number of them.
    """

    def time(choice: GpuConvChoice) -> float:
        return tile_time(choice, work, target)

    fitting = [c for c in (_tile(m, n) for m in EDGES for n in EDGES)
               if c.items <= target.group and c.shared <= target.shared]  # fmt: skip
    return sorted((min(in_parts(c, work.reduction(c.depth), parts), key=time) for c in fitting), key=time)


def tile_time(choice: GpuConvChoice, work: Products, target: Target) -> float:
    """The time of all tiles, and of the kernel that adds parts of sums; a tile waits for its first slice."""
    groups = work.batch * -(-work.outputs // choice.outputs) * -(-work.pixels // choice.pixels) * choice.parts
    products, reads = choice.rows * choice.columns, -(-choice.rows // 4) + choice.columns
    own = choice.depth * -(-work.reduction(choice.depth) // choice.parts)
    written = work.batch * work.outputs * work.pixels * (choice.parts if choice.parts > 1 else 0)
    found = kernel_time(
        groups, choice.items, products, (own + choice.depth) * choice.items * slots(products, reads),
        own * (choice.outputs + choice.pixels), work.moved + written, target,
    )  # fmt: skip
    return found + joining(choice.parts, work.batch * work.outputs * work.pixels, target)


def slots(products: int, reads: int) -> int:
    """Of a scheduler, for a work item's products and the reads next to them, of which one takes four of products."""
    return max(products + reads, 4 * reads)


def kernel_time(groups: int, items: int, sums: int, each: float, read: float, moved: float, target: Target) -> float:
    """Rounds of groups on all multiprocessors, or the time of memory if that is longer.

    Of a group: ``each``, its slots of multipliers, longer where too few work items are there to hide that they wait;
    ``read``, numbers of the second cache. ``sums``: of a work item, by which others find room next to it.
    """
    rounds = -(-groups // target.cores)
    room = max(1, min(MOST, FILE // (min(128, 40 + 3 * sums // 2) * items)))
    computed = rounds * max(each / min(1.0, min(rounds, room) * items / HIDING), READ * read)
    waiting = min(groups, target.cores * room) * items * IN_FLIGHT
    return max(computed, moved * max(target.load / target.cores, WAIT * target.sharing / waiting))


def joining(parts: int, outputs: int, target: Target) -> float:
    """The time of the kernel that adds ``parts`` of each sum."""
    if parts == 1:
        return 0.0
    return target.sharing + kernel_time(-(-outputs // HIDING), HIDING, 1, 0.0, 0.0, (parts + 1) * outputs, target)


def in_parts(choice: T, count: int, parts: tuple[int, ...]) -> list[T]:
    """A choice with its reduction of ``count`` slices in so many parts, none of which is empty."""
    even = dict.fromkeys(-(-count // -(-count // p)) for p in parts if p <= count)
    return [replace(choice, parts=p) for p in even]


def _tile(outputs: int, pixels: int) -> GpuConvChoice:
    """64 numbers a work item in the largest tile, 8 in the smallest: at least 128 work items share one."""
    rows, columns = {128: 8, 64: 4, 32: 2}[outputs], {128: 8, 64: 4, 32: 4}[pixels]
    return GpuConvChoice("tile", outputs, pixels, 8 if outputs * pixels > 64 * 64 else 16, rows, columns)
