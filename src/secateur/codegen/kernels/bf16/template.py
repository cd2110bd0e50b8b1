"""Dense convolutions and linear layers in bfloat16: a strip of the input is rounded, then multiplied tile by tile.

Rounding a strip once, into scratch memory in which the channels of a pixel are neighbours, takes lookups, strides and
lanes that are no channel out of the loop that multiplies. There, for each step of channels and tap, vectors of weights
meet the words of each pixel, and sums stay in registers in float32 (``dots.Dot`` says what one product takes).

The last strip (and each thread's last one) begins early enough to be whole: some outputs are then computed twice, with
the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from tvm import tirx

from secateur.codegen.dots import DOTS
from secateur.codegen.emit.bf16 import add_product, round_pairs
from secateur.codegen.emit.builder import INT, KernelBuilder, const, even_tile, segments
from secateur.codegen.emit.partition import partition
from secateur.codegen.emit.types import Buffer, Expr, Function
from secateur.codegen.kernels.arrays import random_floats, reach, written
from secateur.codegen.kernels.conv.template import y_index
from secateur.codegen.kernels.post_ops.template import At, apply, block_base, fetch, operand_pointers
from secateur.codegen.kernels.products import LINE
from secateur.codegen.plan.family import Arrays, Template
from secateur.codegen.targets import Target

from .packing import rounded
from .spec import Bf16Choice, Bf16ConvSpec
from .strip import strip

REVISION = 1  # raise it with every change of the code or the space: tuning records of before are then not used
Body = Callable[..., None]


def build(spec: Bf16ConvSpec, choice: Bf16Choice, target: Target) -> Function:
    """The kernel ``(x, w, bias, [blocks of x], [masks], scratch, operands.., y)``."""
    return _Bf16(spec, choice, target).build()


class _Bf16:
    def __init__(self, spec: Bf16ConvSpec, choice: Bf16Choice, target: Target) -> None:
        self.spec, self.choice, self.strip = spec, choice, strip(spec, choice)
        self.name, self.dot = target.bf16, DOTS[target.bf16]
        self.k = k = KernelBuilder(spec.lanes, spec.threads)
        self.x, self.w, self.bias = k.pointer("x"), k.pointer("w"), k.pointer("bias")
        self.table = k.pointer("table", "int32") if spec.table else None
        self.masks = None if spec.full else k.pointer("masks")
        self.scratch = k.pointer("scratch")
        self.operands = operand_pointers(k, spec.post_ops)
        self.y = k.pointer("y")
        self.word = spec.lanes // 2  # of a pixel of a block
        self.step = self.dot.channels * spec.lanes // 2  # words of weights of a block that a step takes
        self.steps = spec.lanes // self.dot.channels  # of a block of inputs

    def build(self) -> Function:
        k, spec = self.k, self.spec
        size, total = (self.strip.high, spec.h) if spec.h > 1 else (self.strip.wide, spec.w)
        strips = -(-total // size)

        def one(worker: Expr, number: Expr) -> None:
            image = k.bind(tirx.floordiv(number, const(strips)), INT)
            first = k.bind(tirx.min((number - image * strips) * size, const(total - size)), INT)
            at = (first, const(0)) if spec.h > 1 else (const(0), first)
            self.one_strip(k.bind(worker * self.strip.each, INT), image, *at)

        if self.choice.outer == "strips":
            partition(k, spec.threads, spec.n * strips, one)
        else:
            k.everyone(lambda worker: k.loop(spec.n * strips, lambda i: one(worker, i), name="s"))
        return k.finish()

    def one_strip(self, scratch: Expr, image: Expr, row: Expr, column: Expr) -> None:
        """The outputs of a strip, from ``row`` and ``column`` on; its pixels are rounded to ``scratch``."""
        spec, k = self.spec, self.k
        self.round_strip(scratch, image, row, column)
        for start, count, nb in segments(spec.blocks, min(self.choice.nb, spec.blocks)):

            def tiles(t: Expr, start: int = start, nb: int = nb) -> None:
                self.over_pixels(lambda r, c, rows, columns: self.tile(
                    scratch, k.bind(start + t * nb, INT), nb, At(const(0), image, row, column), r, c, rows, columns
                ))  # fmt: skip

            k.loop(count, tiles, self.choice.outer == "blocks", "co")

    def round_strip(self, scratch: Expr, image: Expr, row: Expr, column: Expr) -> None:
        """Round all pixels that a strip reads, block by block."""
        spec, k, s = self.spec, self.k, self.strip
        begin = image * spec.x.image + row * (spec.stride[0] * spec.x.row) + column * (spec.stride[1] * spec.x.column)

        def block(b: Expr) -> None:
            source = k.bind(block_base(k, self.table, b, spec.x.block) + begin, INT)
            mask = None if self.masks is None else k.vector(k.load(self.masks, b * k.lanes))
            to = k.bind(scratch + b * s.block, INT)
            k.loop(s.rows, lambda r: line(source + r * spec.x.row, to + r * s.row, mask), name="r")

        def line(source: Expr, to: Expr, mask: Expr | None) -> None:
            stride = spec.stride[1]
            for phase in range(min(stride, s.columns)):

                def pixel(c: Expr, phase: int = phase) -> None:
                    value = k.load(self.x, source + (c * stride + phase) * spec.x.column)
                    words = round_pairs(k, self.name, value, mask)
                    k.store(self.scratch, to + phase * s.phase + c * self.word, words, self.word)

                k.loop(-(-(s.columns - phase) // stride), pixel, name="c")

        k.loop(spec.inputs, block, name="cb")

    def over_pixels(self, body: Body) -> None:
        """``body(row, column, rows, columns)`` for all tiles of a strip."""
        for r0, rcount, rows in segments(self.strip.high, self.choice.rows):
            for c0, ccount, columns in segments(self.strip.wide, self.choice.columns):

                def row(tr: Expr, r0: int = r0, rows: int = rows, c0: int = c0, ccount: int = ccount,
                        columns: int = columns) -> None:  # fmt: skip
                    self.k.loop(ccount, lambda tc: body(r0 + tr * rows, c0 + tc * columns, rows, columns), name="ow")

                self.k.loop(rcount, row, name="oh")

    def tile(self, scratch: Expr, block: Expr, nb: int, origin: At, row: Expr, column: Expr, rows: int,
             columns: int) -> None:  # fmt: skip
        """Everything for one tile of registers, ``row`` and ``column`` counted within the strip."""
        spec, k = self.spec, self.k
        biases = [k.vector(k.load(self.bias, (block + j) * k.lanes)) for j in range(nb)]
        sums = self.begin(rows, columns, biases)
        pixels = [(r, c) for r in range(rows) for c in range(0, columns, self.dot.pixels)]
        places = [At(block + j, origin.image, origin.row + (row + r), origin.column + (column + c))
                  for r in range(rows) for c in range(columns) for j in range(nb)]  # fmt: skip
        fetch(k, spec.post_ops, self.operands, places)
        first = k.bind(
            scratch + row * (spec.stride[0] * self.strip.row) + column * self.word, INT
        )  # of the tile's pixels, before its tap
        self.reduce(first, block, nb, lambda at, weights: self.multiply(at, weights, nb, pixels, sums))
        for place, value in zip(places, self.end(sums, rows, columns, nb), strict=True):
            k.store(self.y, y_index(spec, place), apply(k, value, spec.post_ops, self.operands, place))

    def begin(self, rows: int, columns: int, biases: Sequence[Expr]) -> list[Buffer]:
        """Sums that hold the bias, as [pixels that are multiplied together, block, vector]."""
        k = self.k
        found = []
        for _ in range(rows * -(-columns // self.dot.pixels)):
            for bias in biases:
                starts = [bias] if self.dot.pixels == 1 else [k.shuffle([bias], [i, i + 1] * 2) for i in (0, 2)]
                for start in starts:
                    (one,) = k.accumulators(1, start)
                    found.append(one)
        return found

    def end(self, sums: Sequence[Buffer], rows: int, columns: int, nb: int) -> Iterator[Expr]:
        """The vectors of outputs, as [row, column, block]."""
        k = self.k
        if self.dot.pixels == 1:
            yield from (k.get(one) for one in sums)
            return
        for r in range(rows):
            for c in range(columns):
                for j in range(nb):
                    at = ((r * -(-columns // 2) + c // 2) * nb + j) * 2
                    lanes = [0, 1, 4, 5] if c % 2 == 0 else [2, 3, 6, 7]
                    yield k.shuffle([k.get(sums[at]), k.get(sums[at + 1])], lanes)

    def reduce(self, first: Expr, block: Expr, nb: int, body: Body) -> None:
        """``body(words of the first pixel, weights)`` for every step of channels at every tap."""
        spec, k, s = self.spec, self.k, self.strip
        each = spec.inputs * self.steps * self.step  # words of a block of outputs at a tap
        begin = k.bind(block * (spec.taps * each), INT)

        def tap(kh: Expr, kw: Expr) -> None:
            across = kw * spec.dilation[1]
            phase, over = tirx.floormod(across, const(spec.stride[1])), tirx.floordiv(across, const(spec.stride[1]))
            at = k.bind(first + kh * (spec.dilation[0] * s.row) + phase * s.phase + over * self.word, INT)
            weights = k.bind(begin + (kh * spec.kernel[1] + kw) * (each * nb), INT)

            def channels(b: Expr) -> None:
                k.loop(self.steps, lambda i: body(
                    k.bind(at + b * s.block + i * (self.dot.channels // 2), INT),
                    k.bind(weights + (b * self.steps + i) * (self.step * nb), INT)), name="i")  # fmt: skip

            k.loop(spec.inputs, channels, name="ci")

        k.loop(spec.kernel[0], lambda kh: k.loop(spec.kernel[1], lambda kw: tap(kh, kw), name="kw"), name="kh")

    def multiply(self, at: Expr, weights: Expr, nb: int, pixels: Sequence[tuple[int, int]],
                 sums: Sequence[Buffer]) -> None:  # fmt: skip
        """One step of channels: the words of all pixels times vectors of weights; ask for those of the next tile."""
        k, spec = self.k, self.spec
        vectors = nb * self.step // k.lanes
        ws = [k.vector(k.load(self.w, weights + j * k.lanes)) for j in range(vectors)]
        for j in range(0, nb * self.step, LINE):
            k.prefetch(self.w, weights + (nb * spec.taps * spec.inputs * self.steps * self.step + j))
        for p, (r, c) in enumerate(pixels):
            place = at + (r * spec.stride[0] * self.strip.row + c * self.word)
            one = k.load(self.scratch, place) if self.dot.pixels == 2 else k.splat(k.scalar(self.scratch, place))
            words = k.vector(one)
            for j, w in enumerate(ws):
                total = sums[p * vectors + j]
                k.set(total, add_product(k, self.name, k.get(total), words, w))


def space(spec: Bf16ConvSpec, target: Target) -> Iterator[Bf16Choice]:
    """The choices worth trying, the default first."""
    seen: set[Bf16Choice] = set()
    outers = ("strips", "blocks") if spec.threads > 1 and spec.blocks >= 2 * spec.threads else ("strips",)
    sizes = (target.l1 // 2, target.l2 // 2)
    if 2 * spec.inputs * spec.taps * spec.blocks * spec.lanes**2 > target.l2 // 2:
        sizes = sizes[::-1]  # weights that each strip would read anew from memory
    for nb, rows, columns in _tiles(spec, target):
        for size in sizes:
            for outer in outers:
                choice = Bf16Choice(nb, rows, columns, _strip(spec, rows, columns, size, outer), outer)
                if choice not in seen:
                    seen.add(choice)
                    yield choice


def _tiles(spec: Bf16ConvSpec, target: Target) -> list[tuple[int, int, int]]:
    """(blocks, rows, columns) of tiles of registers, by what a core begins in a cycle; the best first."""
    if spec.h * spec.w == 1:
        return [(min(nb, spec.blocks), 1, 1) for nb in (8, 4, 2, 1)]
    pixels = DOTS[target.bf16].pixels

    def cycles(nb: int, rows: int, columns: int) -> float:
        groups = rows * -(-columns // pixels)
        sums, loads = groups * nb * pixels, groups + nb * pixels
        return max(sums / target.fmas, target.latency + 1, (sums + loads) / (2 * target.fmas)) + loads / 16

    def total(shape: tuple[int, int, int]) -> float:
        nb, high, wide = shape
        return sum(
            bcount * rcount * ccount * cycles(blocks, rows, columns)
            for _, bcount, blocks in segments(spec.blocks, nb)
            for _, rcount, rows in segments(spec.h, high)
            for _, ccount, columns in segments(spec.w, wide)
        )

    shapes = set()
    for nb in {min(nb, spec.blocks) for nb in (1, 2, 3, 4, 6)}:
        most = _most(target, nb)
        even = pixels * even_tile(-(-spec.w // pixels), max(1, most // pixels))
        shapes |= {(nb, 1, min(spec.w, even)), (nb, 1, min(spec.w, most))}
        row = pixels * -(-spec.w // pixels)  # registers that hold one
        if spec.h > 1 and row * 2 <= most:
            shapes.add((nb, even_tile(spec.h, most // row), spec.w))
    return sorted(shapes, key=lambda shape: (total(shape), shape))[:6]


def _most(target: Target, nb: int) -> int:
    """How many pixels by ``nb`` blocks fit the registers, with what is multiplied."""
    if DOTS[target.bf16].pixels == 2:
        return max(1, (target.registers - 2 * nb - 1) // (2 * nb)) * 2
    return max(1, (target.registers - nb - 1) // nb)


def _strip(spec: Bf16ConvSpec, rows: int, columns: int, size: int, outer: str) -> int:
    """Rows (or pixels) of a strip: whole tiles whose rounded pixels take so many bytes, a part for each thread."""
    total, tile = (spec.h, rows) if spec.h > 1 else (spec.w, columns)
    if outer == "strips" and spec.n < spec.threads:
        total = -(-total // spec.threads)
    tiles = -(-total // tile)
    while tiles > 1 and 4 * strip(spec, Bf16Choice(1, rows, columns, tiles * tile)).each > size:
        tiles = -(-tiles // 2)
    return min(tiles * tile, total)


def arrays(spec: Bf16ConvSpec, target: Target) -> Arrays:
    """Arguments to time the kernel on, and where it begins in the first."""
    starts = np.arange(spec.inputs) * spec.x.block
    tables = [starts.astype(np.int32)] if spec.table else []
    lanes = spec.inputs * spec.lanes
    masks = np.where(np.arange(lanes) < spec.ci, np.uint32(0xFFFFFFFF), np.uint32(0)).astype(np.uint32)
    weights = rounded(random_floats(lanes * spec.taps * spec.blocks * spec.lanes)).view(np.float32)
    scratch = np.zeros(max(strip(spec, c).size for c in space(spec, target)), np.float32)
    more = [] if spec.full else [masks.view(np.float32)]
    x = random_floats(int(starts[-1]) + reach(spec))
    return [x, weights, random_floats(spec.blocks * spec.lanes), *tables, *more, scratch,
            random_floats(written(spec))], 0  # fmt: skip


TEMPLATES = {Bf16ConvSpec: Template(build, space, arrays, REVISION)}
