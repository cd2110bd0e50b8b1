"""Copies: lane to lane, channel by channel, by tables, and zeros in a halo."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tvm import tirx

from secateur.codegen.emit.builder import KernelBuilder, number
from secateur.codegen.emit.types import Buffer, Expr, Function
from secateur.codegen.kernels.elementwise.template import FEW
from secateur.codegen.plan.copy_specs import CopySpec, FillSpec, MoveSpec, TableCopySpec
from secateur.codegen.plan.family import Template
from secateur.codegen.targets import Target


def build_copy(spec: CopySpec, choice: None, target: Target) -> Function:
    """The kernel ``(x, places of x, places of y, y)``, one number at a time."""
    k = KernelBuilder(1, spec.threads)
    x, xs, ys, y = k.pointer("x"), k.pointer("xs", "int32"), k.pointer("ys", "int32"), k.pointer("y")

    def row(n: Expr, r: Expr) -> None:
        if spec.inner == "channels":
            k.loop(spec.w, lambda w: k.loop(spec.channels, lambda c: moving(n, r, c)(w)))
        else:
            # Looked up once a row: what is loaded next to each store keeps LLVM from moving vectors.
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


def _rows(k: KernelBuilder, spec: CopySpec | MoveSpec, row: Callable[[Expr, Expr], None]) -> None:
    """``row(image, row)`` for all; threads share the rows where there is enough to share."""
    shared = spec.threads > 1 and spec.h * spec.w >= FEW
    k.loop(spec.n, lambda n: k.loop(spec.h, lambda r: row(n, r), shared, "oh"), name="n")


def build_move(spec: MoveSpec, choice: None, target: Target) -> Function:
    """The kernel ``(x, sources, y)``: a vector of each source, and permutations known when it is compiled."""
    k = KernelBuilder(spec.lanes, spec.threads)
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


def build_fill(spec: FillSpec, choice: None, target: Target) -> Function:
    """The kernel ``(y)``: zeros around each batch entry."""
    k = KernelBuilder(spec.lanes, spec.threads)
    y = k.pointer("y")
    wide, m = spec.w + 2 * spec.halo, spec.halo
    row = wide * spec.lanes
    zero = k.splat(0.0)

    def entry(i: Expr) -> None:
        base = k.bind(i * (row * (spec.h + 2 * m)), "int64")
        # A halo ends a row and begins the next: one run of 2m between two rows, and whole rows above and below.
        k.loop(m * wide + m, lambda p: k.store(y, base + p * spec.lanes, zero))
        between = base + m * row + (m + spec.w) * spec.lanes
        k.loop(spec.h - 1, lambda r: k.loop(2 * m, lambda p: k.store(y, between + r * row + p * spec.lanes, zero)))
        end = base + (m + spec.h) * row - m * spec.lanes
        k.loop(m * wide + m, lambda p: k.store(y, end + p * spec.lanes, zero))

    k.loop(spec.blocks * spec.n, entry, True)
    return k.finish()


def build_table_copy(spec: TableCopySpec, choice: None, target: Target) -> Function:
    """The kernel ``([x, xo, xi], yo, yi, y)``."""
    k = KernelBuilder(spec.lanes, spec.threads)
    x, xo, xi = (
        (None, None, None) if spec.zero else (k.pointer("x"), k.pointer("xo", "int32"), k.pointer("xi", "int32"))
    )
    yo, yi, y = k.pointer("yo", "int32"), k.pointer("yi", "int32"), k.pointer("y")

    def at(table: Buffer, index: Expr) -> Expr:
        return k.scalar(table, index).astype("int64")

    def outer(o: Expr) -> None:
        source = None if x is None else k.bind(at(xo, o), "int64")
        target = k.bind(at(yo, o), "int64")

        def inner(i: Expr) -> None:
            value = k.splat(0.0) if source is None else k.load(x, source + at(xi, i))
            k.store(y, target + at(yi, i), value)

        k.loop(spec.inner, inner, name="i")

    k.loop(spec.outer, outer, spec.threads > 1 and spec.outer >= 2 * spec.threads, "o")
    return k.finish()


TEMPLATES: Mapping[type, Template] = {
    CopySpec: Template(build_copy),
    TableCopySpec: Template(build_table_copy),
    MoveSpec: Template(build_move),
    FillSpec: Template(build_fill),
}
