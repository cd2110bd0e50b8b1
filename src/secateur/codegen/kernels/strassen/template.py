"""Strassen's matrix product for 1x1 convolutions, in Winograd's form: seven products of halves where eight are usual.

The image, the input blocks and the output blocks are halved: with A the inputs, B the weights and C the outputs,
C = A B in quadrants. Four sums of input quadrants are made for a strip of the image at a time, sums of the weights
when a network is built. Then a tile of registers at a time, for each pair of output blocks and each pair of pixels::

    0  M1 = A11 B11                     keep U2 = M1
    1  += A12 B21                       write C11, go on from U2
    2  += S2 T2                         keep U2
    3  += S3 T3                         keep U3
    4  += A22 (-T4)                     write C21, go on from 0
    5  M5 = S1 T1                       keep U2 + M5, write C22 = M5 + U3, go on from U2 + M5
    6  += S4 B22                        write C12

where S1 = A21 + A22, S2 = S1 - A11, S3 = A11 - A21, S4 = A12 - S2 and T1 = B12 - B11, T2 = B22 - T1, T3 = B22 - B12,
T4 = T2 - B21. U2 and U3 of one tile stay in the first cache, so that seven eighths of the multiply-adds cost seven
eighths of the time. The halves of the image are rows, or pixels where they lie as in one row; of an odd number both
hold the middle one. All seven products are one loop: seven in a row are one too many for LLVM's registers.

Source: V. Strassen, Gaussian elimination is not optimal, 1969; S. Winograd's variant in D. Knuth, The Art of Computer
Programming, vol. 2, section 4.6.4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from tvm import tirx

from secateur.codegen.emit.builder import INT, KernelBuilder, const, even_tile, segments
from secateur.codegen.emit.partition import partition
from secateur.codegen.emit.types import Expr, Function
from secateur.codegen.kernels.arrays import random_floats, reach, written
from secateur.codegen.kernels.conv.template import y_index
from secateur.codegen.kernels.post_ops.template import At, apply, fetch, operand_pointers
from secateur.codegen.kernels.products import most_pixels, multiply
from secateur.codegen.plan.family import Arrays, Template
from secateur.codegen.targets import Target

from .spec import StrassenChoice, StrassenSpec
from .sums import PRODUCTS, strip

REVISION = 3  # raise it with every change of the code or the space: tuning records of before are then not used


def build(spec: StrassenSpec, choice: StrassenChoice, target: Target) -> Function:
    """The kernel ``(memory, w, bias, places, operands.., y)``.

    ``places`` says where in ``memory`` the input begins (or each of its blocks, if ``table``), and the scratch.
    """
    return _Strassen(spec, choice, target).build()


class _Strassen:
    def __init__(self, spec: StrassenSpec, choice: StrassenChoice, target: Target) -> None:
        self.spec, self.choice, self.strip = spec, choice, strip(spec, choice)
        self.together = spec.lanes if target.by_lane else 1  # channels a step
        self.half = spec.inputs // 2  # blocks
        self.k = k = KernelBuilder(spec.lanes, spec.threads)
        self.memory, self.w, self.bias = k.pointer("memory"), k.pointer("w"), k.pointer("bias")
        self.places = k.pointer("places", "int32")
        self.operands = operand_pointers(k, spec.post_ops)
        self.y = k.pointer("y")
        self.scratch = k.bind(self.place(spec.inputs if spec.table else 1), INT)

    def place(self, i: Expr) -> Expr:
        """Where the i-th of the places is."""
        return self.k.scalar(self.places, i).astype(INT)

    def build(self) -> Function:
        k, spec, count = self.k, self.spec, self.strip.count
        if self.choice.outer == "strips":
            k.loop(spec.n, lambda image: partition(
                k, spec.threads, count, lambda worker, i: self.one_strip(image, worker, i)), name="n")  # fmt: skip
        else:
            k.everyone(lambda worker: k.loop(spec.n, lambda image: k.loop(
                count, lambda i: self.one_strip(image, worker, i), name="s"), name="n"))  # fmt: skip
        return k.finish()

    def one_strip(self, image: Expr, worker: Expr, number: Expr) -> None:
        """Both halves of a strip from input to output."""
        k, strip, v = self.k, self.strip, self.spec.lanes
        first = k.bind(tirx.min(number * (2 * strip.size), const(strip.last)), INT)
        sums = k.bind(self.scratch + worker * ((strip.sums + strip.kept) * v), INT)
        k.loop(self.half, lambda b: self.add(image, first, b, sums), name="cb")
        for start, count, nb in segments(self.spec.blocks // 2, self.choice.nb):
            k.loop(count, lambda tile: self.tiles(
                image, first, k.bind(start + tile * nb, INT), nb, sums, sums + strip.sums * v),  # noqa: B023
                self.choice.outer == "blocks", "s")  # fmt: skip

    def pixel(self, start: Expr, row: Expr, column: Expr) -> tuple[Expr, Expr]:
        """Where a pixel of the half that begins at ``start`` lies in the image, or in its only row."""
        return (row, start + column) if self.spec.flat else (start + row, column)

    def index(self, image: Expr, pixel: tuple[Expr, Expr]) -> Expr:
        """From the first pixel of a block of inputs to this one."""
        s = self.spec.x
        return image * s.image + pixel[0] * s.row + pixel[1] * s.column

    def block(self, b: Expr) -> Expr:
        """Where a block of inputs begins."""
        return self.place(b) if self.spec.table else self.place(0) + b * self.spec.x.block

    def add(self, image: Expr, first: Expr, block: Expr, sums: Expr) -> None:
        """The sums of a block of the first half and that of the second, in the order in which they are used."""
        k, v, strip, s = self.k, self.spec.lanes, self.strip, self.spec.x
        bases = [[k.bind(self.block(block + j * self.half) + self.index(image, self.pixel(first + gap, 0, 0)), INT)
                  for j in (0, 1)] for gap in (0, strip.gap)]  # fmt: skip
        to = k.bind(sums + block * (strip.block * v), INT)

        def one(row: Expr, column: Expr) -> None:
            shift = row * s.row + column * s.column
            a11, a12, a21, a22 = (k.vector(k.load(self.memory, base + shift)) for half in bases for base in half)
            s1 = k.vector(a21 + a22)
            s2 = k.vector(s1 - a11)
            at = to + row * strip.row + column * strip.column
            for i, value in enumerate((s2, a11 - a21, s1, a12 - s2)):
                k.store(self.memory, at + i * (self.half * strip.block * v), value)

        k.loop(strip.rows, lambda row: k.loop(strip.columns, lambda column: one(row, column), name="w"), name="h")

    def tiles(self, image: Expr, first: Expr, block: Expr, nb: int, sums: Expr, kept: Expr) -> None:
        """``nb`` output blocks of the first half, and those of the second, of all pixels of a strip."""
        for r0, rcount, rows in segments(self.strip.rows, self.choice.rows):
            for c0, ccount, columns in segments(self.strip.columns, self.choice.columns):
                self.k.loop(rcount, lambda r: self.k.loop(ccount, lambda c: _Tile(  # noqa: B023
                    self, image, first, r0 + r * rows, c0 + c * columns, rows, columns, block, nb, sums, kept  # noqa: B023
                ).products(), name="tw"), name="th")  # fmt: skip


class _Tile:
    """Four tiles of registers, one after the other: see the top of this file."""

    def __init__(self, whole: _Strassen, image: Expr, first: Expr, row: Expr, column: Expr, rows: int, columns: int,
                 block: Expr, nb: int, sums: Expr, kept: Expr) -> None:  # fmt: skip
        self.whole, self.k, self.strip, self.half = whole, whole.k, whole.strip, whole.half
        self.image, self.first, self.row, self.column, self.block = image, first, row, column, block
        self.pixels = [(r, c) for r in range(rows) for c in range(columns)]
        self.nb, self.sums, self.u2 = nb, sums, kept
        self.acc = self.k.accumulators(len(self.pixels) * nb, self.k.splat(0.0))
        self.u3 = kept + len(self.acc) * self.k.lanes

    def products(self) -> None:
        """All seven."""
        k, v = self.k, self.k.lanes
        every = self.half * v * v  # weights of an output block
        start = k.bind(self.block * (PRODUCTS * every), INT)

        def product(p: Expr) -> None:
            if any(op.operand == "full" for op in self.whole.spec.post_ops):
                k.branch(tirx.any(p == 1, p >= 4), lambda: fetch(
                    k, self.whole.spec.post_ops, self.whole.operands, self.places(p)))  # fmt: skip
            self.multiply(p, k.bind(start + p * (every * self.nb), INT))
            k.branch(p == 5, self.join)
            k.branch(tirx.any(p == 0, p == 2), lambda: self.keep(self.u2), lambda: k.branch(
                p == 3, lambda: self.keep(self.u3), lambda: self.write(p)))  # fmt: skip

        k.loop(PRODUCTS, product, name="p")

    def multiply(self, p: Expr, weights: Expr) -> None:
        """Half of the input channels of some pixels, or of their sums, times weights, added to the registers."""
        k, v, strip, whole, nb = self.k, self.k.lanes, self.strip, self.whole, self.nb
        of_x = tirx.any(p < 2, p == 4)
        number = tirx.Select(p < 4, p - 2, p - 3)  # of the sum
        of_sum = self.sums + number * (self.half * strip.block * v) + self.row * strip.row + self.column * strip.column
        start = self.first + tirx.Select(p == 4, const(strip.gap), const(0))
        pixel = whole.index(self.image, whole.pixel(start, self.row, self.column))
        base = k.bind(tirx.Select(of_x, pixel, of_sum), INT)
        later = k.bind(tirx.Select(p == 0, const(0), const(self.half)), INT)  # A12 and A22 are of the second half

        def block(b: Expr) -> None:
            at = k.bind(base + tirx.Select(of_x, whole.block(b + later), b * (strip.block * v)), INT)
            of = k.bind(weights + b * (v * nb * v), INT)
            k.loop(v // whole.together, lambda i: channel(at + i, of + i * (nb * v)), name="i")

        def channel(at: Expr, of: Expr) -> None:
            places = [at + (r * strip.row + c * strip.column) for r, c in self.pixels]
            next_product = self.half * v * nb * v
            multiply(k, whole.memory, places, whole.w, of, nb, self.acc, whole.together, next_product)

        k.loop(self.half, block, name="b")

    def kept(self, at: Expr, i: int) -> Expr:
        """The i-th vector of a partial sum."""
        return self.k.load(self.whole.memory, at + i * self.k.lanes)

    def keep(self, at: Expr) -> None:
        """Store a partial sum."""
        for i, x in enumerate(self.acc):
            self.k.store(self.whole.memory, at + i * self.k.lanes, self.k.get(x))

    def join(self) -> None:
        """U2 grows by M5, and M5 by U3."""
        k = self.k
        for i, x in enumerate(self.acc):
            k.store(self.whole.memory, self.u2 + i * k.lanes, self.kept(self.u2, i) + k.get(x))
            k.add(x, self.kept(self.u3, i))

    def write(self, p: Expr) -> None:
        """A quadrant of the outputs, and what the next one begins with."""
        k, whole, spec = self.k, self.whole, self.whole.spec
        places = self.places(p)
        bias = [k.vector(k.load(whole.bias, at.block * k.lanes)) for at in places[: self.nb]]
        for i, (x, place) in enumerate(zip(self.acc, places, strict=True)):
            value = apply(k, k.get(x) + bias[i % self.nb], spec.post_ops, whole.operands, place)
            k.store(whole.y, y_index(spec, place), value)
        k.branch(
            p == 4, lambda: self.begin(lambda i: k.splat(0.0)), lambda: self.begin(lambda i: self.kept(self.u2, i))
        )

    def places(self, p: Expr) -> list[At]:
        """Where the quadrant lies that is done with a product."""
        k, whole, half = self.k, self.whole, self.whole.spec.blocks // 2
        start = self.first + tirx.Select(tirx.any(p == 4, p == 5), const(self.strip.gap), const(0))
        row, column = (k.bind(i, INT) for i in whole.pixel(start, self.row, self.column))
        block = k.bind(self.block + tirx.Select(p < 5, const(0), const(half)), INT)
        pixels = [self.place(row + r, column + c) for r, c in self.pixels]
        return [At(block + j, self.image, *pixel) for pixel in pixels for j in range(self.nb)]

    def place(self, row: Expr, column: Expr) -> tuple[Expr, Expr]:
        """Where an output lies in the image."""
        spec, k = self.whole.spec, self.k
        if spec.h == 1 or not spec.flat:
            return row, column
        at = k.bind(tirx.floordiv(column, const(spec.w)), INT)
        return at, k.bind(column - at * spec.w, INT)

    def begin(self, values: Callable[[int], Expr]) -> None:
        """Set the registers."""
        for i, x in enumerate(self.acc):
            self.k.set(x, values(i))


def space(spec: StrassenSpec, target: Target) -> Iterator[StrassenChoice]:
    """The choices worth trying, the default first."""
    seen: set[StrassenChoice] = set()
    for nb in (2, 1, 4):
        nb = min(nb, spec.blocks // 2)
        most = most_pixels(target, nb)
        for outer in ("blocks", "strips") if spec.threads > 1 else ("strips",):
            for size in _sizes(spec, most, spec.threads if outer == "strips" else 1, target.l2 // 4):
                rows, columns = (1, even_tile(size, most)) if spec.flat else _tile(size, spec.w, most)
                choice = StrassenChoice(nb, rows, columns, size, outer)
                if choice not in seen:
                    seen.add(choice)
                    yield choice


def _sizes(spec: StrassenSpec, most: int, workers: int, share: int) -> list[int]:
    """Rows or pixels of half a strip: such that its sums lie in the second cache, all that there are, or few.

    Of the numbers of strips about that, one that ``workers`` share evenly, computes few pixels twice, in wide tiles.
    """
    extent, pixels = spec.extent, 1 if spec.flat else spec.w

    def price(strips: int, wanted: float) -> float:
        size = -(-extent // (2 * strips))
        tile = even_tile(size, most) if spec.flat else most
        return strips * size * (1 + 1 / tile) * (1 + abs(math.log2(strips / wanted)) / 50)

    found = []
    for bytes_ in (share, 4 * share, share // 4):
        wanted = extent * 4 * spec.ci * pixels / bytes_
        counts = range(workers, 2 * math.ceil(wanted) + workers, workers)
        strips = min(counts, key=lambda n: price(n, wanted))
        found.append(-(-extent // (2 * strips)))
    return list(dict.fromkeys(found))


def _tile(rows: int, columns: int, most: int) -> tuple[int, int]:
    return (even_tile(rows, most // columns), columns) if columns * 2 <= most else (1, even_tile(columns, most))


def arrays(spec: StrassenSpec, target: Target) -> Arrays:
    """Arguments to time the kernel on, and where it begins in the first."""
    blocks = np.arange(spec.inputs if spec.table else 1) * spec.x.block
    size = -(-(spec.inputs * spec.x.block + reach(spec)) // spec.lanes) * spec.lanes
    choices = list(space(spec, target))
    memory = random_floats(size + max(strip(spec, c).vectors for c in choices) * spec.lanes)
    places = np.array([*blocks, size], np.int32)
    weights = random_floats(PRODUCTS * spec.inputs * spec.blocks * spec.lanes**2 // 4)
    return [memory, weights, random_floats(spec.blocks * spec.lanes), places, random_floats(written(spec))], 0


TEMPLATES = {StrassenSpec: Template(build, space, arrays, REVISION)}
