"""Block-sparse convolutions on planes: the blocks of a row one after another, for pixels or shared by work items.

Neighbouring work items have neighbouring pixels, read neighbouring inputs, and the same weights, four at once. Which
taps of its pixels lie inside of the image a work item knows beforehand, a bit each.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tvm import tirx

from secateur.codegen.emit.gpu.builder import GpuBuilder, div, integer, mod
from secateur.codegen.emit.types import Expr, Function
from secateur.codegen.kernels.gpu.conv.operands import Conv, join
from secateur.codegen.kernels.gpu.reductions import plus
from secateur.codegen.plan.family import Template
from secateur.codegen.targets import Target

from .spec import AHEAD, GpuSparseChoice, GpuSparseSpec, space

ROWS, PLACES, TAPS = "rows", "places", "taps"


def tables(spec: GpuSparseSpec) -> list[str]:
    """The names of the tables: see ``plan.arguments``."""
    return [ROWS, PLACES, *([TAPS] if any(spec.checks) else [])]


def build(spec: GpuSparseSpec, choice: GpuSparseChoice, target: Target) -> Function:
    """The kernel ``(x, w, bias, rows, places, [taps], operands.., y, [parts])``."""
    return _by_pixels(spec, choice) if choice.kind == "pixels" else _sum(spec, choice)


def joined(spec: GpuSparseSpec, choice: GpuSparseChoice, target: Target) -> Function | None:
    """The kernel of the same operands that adds the parts of each sum; None where sums are whole."""
    return None if choice.parts == 1 else join(spec, choice.parts, tables(spec))


class _Row:
    """A row of blocks, or a part of one: its number, and the first of its blocks and the one after the last."""

    def __init__(self, k: GpuBuilder, conv: Conv, row: Expr, part: Expr, parts: int) -> None:
        def entry(i: int) -> Expr:
            return k.bind(k.load(conv.tables[ROWS], row * 3 + i))

        self.block, self.first, self.last = entry(0), entry(1), entry(2)
        if parts > 1:
            own = k.bind(div(self.last - self.first + (AHEAD * parts - 1), AHEAD * parts) * AHEAD)
            self.first = k.bind(self.first + part * own)
            self.last = k.bind(tirx.min(self.last, self.first + own))


def _write(k: GpuBuilder, spec: GpuSparseSpec, conv: Conv, block: Expr, i: Expr, pixel: Expr, value: Expr,
           part: Expr = 0) -> None:  # fmt: skip
    """The sum of a block's i-th output."""
    output = k.bind(block * spec.height + i)
    last = output < spec.co if spec.co % spec.height else None
    k.branch(last, lambda: conv.write(output, pixel, value, part))


def _by_pixels(spec: GpuSparseSpec, choice: GpuSparseChoice) -> Function:
    height, columns, pixels = spec.height, choice.columns, spec.pixels
    k = GpuBuilder((-(-pixels // (choice.items * columns)), spec.rows * choice.parts), choice.items)
    conv = Conv(k, spec, tables(spec), choice.parts)
    part = k.bind(mod(k.group[1], choice.parts))
    row = _Row(k, conv, k.bind(div(k.group[1], choice.parts)), part, choice.parts)
    own = [k.bind(k.group[0] * (choice.items * columns) + k.item + c * choice.items) for c in range(columns)]
    taps = [conv.first_tap(k.bind(tirx.min(at, pixels - 1))) for at in own]
    begin = [k.bind(image + top * spec.x.row + left * spec.x.column) for image, top, left in taps]
    bits = [_inside(k, conv, first) for first in taps]
    sums, weights, inputs = k.local(height * columns, 0.0), k.local(height), k.local(AHEAD * columns)

    def fetch(e: Expr, ahead: int) -> None:
        place = k.bind(k.load(conv.tables[PLACES], e))
        tap = k.bind(k.load(conv.tables[TAPS], e)) if TAPS in conv.tables else None
        for c in range(columns):
            there = None if tap is None else tirx.bitwise_and(tirx.shift_right(bits[c], tap), integer(1)) == 1
            k.store(inputs, ahead * columns + c, k.load_if(there, conv.x, place + begin[c]))

    def multiply(e: Expr, ahead: int) -> None:
        k.copy(weights, conv.weight, e * height, height)

        def product(i: Expr) -> None:
            for c in range(columns):
                k.add(sums, i * columns + c, k.load(weights, i) * k.load(inputs, ahead * columns + c))

        k.loop(height, product, unroll=True)

    def four(e: Expr) -> None:
        blocks = [(row.first + e * AHEAD + ahead, ahead) for ahead in range(AHEAD)]
        for at, ahead in blocks:
            fetch(at, ahead)
        for at, ahead in blocks:
            multiply(at, ahead)

    k.span(integer(0), div(row.last - row.first, AHEAD), four, "e")

    def column(c: int) -> None:
        def one(i: Expr) -> None:
            _write(k, spec, conv, row.block, i, own[c], k.load(sums, i * columns + c), part)

        there = own[c] < pixels if pixels % (choice.items * columns) else None
        k.branch(there, lambda: k.loop(height, one, unroll=True))

    for c in range(columns):
        column(c)
    return k.finish()


def _inside(k: GpuBuilder, conv: Conv, first: tuple[Expr, Expr, Expr]) -> Expr:
    """A bit for each tap of a pixel: does it lie in the image?"""
    found: Expr = integer(0)
    for tap in range(conv.spec.taps if TAPS in conv.tables else 0):
        there, _ = conv.tap(first, integer(tap))
        found = found + tirx.Select(there, integer(1 << tap), integer(0))
    return k.bind(found)


def _sum(spec: GpuSparseSpec, choice: GpuSparseChoice) -> Function:
    """A group for each row of blocks: its work items share the blocks, of which each reads all weights."""
    height, pixels = spec.height, choice.columns
    k = GpuBuilder((spec.rows,), choice.items)
    conv = Conv(k, spec, tables(spec))
    row = _Row(k, conv, k.group[0], integer(0), 1)
    x = spec.x
    begin = [n * x.image + r * spec.stride[0] * x.row + c * spec.stride[1] * x.column
             for n in range(spec.n) for r in range(spec.h) for c in range(spec.w)]  # fmt: skip
    sums, weights = k.local(height * pixels, 0.0), k.local(height)

    def block(e: Expr) -> None:
        place = k.bind(k.load(conv.tables[PLACES], e))
        k.copy(weights, conv.weight, e * height, height)
        values = [k.held(k.load(conv.x, place + at)) for at in begin]

        def products(i: Expr) -> None:
            for p, value in enumerate(values):
                k.add(sums, i * pixels + p, k.load(weights, i) * value)

        k.loop(height, products, unroll=True)

    def turn(t: Expr) -> None:
        at = k.bind(row.first + t * choice.items + k.item)
        k.branch(at < row.last, lambda: block(at))

    k.span(integer(0), div(row.last - row.first + (choice.items - 1), choice.items), turn)
    scratch = k.shared(choice.items * height * pixels)
    totals = k.combine_all([k.load(sums, i) for i in range(height * pixels)], scratch, plus)

    def write() -> None:
        for i, total in enumerate(totals):
            _write(k, spec, conv, row.block, integer(i // pixels), integer(i % pixels), total)

    k.branch(k.item == 0, write)
    return k.finish()


TEMPLATES: Mapping[type, Template] = MappingProxyType({GpuSparseSpec: Template(build, space, then=joined)})
