"""Dense convolution and linear layers: a tile of output blocks by pixels in registers, one input channel at a time.

For each input channel and tap: one vector of weights per output block, one number per pixel, broadcast; all products
go to accumulators. Weights lie in the order in which they are read (``ConvSpec.order``), the output block and lane
last. Channels are looked up in a table where they do not lie in whole blocks in their order, which costs one load in
``nb * pixels`` multiply-adds: concat, split and shuffle before a convolution are free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from secateur.codegen.emit.builder import KernelBuilder, even_tile, segments
from secateur.codegen.emit.types import Expr, Function
from secateur.codegen.kernels.arrays import Window, Written, random_floats, reach, written
from secateur.codegen.kernels.post_ops.template import At, apply, fetch, operand_pointers
from secateur.codegen.kernels.products import most_pixels, multiply
from secateur.codegen.plan.family import Arrays, Template
from secateur.codegen.targets import Target

from .spec import ConvChoice, ConvSpec

REVISION = 2  # raise it with every change of the code or the space: tuning records of before are then not used
Body = Callable[..., None]


def build(spec: ConvSpec, choice: ConvChoice, target: Target) -> Function:
    """The kernel ``(x, w, [bias], [table], operands.., y)``."""
    return _Conv(spec, replace(choice, nb=min(choice.nb, spec.blocks)), target).build()


class _Conv:
    def __init__(self, spec: ConvSpec, choice: ConvChoice, target: Target) -> None:
        self.spec, self.choice, self.by_lane = spec, choice, target.by_lane
        self.k = k = KernelBuilder(spec.lanes, spec.threads)
        self.x, self.w = k.pointer("x"), k.pointer("w")
        self.bias = k.pointer("bias") if spec.bias else None
        self.table = k.pointer("table", "int32") if spec.table else None
        self.operands = operand_pointers(k, spec.post_ops)
        self.y = k.pointer("y")
        self.per_block = spec.ci * spec.kernel[0] * spec.kernel[1] * spec.lanes  # weights of an output block

    def build(self) -> Function:
        shared = self.spec.threads > 1
        if self.choice.outer == "blocks":
            wide = shared and self.spec.blocks // self.choice.nb >= 2 * self.spec.threads
            self.over_blocks(lambda b, nb: self.over_pixels(lambda *p: self.tile(b, nb, *p), shared and not wide), wide)
        else:
            self.over_pixels(lambda *p: self.over_blocks(lambda b, nb: self.tile(b, nb, *p), False), shared)
        return self.k.finish()

    def over_blocks(self, body: Body, parallel: bool) -> None:
        """``body(first block, blocks)`` for all tiles of blocks."""
        for start, count, nb in segments(self.spec.blocks, self.choice.nb):
            self._tiles(count, start, nb, body, parallel)

    def _tiles(self, count: int, start: int, nb: int, body: Body, parallel: bool) -> None:
        self.k.loop(count, lambda t: body(start + t * nb, nb), parallel, "co")

    def over_pixels(self, body: Body, parallel: bool) -> None:
        """``body(image, row, column, rows, columns)`` for all tiles of the output."""
        spec, choice = self.spec, self.choice

        def image(n: Expr) -> None:
            for rows in segments(spec.h, choice.rows):
                for columns in segments(spec.w, choice.columns):
                    self._rows_of_tiles(n, rows, columns, body, parallel)

        self.k.loop(spec.n, image, False, "n")

    def _rows_of_tiles(self, n: Expr, rows: tuple[int, int, int], columns: tuple[int, int, int], body: Body,
                 parallel: bool) -> None:  # fmt: skip
        (r0, rcount, high), (c0, ccount, wide) = rows, columns

        def row(tr: Expr) -> None:
            self.k.loop(ccount, lambda tc: body(n, r0 + tr * high, c0 + tc * wide, high, wide),
                        parallel and rcount == 1, "ow")  # fmt: skip

        self.k.loop(rcount, row, parallel and rcount > 1, "oh")

    def tile(self, block: Expr, nb: int, image: Expr, row: Expr, column: Expr, rows: int, columns: int) -> None:
        """Everything for one tile of registers."""
        spec, k = self.spec, self.k
        pixels = [(r, c) for r in range(rows) for c in range(columns)]
        accumulators = k.accumulators(len(pixels) * nb)
        for j in range(nb):
            first = k.load(self.bias, (block + j) * spec.lanes) if self.bias is not None else k.splat(0.0)
            for p in range(len(pixels)):
                k.set(accumulators[p * nb + j], first)

        ahead = nb * self.per_block if self.choice.ahead else 0

        def tap(position: Expr, source: Expr, kh: Expr, kw: Expr, channels: int = 1) -> None:
            sdh, sdw = spec.dilation[0] * spec.x.row, spec.dilation[1] * spec.x.column
            at = k.bind(source + kh * sdh + kw * sdw, "int64")
            weights = block * self.per_block + position * (nb * spec.lanes)
            multiply(
                k, self.x, [at + self._shift(p) for p in pixels], self.w, weights, nb, accumulators, channels, ahead
            )

        places = [At(block + j, image, row + r, column + c) for r, c in pixels for j in range(nb)]
        fetch(k, spec.post_ops, self.operands, places)
        self._reduce(x_index(spec, image, row, column), tap)
        for place, accumulator in zip(places, accumulators, strict=True):
            value = apply(k, k.get(accumulator), spec.post_ops, self.operands, place)
            k.store(self.y, y_index(spec, place), value)

    def _shift(self, pixel: tuple[int, int]) -> int:
        """From the first pixel of a tile to this one, in the input."""
        s = self.spec
        return pixel[0] * s.stride[0] * s.x.row + pixel[1] * s.stride[1] * s.x.column

    def _reduce(self, start: Expr, tap: Body) -> None:
        """``tap(position in the weights, first input, kernel row, kernel column, channels)`` over channels and taps.

        The innermost loop is long enough that LLVM leaves it alone: unrolled, it would not fit the registers.
        """
        spec, k, v, (high, wide) = self.spec, self.k, self.spec.lanes, self.spec.kernel

        def every_tap(body: Body) -> None:
            k.loop(high, lambda kh: k.loop(wide, lambda kw: body(kh, kw), name="kw"), name="kh")

        def looked_up(channel: Expr) -> Expr:
            return start + k.scalar(self.table, channel).astype("int64")

        def block(b: Expr, kh: Expr, kw: Expr) -> None:
            first = ((b * high + kh) * wide + kw) * v
            if self.by_lane:
                tap(first, start + b * spec.x.block, kh, kw, v)
                return
            k.loop(v, lambda i: tap(first + i, start + b * spec.x.block + i, kh, kw), name="i")

        def channels(kh: Expr, kw: Expr) -> None:
            first, alone = (kh * wide + kw) * spec.ci, spec.ci - spec.runs * v
            k.loop(spec.runs, lambda r: tap(first + r * v, looked_up(r), kh, kw, v), name="cr")
            k.loop(alone, lambda c: tap(first + (spec.runs * v + c), looked_up(spec.runs + c), kh, kw), name="ci")

        if spec.order == "blocks":
            k.loop(spec.ci // v, lambda b: every_tap(lambda kh, kw: block(b, kh, kw)), name="cb")
        elif spec.order == "taps":
            every_tap(channels)
        else:
            k.loop(spec.ci, lambda c: every_tap(
                lambda kh, kw: tap((c * high + kh) * wide + kw, looked_up(c), kh, kw)), name="ci")  # fmt: skip


def x_index(spec: Window, image: Expr, row: Expr, column: Expr) -> Expr:
    """The first tap of an output."""
    return image * spec.x.image + row * (spec.stride[0] * spec.x.row) + column * (spec.stride[1] * spec.x.column)


def y_index(spec: Written, at: At) -> Expr:
    """Where a vector is written."""
    return at.block * spec.y.block + at.image * spec.y.image + at.row * spec.y.row + at.column * spec.y.column


def space(spec: ConvSpec, target: Target) -> Iterator[ConvChoice]:
    """The choices worth trying, the default first."""
    seen: set[ConvChoice] = set()
    # LLVM unrolls the taps where they are innermost, and keeps what all of them load: half of the registers are left.
    half = spec.order == "channels" and spec.kernel[1] > 1
    # Weights that stay in the first cache: pixels may be loaded once, for all blocks of outputs.
    few = spec.blocks > 2 and 4 * spec.ci * spec.kernel[0] * spec.kernel[1] * spec.blocks * spec.lanes <= target.l1 // 3
    outers = ("pixels", "blocks") if few else ("blocks", "pixels")
    if target.by_lane and not half and spec.h * spec.w > 1:
        yield from _by_lane(spec, target, outers)
        return
    for nb in ((4, 2, 1, 3) if few else (2, 1, 4, 3)) if spec.h * spec.w > 1 else (8, 4, 12, 2, 1):
        nb = min(nb, spec.blocks)
        most = (
            max(1, (target.registers // 2 if half else target.registers - nb - 2) // nb) if spec.h * spec.w > 1 else 1
        )
        shapes = [(1, even_tile(spec.w, most))]
        if spec.w * 2 <= most and spec.h > 1:
            rows = even_tile(spec.h, most // spec.w)
            shapes = [(rows, spec.w), *shapes]
        if spec.w > most:
            shapes += [(1, most), (1, max(d for d in range(1, most + 1) if spec.w % d == 0))]
            if most >= 8 and spec.h > 1:
                shapes += [(2, even_tile(spec.w, most // 2))]
        for rows, columns in shapes:
            for outer in outers:
                # Weights come from memory when a network runs, which timing a kernel alone does not show: always ahead.
                choice = ConvChoice(nb, rows, columns, outer, True)
                if choice not in seen:
                    seen.add(choice)
                    yield choice


def _by_lane(spec: ConvSpec, target: Target, outers: Sequence[str]) -> Iterator[ConvChoice]:
    """Tiles by what a core begins in a cycle: products, loads of a vector a pixel and of weights."""

    def cycles(nb: int, pixels: int) -> float:
        loads, sums = pixels / spec.lanes + nb, nb * pixels
        return max(sums / target.fmas, target.latency, (sums + loads) / 4) + loads / 8

    def total(shape: tuple[int, int, int]) -> float:
        nb, high, wide = shape
        return sum(
            bcount * rcount * ccount * cycles(blocks, rows * columns)
            for _, bcount, blocks in segments(spec.blocks, nb)
            for _, rcount, rows in segments(spec.h, high)
            for _, ccount, columns in segments(spec.w, wide)
        )

    shapes = set()
    for nb in {min(nb, spec.blocks) for nb in (1, 2, 3, 4, 6)}:
        most = most_pixels(target, nb)
        shapes |= {(nb, 1, even_tile(spec.w, most)), (nb, 1, min(most, spec.w))}
        if spec.w * 2 <= most:
            shapes.add((nb, even_tile(spec.h, most // spec.w), spec.w))
    for nb, rows, columns in sorted(shapes, key=lambda s: (total(s), s))[:6]:
        for outer in outers:
            yield ConvChoice(nb, rows, columns, outer, True)


def arrays(spec: ConvSpec, target: Target) -> Arrays:
    """Arguments to time the kernel on, and where it begins in the first."""
    v, channel = spec.lanes, np.arange(spec.ci)
    planar = spec.x.column < v
    places = channel * spec.x.block if planar else channel // v * spec.x.block + channel % v
    x = random_floats(int(places.max()) + spec.x.block + reach(spec))
    outs = spec.blocks * v
    looked_up = np.concatenate([places[: spec.runs * v : v], places[spec.runs * v :]])
    table = [looked_up.astype(np.int32)] if spec.table else []
    weights = random_floats(spec.ci * spec.kernel[0] * spec.kernel[1] * outs)
    return [x, weights, random_floats(outs), *table, random_floats(written(spec))], 0


TEMPLATES = {ConvSpec: Template(build, space, arrays, REVISION)}
