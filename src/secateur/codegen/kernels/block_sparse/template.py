"""Convolutions and linear layers with zeros: a tile of pixels in registers, one output block, kept blocks alone.

For each kept block of weights (one tap of one input channel, a lane for each output): its vector, its offset in the
input, and one number per pixel, broadcast. Offsets hold channel and tap together, so a 1x1 and a 3x3 convolution are
the same kernel, and channels may lie anywhere. How many blocks there are is read from a table too: any pattern runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from tvm import tirx

from secateur.codegen.emit.builder import INT, KernelBuilder, const, segments
from secateur.codegen.emit.types import Buffer, Expr, Function
from secateur.codegen.kernels.arrays import random_floats, reach, written
from secateur.codegen.kernels.conv.template import x_index, y_index
from secateur.codegen.kernels.post_ops.template import At, apply, fetch, operand_pointers
from secateur.codegen.plan.family import Arrays, Template
from secateur.codegen.targets import Target

from . import panel_template
from .areas import tile_area, tile_of
from .packing import PIECES, random_pattern
from .spec import BlockSparseChoice, BlockSparseSpec, PanelSpec, UnstructuredSpec

REVISION = 3  # raise it with every change of the code or the space: tuning records of before are then not used
Pixels = Callable[[Expr, Expr, Expr, int, int], None]
Segment = tuple[int, int, int]  # the first, how many, and the size of each


def build(spec: BlockSparseSpec, choice: BlockSparseChoice, target: Target) -> Function:
    """The kernel ``(memory, w, bias, places, inside, offsets, starts, operands.., y)``.

    ``places``: where in ``memory`` each block of inputs begins, then the scratch. Where the first pixel's input of each
    kept block is: ``inside`` the memory, or by ``offsets`` in the scratch, if tiles are copied there. ``starts``:
    ``Packed.starts``, then ``Packed.shares`` of the workers.
    """
    return _BlockSparse(spec, choice, target).build()


class _BlockSparse:
    def __init__(self, spec: BlockSparseSpec, choice: BlockSparseChoice, target: Target) -> None:
        self.spec, self.choice, self.area = spec, choice, tile_area(spec, target)
        self.k = k = KernelBuilder(spec.lanes, spec.threads)
        self.memory, self.w, self.bias = k.pointer("memory"), k.pointer("w"), k.pointer("bias")
        self.places, self.inside, self.offsets, self.starts = (
            k.pointer(name, "int32") for name in ("places", "inside", "offsets", "starts")
        )
        self.operands = operand_pointers(k, spec.post_ops)
        self.y = k.pointer("y")

    def number(self, buffer: Buffer, at: Expr) -> Expr:
        """An entry of a table."""
        return self.k.bind(self.k.scalar(buffer, at).astype(INT), INT)

    def build(self) -> Function:
        k, spec, choice = self.k, self.spec, self.choice
        if choice.outer == "blocks":
            k.everyone(self.own_blocks)
            return k.finish()
        for first, groups, count in segments(spec.blocks, -(-spec.blocks // choice.groups)):
            k.loop(groups, partial(self.group, first, count), name="group")
        return k.finish()

    def group(self, first: int, count: int, number: Expr) -> None:
        """All pixels of some output blocks, shared by the workers."""
        start = self.k.bind(first + number * count, INT)
        self.over_pixels(partial(self.pixels, start, start + count, count), self.spec.threads > 1)

    def own_blocks(self, worker: Expr) -> None:
        """All pixels of the output blocks of one worker, which have about as many kept blocks as another's."""
        at, about = self.spec.blocks * PIECES + 1 + worker, -(-self.spec.blocks // self.spec.threads)
        first, end = self.number(self.starts, at), self.number(self.starts, at + 1)
        self.over_pixels(partial(self.pixels, first, end, about), False)

    def over_pixels(self, body: Pixels, parallel: bool) -> None:
        """``body(image, row, column, rows, columns)`` for all tiles of the output."""
        spec, choice, k = self.spec, self.choice, self.k

        def image(n: Expr) -> None:
            for rows in segments(spec.h, choice.rows):
                for columns in segments(spec.w, choice.columns):
                    self.tiles(n, rows, columns, body, parallel)

        k.loop(spec.n, image, False, "n")

    def tiles(self, image: Expr, rows: Segment, columns: Segment, body: Pixels, parallel: bool) -> None:
        """All tiles of one size of an image."""
        (r0, rcount, high), (c0, ccount, wide), k = rows, columns, self.k

        def row(r: Expr) -> None:
            k.loop(ccount, lambda c: body(image, r0 + r * high, c0 + c * wide, high, wide), parallel and rcount == 1,
                   "ow")  # fmt: skip

        k.loop(rcount, row, parallel and rcount > 1, "oh")

    def pixels(self, first: Expr, end: Expr, about: int, image: Expr, row: Expr, column: Expr, rows: int,
               columns: int) -> None:  # fmt: skip
        """Some output blocks, ``about`` so many, of one tile of pixels, a part of the input after the other."""
        k, spec = self.k, self.spec
        source = following = k.bind(x_index(spec, image, row, column), INT)
        if self.choice.copied:
            worker = k.worker.astype(INT) if k.partitioned else const(0)
            base = k.bind(self.number(self.places, const(spec.inputs)) + worker * self.area.floats, INT)
            k.loop(spec.inputs, lambda b: self.copy(b, source, base, rows, columns), name="cb")
            source = base

        def one(p: Expr, b: Expr) -> None:
            self.ask(following, k.bind(p * about + (b - first), INT), about * self.choice.parts, rows, columns)
            self.tile(p, b, source, image, row, column, rows, columns)

        k.loop(self.choice.parts, lambda p: k.span(first, end, partial(one, p), name="co"), name="part")

    def ask(self, source: Expr, turn: Expr, turns: int, rows: int, columns: int) -> None:
        """Ask for what the next tile is copied from, a share of its blocks of inputs each turn: they lie far apart.

        In the second cache alone: what this tile reads fills the first. (Tiles that are read in place gain nothing.)
        """
        k, spec, v = self.k, self.spec, self.spec.lanes
        (sh, sw), (high, wide) = spec.stride, self.area.read(spec, rows, columns)
        down = columns == spec.w
        if not self.choice.copied or (rows, columns) == (spec.h, spec.w):
            return
        source = source + (rows * sh * spec.x.row if down else columns * sw * spec.x.column)
        lines = [(r, c) for r in range(high) for c in range(0, wide, max(1, 16 // v))]

        def block(i: Expr) -> None:
            at = k.bind(source + self.number(self.places, i), INT)
            for r, c in lines:
                k.prefetch(self.memory, at + (r * spec.x.row + c * spec.x.column), near=False)

        first, end = (tirx.min(tirx.floordiv((turn + i) * spec.inputs, turns), const(spec.inputs)) for i in (0, 1))
        k.span(k.bind(first, INT), k.bind(end, INT), block, name="ask")

    def copy(self, block: Expr, source: Expr, base: Expr, rows: int, columns: int) -> None:
        """What a tile reads of a block of inputs, next to that of the block before."""
        k, spec, area = self.k, self.spec, self.area
        start = k.bind(self.number(self.places, block) + source, INT)
        to = k.bind(base + block * area.block, INT)
        high, wide = area.read(spec, rows, columns)

        def row(r: Expr) -> None:
            for c in range(wide):
                vector = k.load(self.memory, start + r * spec.x.row + c * spec.x.column)
                k.store(self.memory, to + (r * area.wide + c) * spec.lanes, vector)

        k.loop(high, row, name="r")

    def tile(self, part: Expr, block: Expr, source: Expr, image: Expr, row: Expr, column: Expr, rows: int,
             columns: int) -> None:  # fmt: skip
        """One part of the kept blocks of an output block."""
        spec, k, v = self.spec, self.k, self.spec.lanes
        pixels = [(r, c) for r in range(rows) for c in range(columns)]
        places = [At(block, image, row + r, column + c) for r, c in pixels]
        accumulators = k.accumulators(len(pixels))
        parts = self.choice.parts

        def begin() -> None:
            bias = k.vector(k.load(self.bias, block * v))
            for a in accumulators:
                k.set(a, bias)
            for at in places[:: max(1, 16 // v)]:
                k.prefetch(self.y, y_index(spec, at))  # to be written once the sums are there

        def resume() -> None:
            for a, at in zip(accumulators, places, strict=True):
                k.set(a, k.load(self.y, y_index(spec, at)))

        def keep() -> None:
            for a, at in zip(accumulators, places, strict=True):
                k.store(self.y, y_index(spec, at), k.get(a))

        def write() -> None:
            for a, at in zip(accumulators, places, strict=True):
                k.store(self.y, y_index(spec, at), apply(k, k.get(a), spec.post_ops, self.operands, at))

        fetch(k, spec.post_ops, self.operands, places)
        if parts == 1:
            begin()
        else:
            k.branch(part == 0, begin, resume)
        place = k.bind(block * PIECES + part * (PIECES // parts), INT)
        first, end = self.number(self.starts, place), self.number(self.starts, place + PIECES // parts)
        copied, x = self.choice.copied, spec.x
        table = self.offsets if copied else self.inside
        down, right = (self.area.wide * v, v) if copied else (x.row, x.column)

        def kept(i: Expr) -> None:
            at = k.bind(source + k.scalar(table, i).astype(INT), INT)
            w = k.vector(k.load(self.w, i * v))
            for a, (r, c) in zip(accumulators, pixels, strict=True):
                shift = r * spec.stride[0] * down + c * spec.stride[1] * right
                k.add(a, k.vector(k.splat(k.scalar(self.memory, at + shift))) * w)

        k.span(first, end, kept, name="kept")
        if parts == 1:
            write()
        else:
            k.branch(part == parts - 1, write, keep)


def space(spec: BlockSparseSpec, target: Target) -> Iterator[BlockSparseChoice]:
    """The choices worth trying, the default first."""
    rows, columns = tile_of(spec, target)
    parts = _parts(spec, rows, columns, target)
    for wanted in dict.fromkeys((parts[0], 1, *parts)):
        yield BlockSparseChoice(rows, columns, wanted)
    if spec.n * spec.h * spec.w > rows * columns and not spec.planar:
        for wanted in parts[:2]:
            for groups in _groups(spec, target):
                yield BlockSparseChoice(rows, columns, wanted, groups, copied=True)
    if spec.threads > 1:
        yield BlockSparseChoice(rows, columns, outer="blocks")


def _parts(spec: BlockSparseSpec, rows: int, columns: int, target: Target) -> list[int]:
    """Such that what a tile reads of a part stays in the first cache; also half as many, and twice."""
    (kh, kw), (sh, sw), (dh, dw) = spec.kernel, spec.stride, spec.dilation
    high, wide = (rows - 1) * sh + (kh - 1) * dh + 1, (columns - 1) * sw + (kw - 1) * dw + 1
    wanted = 1
    while wanted < PIECES and high * wide * spec.ci * 4 > wanted * target.l1 * 3 // 4:
        wanted *= 2
    return [p for p in (wanted, 2 * wanted, wanted // 2) if 1 <= p <= PIECES]


def _groups(spec: BlockSparseSpec, target: Target) -> list[int]:
    """Such that the weights of a group stay in half of the last cache of a core; and all at once."""
    size = 4 * (1 + 1 / spec.lanes) * spec.macs / (spec.n * spec.h * spec.w)
    wanted = min(max(1, round(size / ((target.l2 or target.l1) / 2))), spec.blocks)
    return list(dict.fromkeys([wanted, 1]))


def arrays(spec: BlockSparseSpec, target: Target) -> Arrays:
    """Arguments to time the kernel on, and where it begins in the first: as many kept blocks in each output block."""
    v, (kh, kw) = spec.lanes, spec.kernel
    channel, tap = np.divmod(np.arange(spec.taps), kh * kw)
    lane = 1 if spec.planar else v
    places = (channel // lane * spec.x.block + channel % lane + tap // kw * spec.dilation[0] * spec.x.row
              + tap % kw * spec.dilation[1] * spec.x.column)  # fmt: skip
    size = -(-(int(places.max()) + spec.x.block + reach(spec)) // v) * v
    packed = random_pattern(spec.blocks, v, spec.ci, spec.kernel, spec.percent)
    memory = random_floats(size + spec.threads * tile_area(spec, target).floats)
    tables = (
        [*(np.arange(spec.inputs) * spec.x.block), size], places[packed.channel * kh * kw + packed.tap],
        tile_area(spec, target).offsets(spec, packed, np.arange(spec.ci)),
        np.concatenate([packed.starts, packed.shares(spec.threads)]),
    )  # fmt: skip
    return [memory, random_floats(packed.weight.size), random_floats(spec.blocks * v),
            *(np.asarray(table).astype(np.int32) for table in tables), random_floats(written(spec))], 0  # fmt: skip


TEMPLATES = {
    BlockSparseSpec: Template(build, space, arrays, REVISION),
    PanelSpec: Template(
        panel_template.build, panel_template.space, panel_template.arrays, panel_template.PANEL_REVISION
    ),
    UnstructuredSpec: Template(
        panel_template.build, panel_template.space, panel_template.unstructured_arrays, panel_template.PANEL_REVISION
    ),
}
