"""Convolutions with zeros from panels: pixels in the lanes, some outputs at a time, kept blocks alone.

A strip of the input is packed so that the pixels of a channel lie side by side. Then, for each kept block of weights
(one tap of one input channel, for ``rows`` of the outputs of a block at a time): vectors of pixels, and one number per
output, broadcast. That takes fewer loads for as many products than outputs in the lanes would, since there is no
vector of weights that only some pixels share; results are transposed when they are written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from tvm import tirx

from secateur.codegen.emit.builder import INT, KernelBuilder, const
from secateur.codegen.emit.partition import partition
from secateur.codegen.emit.transpose import transpose
from secateur.codegen.emit.types import Expr, Function
from secateur.codegen.kernels.arrays import random_floats, reach, written
from secateur.codegen.kernels.conv.template import y_index
from secateur.codegen.kernels.post_ops.template import At, apply, operand_pointers
from secateur.codegen.plan.family import Arrays
from secateur.codegen.targets import Target

from .packing import PIECES, random_pattern
from .panels import TILE, panel, room_of, scratch
from .spec import PanelChoice, PanelSpec

PANEL_REVISION = 1  # raise it with every change of the code or the space: tuning records of before are then not used


def build(spec: PanelSpec, choice: PanelChoice, target: Target) -> Function:
    """The kernel ``(memory, w, bias, places, offsets, starts, operands.., y)``.

    ``places``: where in ``memory`` the input's blocks begin (the first, if they follow each other), then the scratch.
    ``offsets``: where in the panel the input of each kept block is. ``starts``: as for ``BlockSparseSpec``.
    """
    return _Panels(spec, choice, target).build()


Span = tuple[Expr, Expr]  # of kept blocks: the first and the end


@dataclass(frozen=True)
class _Vector:
    """A vector of pixels of the output: its first one, and where it begins in the panel."""

    row: Expr
    column: Expr
    at: Expr


class _Panels:
    def __init__(self, spec: PanelSpec, choice: PanelChoice, target: Target) -> None:
        self.spec, self.choice, self.panel = spec, choice, panel(spec, target)
        self.room = room_of(spec, target)
        self.k = k = KernelBuilder(spec.lanes, spec.threads)
        self.memory, self.w, self.bias = k.pointer("memory"), k.pointer("w"), k.pointer("bias")
        self.places, self.offsets, self.starts = (k.pointer(name, "int32") for name in ("places", "offsets", "starts"))
        self.operands = operand_pointers(k, spec.post_ops)
        self.y = k.pointer("y")

    def number(self, buffer: object, at: Expr) -> Expr:
        """An entry of a table."""
        return self.k.bind(self.k.scalar(buffer, at).astype(INT), INT)

    def build(self) -> Function:
        k, spec = self.k, self.spec
        if self.choice.outer == "strips":
            k.loop(spec.n, lambda image: partition(k, spec.threads, self.panel.strips, lambda worker, i: self.strip(
                image, worker, i, const(0), const(spec.blocks))), name="n")  # fmt: skip
        else:
            k.everyone(self.own_blocks)
        return k.finish()

    def own_blocks(self, worker: Expr) -> None:
        """All strips of the output blocks of one worker, which have about as many kept blocks as another's."""
        k, at = self.k, self.spec.blocks * PIECES + 1 + worker
        first, end = self.number(self.starts, at), self.number(self.starts, at + 1)
        k.loop(self.spec.n, lambda image: k.loop(
            self.panel.strips, lambda i: self.strip(image, worker, i, first, end), name="s"), name="n")  # fmt: skip

    def strip(self, image: Expr, worker: Expr, number: Expr, first: Expr, end: Expr) -> None:
        """Pack a strip, then write its pixels of some output blocks."""
        k, found, spec = self.k, self.panel, self.spec
        if spec.kernel == (1, 1):
            begin = k.bind(tirx.min(number * found.vectors, const(spec.h * found.each - found.vectors)), INT)
        else:
            begin = k.bind(tirx.min(number * found.rows, const(spec.h - found.rows)), INT)
        scratch_at = self.number(self.places, const(spec.inputs if spec.table else 1))
        base = k.bind(scratch_at + worker * self.room, INT)
        k.loop(spec.inputs, lambda b: self.pack(image, begin, b, base), name="cb")
        k.span(first, end, lambda b: self.block(image, begin, base, b), name="co")

    def split(self, number: Expr) -> tuple[Expr, Expr]:
        """The row and the first column of a vector of outputs."""
        each, last, v = self.panel.each, const(self.spec.w - self.spec.lanes), self.spec.lanes
        if self.spec.h == 1:
            return const(0), self.k.bind(tirx.min(number * v, last), INT)
        row = self.k.bind(tirx.floordiv(number, const(each)), INT)
        return row, self.k.bind(tirx.min((number - row * each) * v, last), INT)

    def pack(self, image: Expr, begin: Expr, block: Expr, base: Expr) -> None:
        """One block of inputs of a strip."""
        k, spec, found, v, s = self.k, self.spec, self.panel, self.spec.lanes, self.spec.x
        start = self.number(self.places, block) if spec.table else self.number(self.places, const(0)) + block * s.block
        source, to = k.bind(start + image * s.image, INT), k.bind(base + block * (v * found.channel), INT)

        def one(row: Expr, column: Expr, at: Expr) -> None:
            first = k.bind(source + row * s.row + column * s.column, INT)
            pixels = [k.load(self.memory, first + i * s.column) for i in range(v)]
            for i, vector in enumerate(transpose(k, pixels)):
                k.store(self.memory, to + at + i * found.channel, vector)

        if spec.kernel == (1, 1):
            k.loop(found.vectors, lambda t: one(*self.split(begin + t), t * v), name="t")
            return
        rows, last = found.rows + (spec.kernel[0] - 1) * spec.dilation[0], const(found.pitch - v)

        def part(r: Expr, t: Expr) -> None:
            column = k.bind(tirx.min(t * v, last), INT)
            one(begin + r, column, r * found.pitch + column)

        k.loop(rows, lambda r: k.loop(-(-found.pitch // v), lambda t: part(r, t), name="t"), name="r")

    def vector(self, begin: Expr, number: Expr) -> _Vector:
        """The vector with this number in a strip."""
        if self.spec.kernel == (1, 1):
            return _Vector(*self.split(begin + number), number * self.spec.lanes)
        row, column = self.split(number)
        return _Vector(self.k.bind(begin + row, INT), column, row * self.panel.pitch + column)

    def block(self, image: Expr, begin: Expr, base: Expr, block: Expr) -> None:
        """All tiles of a strip of an output block."""
        k = self.k
        place = k.bind(block * PIECES, INT)
        first, end = self.number(self.starts, place), self.number(self.starts, place + PIECES)

        done = 0
        for count, times in tiles(self.panel.vectors, self.choice.vectors):
            k.loop(times, lambda t: self.tile(
                image, block, base, first, end, begin, k.bind(done + t * count, INT), count), name="t")  # fmt: skip # noqa: B023
            done += count * times

    def tile(self, image: Expr, block: Expr, base: Expr, first: Expr, end: Expr, begin: Expr, number: Expr,
             count: int) -> None:  # fmt: skip
        """Some vectors of pixels of an output block, ``rows`` outputs at a time, then transposed and written."""
        k, v = self.k, self.spec.lanes
        vectors = [self.vector(begin, number + j) for j in range(count)]
        kept = k.bind(base + self.spec.ci * self.panel.channel, INT)
        passes = v // self.choice.rows

        def part(number: Expr) -> None:
            """What a part of the inputs adds: it is in the first cache for all passes but the first."""
            size = PIECES // self.choice.parts
            place = k.bind(block * PIECES + number * size, INT)
            span = self.number(self.starts, place), self.number(self.starts, place + size)
            k.loop(passes, lambda p: self.products(number, p, base, (first, end), span, vectors, kept), name="p")

        k.loop(self.choice.parts, part, name="part")
        bias = k.vector(k.load(self.bias, block * v))
        k.loop(count, lambda j: self.write(
            image, block, bias, self.vector(begin, number + j), kept + j * v, count), name="j")  # fmt: skip

    def write(self, image: Expr, block: Expr, bias: Expr, place: _Vector, kept: Expr, count: int) -> None:
        """One vector of pixels of all outputs of a block, transposed."""
        k, spec, v = self.k, self.spec, self.spec.lanes
        outputs = [k.load(self.memory, kept + r * count * v) for r in range(v)]
        for i, pixel in enumerate(transpose(k, outputs)):
            at = At(block, image, place.row, place.column + i)
            k.store(self.y, y_index(spec, at), apply(k, pixel + bias, spec.post_ops, self.operands, at))

    def products(self, part: Expr, number: Expr, base: Expr, block: Span, span: Span, vectors: list[_Vector],
                 kept: Expr) -> None:  # fmt: skip
        """The sums of some outputs of a block over a part of its kept blocks, stored in rows of pixels."""
        k, v, rows, (first, end) = self.k, self.spec.lanes, self.choice.rows, block
        sums = [k.accumulators(len(vectors)) for _ in range(rows)]
        every = [(total, r, j) for r in range(rows) for j, total in enumerate(sums[r])]
        starts = [k.bind(base + p.at, INT) for p in vectors]
        weights = k.bind(first * (v - rows) + number * ((end - first) * rows), INT)

        def place(r: int, j: int) -> Expr:
            return kept + ((number * rows + r) * len(vectors) + j) * v

        def begin() -> None:
            for total, _, _ in every:
                k.set(total, k.splat(0.0))

        def resume() -> None:
            for total, r, j in every:
                k.set(total, k.load(self.memory, place(r, j)))

        if self.choice.parts == 1:
            begin()
        else:
            k.branch(part == 0, begin, resume)

        def one(i: Expr) -> None:
            offset = self.number(self.offsets, i)
            xs = [k.vector(k.load(self.memory, at + offset)) for at in starts]
            for r in range(rows):
                w = k.vector(k.splat(k.scalar(self.w, weights + (i * rows + r))))
                for total, x in zip(sums[r], xs, strict=True):
                    k.add(total, x * w)

        k.span(*span, one, name="kept")
        for total, r, j in every:
            k.store(self.memory, place(r, j), k.get(total))


def tiles(vectors: int, most: int) -> list[tuple[int, int]]:
    """Tiles of ``most`` vectors and of one less, with how many there are of each: few registers stay empty."""
    count = -(-vectors // most)
    less = count * most - vectors
    if less > count:  # fewer vectors than two tiles
        return [(vectors // count, 1)] if count == 1 else [(most, vectors // most), (vectors % most, 1)]
    return [(size, times) for size, times in ((most, count - less), (most - 1, less)) if size and times]


def space(spec: PanelSpec, target: Target) -> Iterator[PanelChoice]:
    """The choices worth trying, the default first."""
    rows = min(spec.lanes, 4 if target.registers < 32 else 8)
    vectors = min(TILE if target.registers < 32 or rows == 8 else 2 * TILE, panel(spec, target).vectors)
    for outer in ("strips", "blocks") if spec.threads > 1 else ("strips",):
        for parts in _parts(spec, vectors, target):
            yield PanelChoice(rows, vectors, outer, parts)


def _parts(spec: PanelSpec, vectors: int, target: Target) -> list[int]:
    """Such that what the kept blocks of a part read lies in half of the first cache; and all at once."""
    read, parts = spec.taps * spec.percent // 100 * (vectors * spec.lanes + 16) * 4, 1
    while parts < PIECES and read > parts * target.l1 // 2:
        parts *= 2
    return list(dict.fromkeys((parts, 1)))


def arrays(spec: PanelSpec, target: Target) -> Arrays:
    """Arguments to time the kernel on, and where it begins in the first: as many kept blocks in each output block."""
    v, found = spec.lanes, panel(spec, target)
    packed = random_pattern(spec.blocks, v, spec.ci, spec.kernel, spec.percent)
    size = -(-(spec.inputs * spec.x.block + reach(spec)) // v) * v
    memory = random_floats(size + scratch(spec, target))
    places = [*(np.arange(spec.inputs if spec.table else 1) * spec.x.block), size]
    offsets = found.offsets(spec, packed, np.arange(spec.ci))
    starts = np.concatenate([packed.starts, packed.shares(spec.threads)])
    return [memory, random_floats(packed.weight.size), random_floats(spec.blocks * v),
            *(np.asarray(table).astype(np.int32) for table in (places, offsets, starts)),
            random_floats(written(spec))], 0  # fmt: skip
