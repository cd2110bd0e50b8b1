"""The product of two matrices by tiles: slices in shared memory, twice each, and sums in the registers of work items.

While a slice is multiplied the next one is on its way to registers; it is stored to the other half of shared memory
after, so there is one barrier a slice. Work items of a row of threads own columns that are as far apart as there are of
them: neighbours read and write neighbouring numbers. Their outputs follow each other, and are read four at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from secateur.codegen.emit.gpu.builder import GpuBuilder, div, integer, mod
from secateur.codegen.emit.types import Buffer, Expr

from .conv.tiles import GpuConvChoice

Fetch = Callable[[Expr, Expr, Expr], Expr]  # (slice, row of the slice, output or pixel of the tile) -> a number
Step = Callable[[Sequence[Buffer], Sequence[Expr], Expr], None]


@dataclass(frozen=True)
class Side:
    """An operand of a tile: how wide it is, what is loaded of it, and whether neighbours load along the reduction.

    ``joined``: of so many rows that follow each other ``join`` makes one word of shared memory. ``gap``: words that are
    left free after each row there. ``rows``: of words in a slice, 0 for as many as a slice is deep.
    """

    wide: int
    fetch: Fetch
    deep: bool = False
    joined: int = 1
    join: Callable[..., Expr] | None = None
    gap: int = 0
    rows: int = 0

    @property
    def pitch(self) -> int:
        """Words from one row to the next."""
        return self.wide + self.gap


def multiply(k: GpuBuilder, choice: GpuConvChoice, slices: Expr, outputs: Side, pixels: Side,
             first: Expr = 0) -> Buffer:  # fmt: skip
    """Sums of products, ``[rows, columns]`` of each work item's own (see ``own_row``, ``own_column``).

    Of ``slices`` slices, one at least, from the ``first`` on; all of a group have the same.
    """
    sums = k.local(choice.rows * choice.columns, 0.0)
    left, right = k.local(choice.rows), k.local(choice.columns)

    def step(halves: Sequence[Buffer], starts: Sequence[Expr], d: Expr) -> None:
        # No name for this: TVM sees by the factors in it that four numbers at once are aligned.
        from_left = starts[0] + d * outputs.pitch + own_row(k, choice, 0)
        from_right = k.bind(starts[1] + d * pixels.pitch + own_column(k, choice, 0))
        apart = choice.pixels // choice.columns
        k.copy(left, halves[0], from_left, choice.rows)
        k.loop(choice.columns, lambda j: k.store(right, j, k.load(halves[1], from_right + j * apart)), unroll=True)

        def row(i: Expr) -> None:
            def product(j: Expr) -> None:
                k.add(sums, i * choice.columns + j, k.load(left, i) * k.load(right, j))

            k.loop(choice.columns, product, unroll=True)

        k.loop(choice.rows, row, unroll=True)

    through(k, choice.depth, slices, (outputs, pixels), step, first)
    return sums


def through(k: GpuBuilder, depth: int, slices: Expr, sides: Sequence[Side], step: Step, first: Expr = 0,
            stride: int = 1) -> None:  # fmt: skip
    """``step(both operands in shared memory, where their slices begin, row)`` for each ``stride``-th row of all slices.

    Slices have ``depth`` rows of words.
    """
    items = k.items
    heights = [side.rows or depth for side in sides]
    sizes = [height * side.pitch for height, side in zip(heights, sides, strict=True)]
    halves = [k.shared(2 * size) for size in sizes]
    counts = [-(-height * side.wide // items) for height, side in zip(heights, sides, strict=True)]
    waiting = [k.local(count * side.joined) for count, side in zip(counts, sides, strict=True)]

    def place(side: Side, i: Expr) -> tuple[Expr, Expr]:
        """(row of the slice, place in the tile) of a work item's i-th word."""
        at = k.item + i * items
        return (mod(at, depth), div(at, depth)) if side.deep else (div(at, side.wide), mod(at, side.wide))

    def if_there(side: Side, i: int, body: Callable[[], None]) -> None:
        """The last words of a slice may not be enough for all work items."""
        words = (side.rows or depth) * side.wide
        k.branch(k.item + i * items < words if (i + 1) * items > words else None, body)

    def load(s: Expr, side: Side, kept: Buffer, i: int) -> None:
        row, at = place(side, i)
        for j in range(side.joined):
            k.store(kept, i * side.joined + j, side.fetch(k.bind(first + s), row * side.joined + j, at))

    def save(side: Side, kept: Buffer, i: int, memory: Buffer, begin: Expr) -> None:
        row, at = place(side, i)
        numbers = [k.load(kept, i * side.joined + j) for j in range(side.joined)]
        word = numbers[0] if side.join is None else side.join(*numbers)
        k.store(memory, begin + row * side.pitch + at, word)

    def fetch(s: Expr) -> None:
        for side, kept, count in zip(sides, waiting, counts, strict=True):
            for i in range(count):
                if_there(side, i, partial(load, s, side, kept, i))

    def keep(half: Expr) -> None:
        for side, kept, memory, size, count in zip(sides, waiting, halves, sizes, counts, strict=True):
            for i in range(count):
                if_there(side, i, partial(save, side, kept, i, memory, half * size))

    def products(half: Expr) -> None:
        k.loop(depth // stride, lambda d: step(halves, [half * size for size in sizes], d * stride), "d", unroll=True)

    def turn(s: Expr) -> None:
        fetch(k.bind(s + 1))
        products(k.bind(mod(s, 2)))
        keep(k.bind(mod(s + 1, 2)))
        k.barrier()

    fetch(0)
    keep(0)
    k.barrier()
    if isinstance(slices, int):
        k.loop(slices - 1, turn, "s")
        products((slices - 1) % 2)
    else:
        k.span(integer(0), slices - 1, turn, "s")
        products(k.bind(mod(slices - 1, 2)))


def own_row(k: GpuBuilder, choice: GpuConvChoice, i: Expr) -> Expr:
    """Which output of the tile a work item's i-th row is."""
    return div(k.item, choice.pixels // choice.columns) * choice.rows + i


def own_column(k: GpuBuilder, choice: GpuConvChoice, j: Expr) -> Expr:
    """Which pixel of the tile a work item's j-th column is."""
    apart = choice.pixels // choice.columns
    return mod(k.item, apart) + j * apart
