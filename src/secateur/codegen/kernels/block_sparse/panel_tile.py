"""A tile of a panel: some vectors of pixels of an output block, its kept blocks alone, transposed when written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tvm import tirx

from secateur.codegen.emit.builder import INT, KernelBuilder, const
from secateur.codegen.emit.transpose import load_transposed
from secateur.codegen.emit.types import Buffer, Expr
from secateur.codegen.kernels.conv.template import y_index
from secateur.codegen.kernels.post_ops.template import At, apply, operand_pointers

from .packing import PIECES
from .pixels import LINE, UNROLLED
from .spec import PanelChoice, PanelSpec, UnstructuredSpec

Span = tuple[Expr, Expr]  # of kept blocks: the first and the end


@dataclass(frozen=True)
class Vector:
    """A vector of pixels of the output: its first one, and where it begins in the panel."""

    row: Expr
    column: Expr
    at: Expr


class PanelKernel:
    """What kernels from panels have in common: their parameters, and what is done with a packed strip.

    ``each``: vectors that a row of outputs takes; ``wide``: that there is room for in the results of a tile.
    """

    def __init__(self, spec: PanelSpec, choice: PanelChoice, each: int, wide: int) -> None:
        self.spec, self.choice, self.each, self.wide = spec, choice, each, wide
        self.apart = isinstance(spec, UnstructuredSpec)  # does each output read inputs of its own?
        self.groups = spec.blocks * spec.lanes // choice.rows  # of outputs in registers
        self.shares = 1 + (choice.parts * self.groups if self.apart else spec.blocks * PIECES)  # in ``starts``
        self.k = k = KernelBuilder(spec.lanes, spec.threads)
        self.memory, self.w, self.bias = k.pointer("memory"), k.pointer("w"), k.pointer("bias")
        self.places, self.offsets, self.starts = (k.pointer(name, "int32") for name in ("places", "offsets", "starts"))
        self.operands = operand_pointers(k, spec.post_ops)
        self.y = k.pointer("y")

    def number(self, buffer: Buffer, at: Expr) -> Expr:
        """An entry of a table."""
        return self.k.bind(self.k.scalar(buffer, at).astype(INT), INT)

    def source(self, image: Expr, block: Expr) -> Expr:
        """Where a block of inputs of an image begins."""
        spec = self.spec
        if spec.table:
            start = self.number(self.places, block)
        else:
            start = self.number(self.places, const(0)) + block * spec.x.block
        return self.k.bind(start + image * spec.x.image, INT)

    def scratch(self, worker: Expr, room: int) -> Expr:
        """Where the panel of a worker begins."""
        at = self.number(self.places, const(self.spec.inputs if self.spec.table else 1))
        return self.k.bind(at + worker * room, INT)

    def turn(self, first: Expr, to: Expr, step: int) -> None:
        """A vector of pixels of a block of inputs into the panel, ``step`` floats from one channel to the next."""
        k, v = self.k, self.spec.lanes
        pixels = [first + i * self.spec.x.column for i in range(v)]
        for i, vector in enumerate(load_transposed(k, self.memory, pixels)):
            k.store(self.memory, to + i * step, vector)

    def tile(self, image: Expr, block: Expr, vectors: list[Vector], kept: Expr) -> None:
        """Some vectors of pixels of an output block, ``rows`` outputs at a time, then transposed and written.

        ``kept``: where there is room for them. All sums go there: where some stay in registers for the transposition,
        LLVM keeps one of the others in memory throughout the loop before.
        """
        k = self.k
        self.ask(image, block, vectors)
        k.loop(self.choice.parts, lambda part: self.sums(block, part, vectors, kept), name="part")
        self.write(image, block, vectors, kept)

    def own(self, worker: Expr) -> Span:
        """The output blocks of a worker, which have about as many kept blocks as another's."""
        at = self.shares + worker
        return self.number(self.starts, at), self.number(self.starts, at + 1)

    def grouped(self, first: Expr, end: Expr) -> Span:
        """The groups of outputs that are in the place of these output blocks."""
        each = self.spec.lanes // self.choice.rows
        return self.k.bind(first * each, INT), self.k.bind(end * each, INT)

    def results(self, kept: Expr, block: Expr) -> Expr:
        """Where the results of an output block of a tile wait; ``kept``: those of the first."""
        return self.k.bind(kept + block * (self.spec.lanes * self.wide * self.spec.lanes), INT)

    def ask(self, image: Expr, block: Expr, vectors: list[Vector]) -> None:
        """Ask for what will be written."""
        v = self.spec.lanes
        for vector in vectors:
            for pixel in range(0, v, max(1, LINE // v)):
                self.k.prefetch(self.y, y_index(self.spec, At(block, image, vector.row, vector.column + pixel)))

    def sums(self, block: Expr, part: Expr, vectors: list[Vector], kept: Expr) -> None:
        """What a part of the inputs adds to a tile."""
        every, span = self.kept_of(block, part)
        self.k.loop(self.spec.lanes // self.choice.rows, lambda p: self.products(
            part, p, every, span, vectors, kept), name="p")  # fmt: skip

    def kept_of(self, block: Expr, part: Expr) -> tuple[Span, Span]:
        """All kept blocks of an output block, and those of a part of the inputs."""
        k, size = self.k, PIECES // self.choice.parts
        place = k.bind(block * PIECES, INT)
        at = k.bind(place + part * size, INT)
        every = self.number(self.starts, place), self.number(self.starts, place + PIECES)
        return every, (self.number(self.starts, at), self.number(self.starts, at + size))

    def weights_of(self, number: Expr, every: Span) -> Expr:
        """Where the weights of some outputs of the kept blocks ``every`` would begin with those of block 0."""
        v, rows, (first, end) = self.spec.lanes, self.choice.rows, every
        return self.k.bind(first * (v - rows) + number * ((end - first) * rows), INT)

    def write(self, image: Expr, block: Expr, vectors: list[Vector], kept: Expr) -> None:
        """Write the sums of a tile."""
        k, v = self.k, self.spec.lanes
        bias = k.vector(k.load(self.bias, block * v))
        for j, vector in enumerate(vectors):
            outputs = [kept + (r * self.wide + j) * v for r in range(v)]
            for i, pixel in enumerate(load_transposed(k, self.memory, outputs)):
                at = At(block, image, vector.row, vector.column + i)
                k.store(self.y, y_index(self.spec, at), apply(k, pixel + bias, self.spec.post_ops, self.operands, at))

    def products(self, part: Expr, number: Expr, every: Span, span: Span, vectors: list[Vector],
                 kept: Expr) -> None:  # fmt: skip
        """The sums of some outputs of a block over a part of its kept blocks, stored in rows of pixels."""
        v, rows, weights = self.spec.lanes, self.choice.rows, self.weights_of(number, every)
        places = [kept + ((number * rows + r) * self.wide) * v for r in range(rows)]
        with self.summed(part, len(vectors), places) as sums:
            self.unrolled(span, lambda i, _: self.multiply(
                sums, vectors, self.number(self.offsets, i), weights + i * rows))  # fmt: skip

    def group(self, part: Expr, number: Expr, vectors: list[Vector], kept: Expr) -> None:
        """The sums of outputs that read inputs of their own, over a part of the inputs; ``kept``: a tile's results."""
        k, v, rows = self.k, self.spec.lanes, self.choice.rows
        at = k.bind(part * self.groups + number, INT)
        span = self.number(self.starts, at), self.number(self.starts, at + 1)
        outputs = self.shares + self.spec.threads + 1 + at * rows
        places = [k.bind(kept + self.number(self.starts, outputs + r) * (self.wide * v), INT) for r in range(rows)]

        def step(i: Expr) -> None:
            for r in range(rows):
                at = k.bind(i * rows + r, INT)
                self.multiply(sums[r : r + 1], vectors, self.number(self.offsets, at), at)

        with self.summed(part, len(vectors), places) as sums:
            k.span(*span, step, name="kept")

    @contextmanager
    def summed(self, part: Expr, count: int, places: list[Expr]) -> Iterator[list[list[Buffer]]]:
        """Rows of ``count`` vectors of sums; they wait at ``places`` from one part of the inputs to the next."""
        k, v = self.k, self.spec.lanes
        sums = [k.accumulators(count) for _ in places]
        flat = [(total, to + j * v) for row, to in zip(sums, places, strict=True) for j, total in enumerate(row)]

        def begin() -> None:
            for total, _ in flat:
                k.set(total, k.splat(0.0))

        def resume() -> None:
            for total, to in flat:
                k.set(total, k.load(self.memory, to))

        if self.choice.parts == 1:
            begin()
        else:
            k.branch(part == 0, begin, resume)
        yield sums
        for total, to in flat:
            k.store(self.memory, to, k.get(total))

    def multiply(self, sums: list[list[Buffer]], vectors: list[Vector], offset: Expr, weights: Expr) -> None:
        """Add a kept block, or a single weight: vectors of pixels, times a number for each output."""
        k = self.k
        xs = [k.vector(k.load(self.memory, vector.at + offset)) for vector in vectors]
        for r, row in enumerate(sums):
            w = k.vector(k.splat(k.scalar(self.w, weights + r)))
            for total, x in zip(row, xs, strict=True):
                k.add(total, x * w)

    def unrolled(self, span: Span, body: Callable[[Expr, int], None]) -> None:
        """``body`` of all kept blocks, and their number in a round of some of them.

        The ends of short loops are foreseen, those of long not.
        """
        k, (first, end) = self.k, span
        rounds = k.bind(tirx.floordiv(end - first, const(UNROLLED)), INT)

        def several(number: Expr) -> None:
            for i in range(UNROLLED):
                body(first + number * UNROLLED + i, i)

        k.span(const(0), rounds, several, name="kept")
        k.span(k.bind(first + rounds * UNROLLED, INT), end, lambda i: body(i, 0), name="rest")
