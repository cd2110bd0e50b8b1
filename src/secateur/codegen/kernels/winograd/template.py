"""Winograd's convolution: a strip of tiles at a time, so that all of it between input and output stays in the caches.

For each strip the inputs are transformed to ``[point, block, tile, lane]``. Then for each tile of output blocks: at
every point a matrix product with the register tile of ``templates.conv`` makes ``[block, tile, point, lane]``, and the
transform back, the epilogue with it, writes the outputs. Channels are the vector throughout, so both transforms are
plain vector arithmetic. Strides between points and tiles are odd numbers of vectors, or powers of two would put all
points in the same few lines of the first cache.

The last strip (and each thread's last one) begins early enough to be whole: some tiles are then computed twice, with
the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product

import numpy as np
from tvm import tirx

from secateur.codegen.emit.builder import INT, KernelBuilder, const, even_tile, segments
from secateur.codegen.emit.partition import partition
from secateur.codegen.emit.types import Expr, Function
from secateur.codegen.kernels.arrays import random_floats, reach, written
from secateur.codegen.kernels.conv.template import y_index
from secateur.codegen.kernels.estimate import WORTH
from secateur.codegen.kernels.post_ops.template import At, apply, block_base, operand_pointers
from secateur.codegen.kernels.products import most_pixels, multiply
from secateur.codegen.plan.family import Arrays, Template
from secateur.codegen.targets import Target

from .spec import WinogradChoice, WinogradSpec
from .transform import PAIRS, even_part, strip

REVISION = 2  # raise it with every change of the code or the space: tuning records of before are then not used
Vectors = Sequence[Expr | None]  # None is 0
Body = Callable[..., None]


def build(spec: WinogradSpec, choice: WinogradChoice, target: Target) -> Function:
    """The kernel ``(x, w, bias, [blocks of x], [channels], scratch, operands.., y)``."""
    return WinogradKernel(spec, choice, target).build()


class WinogradKernel:
    """Builds the kernel. One that leaves products out says which channels a block has, and where their weights are."""

    def __init__(self, spec: WinogradSpec, choice: WinogradChoice, target: Target) -> None:
        self.spec, self.choice, self.strip = spec, choice, strip(spec, choice)
        self.together = spec.lanes if target.by_lane and spec.full else 1  # channels a step
        self.m, self.t = choice.m, choice.m + 2
        self.points, self.pairs, self.tiles = self.t**2, PAIRS[choice.m], spec.tiles(choice.m)
        self.k = k = KernelBuilder(spec.lanes, spec.threads)
        self.x, self.w, self.bias = k.pointer("x"), k.pointer("w"), k.pointer("bias")
        self.table = k.pointer("table", "int32") if spec.table else None
        self.channels = None if spec.full else k.pointer("channels", "int32")
        self.scratch = k.pointer("scratch")
        self.operands = operand_pointers(k, spec.post_ops)
        self.y = k.pointer("y")

    def build(self) -> Function:
        k, strips = self.k, -(-self.tiles // self.strip.tiles)
        if self.choice.outer == "strips":
            partition(k, self.spec.threads, strips, self.one_strip)
        else:
            k.everyone(lambda worker: k.loop(strips, lambda i: self.one_strip(worker, i), name="s"))
        return k.finish()

    def one_strip(self, worker: Expr, number: Expr) -> None:
        """Tiles from input to output."""
        spec, k, v, strip = self.spec, self.k, self.spec.lanes, self.strip
        first = k.bind(tirx.min(number * strip.tiles, const(self.tiles - strip.tiles)), INT)
        inputs = k.bind(worker * ((strip.inputs + strip.products) * v), INT)

        def transform(block: Expr) -> None:
            k.loop(strip.tiles, lambda i: self.place(first + i, lambda *at: self.input(
                block, inputs + (block * strip.tiles + i) * v, *at)), name="tile")  # fmt: skip

        k.loop(spec.inputs, transform, name="cb")
        self.outputs(worker, first, inputs)

    def outputs(self, worker: Expr, first: Expr, inputs: Expr) -> None:
        """All output blocks of a strip, or those of one worker."""
        spec, k, v, strip = self.spec, self.k, self.spec.lanes, self.strip
        for start, count, nb in segments(spec.blocks, min(self.choice.nb, spec.blocks)):
            k.loop(count, lambda tile: self.blocks(
                first, start + tile * nb, nb, inputs, inputs + strip.inputs * v),  # noqa: B023
                self.choice.outer == "blocks", "s")  # fmt: skip

    def blocks(self, first: Expr, block: Expr, nb: int, inputs: Expr, products: Expr) -> None:
        """``nb`` output blocks of a strip."""
        k, v, strip = self.k, self.spec.lanes, self.strip
        k.loop(self.points, lambda p: self.point(
            p, block, nb, inputs + p * (strip.point * v), products + p * v), name="p")  # fmt: skip

        def back(j: Expr) -> None:
            k.loop(strip.tiles, lambda i: self.place(first + i, lambda *at: self.output(
                block + j, products + (j * strip.tiles + i) * (strip.tile * v), *at)), name="tile")  # fmt: skip

        k.loop(nb, back, name="j")

    def place(self, tile: Expr, body: Body) -> None:
        """``body(image, row, column, rows, columns)`` with the outputs of a tile that are inside of the extent."""
        spec, k, m = self.spec, self.k, self.m
        high, wide = -(-spec.h // m), -(-spec.w // m)
        image = k.bind(tirx.floordiv(tile, const(high * wide)), INT)
        inside = tile - image * (high * wide)
        row = k.bind(tirx.floordiv(inside, const(wide)), INT)
        column = k.bind(inside - row * wide, INT)
        self.edge(row, high, spec.h, lambda rows: self.edge(
            column, wide, spec.w, lambda columns: body(image, row * m, column * m, rows, columns)))  # fmt: skip

    def edge(self, index: Expr, count: int, size: int, body: Body) -> None:
        """``body(outputs)`` of the index-th tile along an axis."""
        rest = size - (count - 1) * self.m
        if count == 1 or rest == self.m:
            body(rest)
        else:
            self.k.branch(tirx.LT(index, const(count - 1)), lambda: body(self.m), lambda: body(rest))

    def input(self, block: Expr, to: Expr, image: Expr, row: Expr, column: Expr, rows: int, columns: int) -> None:
        """A tile of a block of input channels."""
        k, s, t = self.k, self.spec.x, self.t
        at = block_base(k, self.table, block, s.block) + image * s.image + row * s.row + column * s.column
        base = k.bind(at, INT)

        def load(i: int, j: int) -> Expr | None:
            outside = i >= rows + 2 or j >= columns + 2
            return None if outside else k.vector(k.load(self.x, base + (i * s.row + j * s.column)))

        down = [self.forward([load(i, j) for i in range(t)]) for j in range(t)]
        for i in range(t):
            for j, value in enumerate(self.forward([down[j][i] for j in range(t)])):
                k.store(self.scratch, to + (i * t + j) * (self.strip.point * k.lanes), value)

    def output(self, block: Expr, source: Expr, image: Expr, row: Expr, column: Expr, rows: int, columns: int) -> None:
        """A tile of a block of output channels."""
        k, t = self.k, self.t
        base, bias = k.bind(source, INT), k.vector(k.load(self.bias, block * k.lanes))
        down = [self.back([k.vector(k.load(self.scratch, base + (i * t + j) * k.lanes)) for i in range(t)], rows)
                for j in range(t)]  # fmt: skip
        for i in range(rows):
            for j, value in enumerate(self.back([down[j][i] for j in range(t)], columns)):
                at = At(block, image, row + i, column + j)
                k.store(self.y, y_index(self.spec, at), apply(k, value + bias, self.spec.post_ops, self.operands, at))

    def forward(self, d: Vectors) -> list[Expr]:
        """B^T d: the even half for p and -p is shared, and so is the odd one."""
        k, whole = self.k, even_part(self.pairs)
        first, last = _sum(k, whole, d[0::2]), _sum(k, whole, d[1::2])
        middle = []
        for n, p in enumerate(self.pairs):
            others = even_part(self.pairs[:n] + self.pairs[n + 1 :])
            both = [_sum(k, others, d[2::2]), _sum(k, others, d[1:-1:2])]
            middle += [_sum(k, (1, p), both), _sum(k, (1, -p), both)]
        return [first, *middle, last]

    def back(self, v: Vectors, count: int) -> list[Expr]:
        """The first ``count`` of A^T v."""
        k, n = self.k, len(self.pairs)
        halves = [[_sum(k, (1, sign), v[2 * i + 1 : 2 * i + 3]) for i in range(n)] for sign in (1, -1)]
        out = []
        for power in range(count):
            ends = [v[0] if power == 0 else None, v[-1] if power == self.m - 1 else None]
            out.append(_sum(k, (1, 1, *(p**power for p in self.pairs)), [*ends, *halves[power % 2]]))
        return out

    def point(self, point: Expr, block: Expr, nb: int, inputs: Expr, products: Expr) -> None:
        """The matrix product at a point: inputs of all tiles times the weights of ``nb`` output blocks."""
        k, v, tiles = self.k, self.spec.lanes, self.strip.tiles
        weights = k.bind(self.weights(point, block, nb), INT)

        def some(first: Expr, columns: int) -> None:
            sums = k.accumulators(columns * nb, k.splat(0.0))

            def channel(number: Expr, place: Expr) -> None:
                source = inputs + first * v + place
                multiply(k, self.scratch, [source + q * v for q in range(columns)], self.w, weights + number * (nb * v),
                         nb, sums, self.together, self.ahead(nb))  # fmt: skip

            self.reduce(block, channel)
            for q in range(columns):
                for j in range(nb):
                    to = products + (j * tiles + first + q) * (self.strip.tile * v)
                    k.store(self.scratch, to, k.get(sums[q * nb + j]))

        for start, count, columns in segments(tiles, self.choice.columns):
            k.loop(count, lambda q: some(start + q * columns, columns), name="q")  # noqa: B023

    def weights(self, point: Expr, block: Expr, nb: int) -> Expr:
        """Where the weights of ``nb`` output blocks begin at a point."""
        return (block * self.points + point * nb) * (self.spec.ci * self.spec.lanes)

    def ahead(self, nb: int) -> int:
        """How far the weights of the next point are, which are asked for; 0: nothing is."""
        return self.spec.ci * nb * self.spec.lanes

    def reduce(self, block: Expr, channel: Body) -> None:
        """``channel(number, where it lies)`` for each of a block; empty lanes may hold anything, and are left out."""
        spec, k, v = self.spec, self.k, self.spec.lanes
        if self.channels is not None:
            k.loop(spec.ci, lambda c: channel(c, k.bind(k.scalar(self.channels, c).astype(INT), INT)), name="c")
            return
        if self.together > 1:
            k.loop(spec.inputs, lambda b: channel(b * v, b * (self.strip.tiles * v)), name="c")
            return
        k.loop(spec.inputs, lambda b: k.loop(
            v, lambda i: channel(b * v + i, b * (self.strip.tiles * v) + i), name="i"), name="c")  # fmt: skip


def _sum(k: KernelBuilder, factors: Iterable[float], values: Vectors) -> Expr | None:
    """The sum of the products, begun with one whose factor is 1; zeros are left out."""
    terms = [(float(f), v) for f, v in zip(factors, values, strict=True) if f != 0 and v is not None]
    total = None
    for factor, value in sorted(terms, key=lambda term: term[0] != 1):
        if factor in (1, -1) and total is not None:
            total = total + value if factor == 1 else total - value
            continue
        part = value if factor == 1 else value * k.splat(factor)
        total = part if total is None else total + part
    return None if total is None else k.vector(total)


def space(spec: WinogradSpec, target: Target) -> Iterator[WinogradChoice]:
    """The choices worth trying, the default first."""
    seen: set[WinogradChoice] = set()
    for m in sorted(PAIRS, key=lambda m: spec.estimate_of(m, target)):
        tiles, most = spec.tiles(m), {nb: most_pixels(target, nb) for nb in (1, 2, 3)}
        few = tiles <= 4 * most[2]  # so that one strip may hold all of them
        for nb, wide, outer in product(
            _blocks(spec, tiles, most, target), (4, 2, 1) if few else (2, 1, 4), _outer(spec, few)
        ):
            count = -(-tiles // (wide * most[nb]))
            if outer == "strips":
                count = min(tiles, -(-count // spec.threads) * spec.threads)
            size = -(-tiles // count)
            choice = WinogradChoice(m, min(nb, spec.blocks), even_tile(size, most[nb]), size, outer)
            if spec.estimate_of(m, target) <= WORTH * spec.estimate(target) and choice not in seen:
                seen.add(choice)
                yield choice


def _blocks(spec: WinogradSpec, tiles: int, most: Mapping[int, int], target: Target) -> tuple[int, ...]:
    """Output blocks at a time, the default first; ``most``: as many tiles are in registers with them."""
    if not spec.several:
        return (1,)
    if most[2] < tiles <= most[1] and 8 * spec.ci * spec.lanes > target.l1 // 2:
        return 1, 2, 3  # weights that overflow the first cache are best read once, by registers that hold all tiles
    return (3, 2, 1) if spec.blocks % 2 and spec.blocks % 3 == 0 else (2, 1, 3)


def _outer(spec: WinogradSpec, few: bool) -> tuple[str, ...]:
    """What threads may share: blocks of outputs only if there are enough."""
    if spec.threads == 1 or spec.blocks < 4 * spec.threads:
        return ("strips",)
    return ("blocks", "strips") if few else ("strips", "blocks")


def arrays(spec: WinogradSpec, target: Target) -> Arrays:
    """Arguments to time the kernel on, and where it begins in the first."""
    blocks = np.arange(spec.inputs) * spec.x.block
    tables = [blocks.astype(np.int32)] if spec.table else []
    if not spec.full:
        tables.append(np.arange(spec.ci, dtype=np.int32))
    x = random_floats(int(blocks[-1]) + reach(spec))
    choices = list(space(spec, target))
    weights = random_floats(max((c.m + 2) ** 2 for c in choices) * spec.ci * spec.blocks * spec.lanes)
    scratch = np.zeros(max(strip(spec, c).size for c in choices) * spec.lanes, np.float32)
    return [x, weights, random_floats(spec.blocks * spec.lanes), *tables, scratch, random_floats(written(spec))], 0


TEMPLATES = {WinogradSpec: Template(build, space, arrays, REVISION)}
