"""Kernels bound by memory: element-wise, means over the picture, changes of layout, margins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import tirx

from secateur.codegen.specs import CopySpec, FillSpec, MapSpec, MeanSpec, MoveSpec
from secateur.codegen.writer import Expr, Kernel, const, even_tile, number, segments

from .conv import y_index
from .epilogue import At, apply, block_base, operand_pointers

FEW = 256  # pixels: sharing fewer costs threads more than it saves


def build_map(spec: MapSpec, choice: None = None, width: int = 8) -> Any:
    """The kernel ``(x, [table], operands.., y)``."""
    k = Kernel(spec.lanes, spec.threads)
    x = k.pointer("x")
    table = k.pointer("table", "int32") if spec.table else None
    operands = operand_pointers(k, spec.steps)
    y = k.pointer("y")

    def pixels(block: Expr, image: Expr, row: Expr) -> None:
        base = k.bind(block_base(k, table, block, spec.x.block) + image * spec.x.image + row * spec.x.row, "int64")
        for start, count, tile in segments(spec.w, even_tile(spec.w, width)):

            def some(t: Expr, start: int = start, tile: int = tile) -> None:
                for c in range(tile):
                    column = start + t * tile + c
                    at = At(block, image, row, column)
                    value = k.load(x, base + column * spec.x.column)
                    k.store(y, y_index(spec, at), apply(k, value, spec.steps, operands, at))

            k.loop(count, some, name="ow")

    _over(k, spec, lambda b, n: k.loop(spec.h, lambda r: pixels(b, n, r), name="oh"))
    return k.finish()


def _over(k: Kernel, spec: Any, body: Any) -> None:
    shared = spec.threads > 1 and spec.blocks >= spec.threads
    k.loop(spec.blocks, lambda b: k.loop(spec.n, lambda n: body(b, n), name="n"), shared, "c")


def build_mean(spec: MeanSpec, choice: None = None, width: int = 8) -> Any:
    """The kernel ``(x, [table], operands.., y)``; several sums run side by side."""
    k = Kernel(spec.lanes, spec.threads)
    x = k.pointer("x")
    table = k.pointer("table", "int32") if spec.table else None
    operands = operand_pointers(k, spec.steps)
    y = k.pointer("y")
    best = spec.kind == "max"

    def join(a: Expr, b: Expr) -> Expr:
        return tirx.max(a, b) if best else a + b

    def one(block: Expr, image: Expr) -> None:
        base = k.bind(block_base(k, table, block, spec.x.block) + image * spec.x.image, "int64")
        width_ = min(width, spec.w)
        sums = k.accumulators(width_, k.splat(-3.4028234663852886e38 if best else 0.0))

        def row(r: Expr) -> None:
            for start, count, tile in segments(spec.w, width_):

                def some(t: Expr, start: int = start, tile: int = tile) -> None:
                    for c in range(tile):
                        at = base + r * spec.x.row + (start + t * tile + c) * spec.x.column
                        k.set(sums[c], join(k.get(sums[c]), k.load(x, at)))

                k.loop(count, some, name="w")

        k.loop(spec.h, row, name="h")
        while len(sums) > 1:
            half = (len(sums) + 1) // 2
            for a, b in zip(sums, sums[half:], strict=False):
                k.set(a, join(k.get(a), k.get(b)))
            sums = sums[:half]
        value = k.get(sums[0])
        if spec.kind == "mean":
            value = value * k.splat(1.0 / (spec.h * spec.w))
        at = At(block, image, const(0), const(0))
        k.store(y, y_index(spec, at), apply(k, value, spec.steps, operands, at))

    _over(k, spec, one)
    return k.finish()


def build_copy(spec: CopySpec, choice: None = None) -> Any:
    """The kernel ``(x, places of x, places of y, y)``, one number at a time."""
    k = Kernel(1, spec.threads)
    x, xs, ys, y = k.pointer("x"), k.pointer("xs", "int32"), k.pointer("ys", "int32"), k.pointer("y")

    def row(n: Expr, r: Expr) -> None:
        if spec.inner == "channels":
            k.loop(spec.w, lambda w: k.loop(spec.channels, lambda c: moving(n, r, c)(w)))
        else:
            # Looked up once a row: what is loaded beside each store keeps LLVM from moving vectors.
            k.loop(spec.channels, lambda c: k.loop(spec.w, moving(n, r, c)))

    def moving(n: Expr, r: Expr, channel: Expr) -> Callable[[Expr], None]:
        source, place = (k.bind(k.scalar(table, channel).astype("int64"), "int64") for table in (xs, ys))

        def move(column: Expr) -> None:
            value = k.scalar(x, source + n * spec.x.image + r * spec.x.row + column * spec.x.column)
            value = tirx.if_then_else(source < 0, number(0.0), value)
            k.store_scalar(y, place + n * spec.y.image + r * spec.y.row + column * spec.y.column, value)

        return move

    _rows(k, spec, row)
    return k.finish()


def _rows(k: Kernel, spec: Any, row: Callable[[Expr, Expr], None]) -> None:
    """``row(image, row)`` for all; threads share the rows where there is enough to share."""
    shared = spec.threads > 1 and spec.h * spec.w >= FEW
    k.loop(spec.n, lambda n: k.loop(spec.h, lambda r: row(n, r), shared, "oh"), name="n")


def build_move(spec: MoveSpec, choice: None = None) -> Any:
    """The kernel ``(x, sources, y)``: a vector of each source, and permutations known when it is compiled."""
    k = Kernel(spec.lanes, spec.threads)
    x, sources, y = k.pointer("x"), k.pointer("sources", "int32"), k.pointer("y")

    def row(n: Expr, r: Expr) -> None:
        first = 0
        for block, picks in enumerate(spec.picks):
            count = max(picks) // spec.lanes + 1
            bases = [k.bind(k.scalar(sources, first + i).astype("int64"), "int64") for i in range(count)]
            first += count
            k.loop(spec.w, lambda c: pixel(block, picks, bases, n, r, c))  # noqa: B023

    def pixel(block: int, picks: Sequence[int], bases: Sequence[Expr], n: Expr, r: Expr, c: Expr) -> None:
        at = n * spec.x.image + r * spec.x.row + c * spec.x.column
        value = k.splat(0.0)
        for i, base in enumerate(bases):
            taken = [p - (i - 1) * spec.lanes if p // spec.lanes == i else lane for lane, p in enumerate(picks)]
            value = k.vector(k.shuffle([value, k.load(x, base + at)], taken))
        k.store(y, block * spec.y.block + n * spec.y.image + r * spec.y.row + c * spec.y.column, value)

    _rows(k, spec, row)
    return k.finish()


def build_fill(spec: FillSpec, choice: None = None) -> Any:
    """The kernel ``(y)``: zeros around each picture."""
    k = Kernel(spec.lanes, spec.threads)
    y = k.pointer("y")
    wide, m = spec.w + 2 * spec.margin, spec.margin
    row = wide * spec.lanes
    zero = k.splat(0.0)

    def picture(i: Expr) -> None:
        base = k.bind(i * (row * (spec.h + 2 * m)), "int64")
        # A margin ends a row and begins the next: one run of 2m between two rows, and whole rows above and below.
        k.loop(m * wide + m, lambda p: k.store(y, base + p * spec.lanes, zero))
        between = base + m * row + (m + spec.w) * spec.lanes
        k.loop(spec.h - 1, lambda r: k.loop(2 * m, lambda p: k.store(y, between + r * row + p * spec.lanes, zero)))
        end = base + (m + spec.h) * row - m * spec.lanes
        k.loop(m * wide + m, lambda p: k.store(y, end + p * spec.lanes, zero))

    k.loop(spec.blocks * spec.n, picture, True)
    return k.finish()
