"""How a convolution or a product can be shared among work items, by nothing but counting: no GPU was measured.

Time is in multiply-accumulates of one multiprocessor at its peak.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from secateur.codegen.targets import Target

from .packing import slices
from .spec import GpuConvChoice, GpuConvSpec

NARROW = 8  # outputs a group up to which each work item computes all of them for its pixel
FEW = 8  # pixels up to which a group of work items shares the sum of an output
EDGES = (128, 64, 32)  # outputs and pixels of a tile
PARTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)  # groups that may share a reduction
READ = 8.0  # products in the time in which a multiprocessor reads or writes a number of memory
HIDING = 256  # work items of a multiprocessor from which on its multipliers wait for nothing

Slices = Callable[[int], int]  # the depth of a slice -> slices of a reduction


def space(spec: GpuConvSpec, target: Target) -> Iterator[GpuConvChoice]:
    """The choices, the default first."""
    if spec.groups > 1 and spec.co <= NARROW:
        yield GpuConvChoice("direct", rows=spec.co)
    elif spec.pixels <= FEW and spec.taps == spec.groups == 1 and not any(spec.checks):
        yield GpuConvChoice("sum", columns=spec.pixels)
    else:
        yield from tiles(spec.co, spec.pixels, spec.groups, target, lambda depth: slices(spec, depth), PARTS)


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
    rounds = -(-groups // target.cores)
    work = choice.outputs * choice.pixels + READ * (choice.outputs + choice.pixels)
    found = rounds * work * choice.depth * (1 + -(-count // choice.parts)) / min(1.0, rounds * choice.items / HIDING)
    if choice.parts == 1:
        return found
    return found + target.sharing + READ * 2 * choice.parts * batch * outputs * pixels / target.cores


def in_parts(choice: GpuConvChoice, count: int, parts: tuple[int, ...]) -> list[GpuConvChoice]:
    """A tile with its reduction of ``count`` slices in so many parts, none of which is empty."""
    even = dict.fromkeys(-(-count // -(-count // p)) for p in parts if p <= count)
    return [replace(choice, parts=p) for p in even]


def _tile(outputs: int, pixels: int) -> GpuConvChoice:
    """64 numbers a work item in the largest tile, 8 in the smallest: at least 128 work items share one."""
    rows, columns = {128: 8, 64: 4, 32: 2}[outputs], {128: 8, 64: 4, 32: 4}[pixels]
    return GpuConvChoice("tile", outputs, pixels, 8 if outputs * pixels > 64 * 64 else 16, rows, columns)
