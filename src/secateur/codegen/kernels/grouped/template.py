"""Convolution in narrow groups: a vector holds a quad of channels of several neighbouring pixels.

One vector a pixel would compute zeros where a group has fewer outputs than a vector has lanes. Here the lanes of a
vector are ``lanes / 4`` pixels by four outputs, so that any multiple of four outputs fills them:

    x  = [p0.c0 p0.c1 p0.c2 p0.c3 | p1.c0 .. p1.c3 | p2.. | p3..]   a quad of inputs of each pixel, from memory
    x1 = [p0.c1 p0.c1 p0.c1 p0.c1 | p1.c1 .. p1.c1 | ..   | ..  ]   spread inside the quads, next to the multiplications
    y += x1 * [w1.o0 w1.o1 w1.o2 w1.o3 | the same | ..]

The vector of inputs is put together by loads alone and used for four channels and all quads of outputs of the tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from tvm import tirx

from secateur.codegen.emit.builder import KernelBuilder, segments
from secateur.codegen.emit.types import Buffer, Expr, Function
from secateur.codegen.kernels.arrays import random_floats, reach
from secateur.codegen.kernels.conv.template import x_index
from secateur.codegen.kernels.post_ops.template import apply, operand_pointers
from secateur.codegen.plan.family import Arrays, Template
from secateur.codegen.plan.post_ops import PostOp
from secateur.codegen.targets import Target

from .spec import QUAD, GroupedConvChoice, GroupedConvSpec

Pixel = tuple[int, int]
REVISION = 2  # raise it with every change of the code or the space: tuning records of before are then not used


def build(spec: GroupedConvSpec, choice: GroupedConvChoice, target: Target) -> Function:
    """The kernel ``(x, w, bias, table of inputs, operands.., table of outputs, y)``."""
    return _Grouped(spec, replace(choice, quads=min(choice.quads, spec.quads)), target.ahead).build()


class _Grouped:
    def __init__(self, spec: GroupedConvSpec, choice: GroupedConvChoice, ahead: int) -> None:
        self.spec, self.choice, self.ahead = spec, choice, ahead
        self.k = k = KernelBuilder(spec.lanes, spec.threads)
        self.x, self.w, self.bias = k.pointer("x"), k.pointer("w"), k.pointer("bias")
        self.inputs = k.pointer("inputs", "int32")
        self.operands = operand_pointers(k, spec.post_ops)
        self.outputs = k.pointer("outputs", "int32")
        self.y = k.pointer("y")
        self.entries = spec.ci // spec.depth
        self.per_quad = spec.kernel[0] * spec.kernel[1] * spec.ci * QUAD  # weights of a quad of outputs

    def build(self) -> Function:
        """All groups, tiles of quads and pixels; threads share the groups, or the rows where these are few."""
        spec, k = self.spec, self.k
        shared = spec.threads > 1
        wide = shared and spec.groups >= 2 * spec.threads

        def group(g: Expr) -> None:
            for start, count, quads in segments(spec.quads, self.choice.quads):
                self._quads(g, start, count, quads, shared and not wide)

        k.loop(spec.groups, group, wide, "g")
        return k.finish()

    def _quads(self, g: Expr, start: int, count: int, quads: int, parallel: bool) -> None:
        spec, k, choice = self.spec, self.k, self.choice

        def some(t: Expr) -> None:
            first = g * spec.quads + (start + t * quads)

            def entry(n: Expr) -> None:
                for r0, rcount, high in segments(spec.h, choice.rows):
                    self._rows(lambda r, c, w: self.tile(g, first, quads, n, r, c, high, w), r0, rcount, high, parallel)  # noqa: B023

            k.loop(spec.n, entry, name="n")

        k.loop(count, some, name="q")

    def _rows(self, tile: Callable[[Expr, Expr, int], None], r0: int, count: int, high: int, parallel: bool) -> None:
        def row(tr: Expr) -> None:
            for c0, ccount, wide in segments(self.spec.w, self.choice.columns):
                self.k.loop(ccount, lambda tc: tile(r0 + tr * high, c0 + tc * wide, wide), name="ow")  # noqa: B023

        self.k.loop(count, row, parallel, "oh")

    def tile(self, g: Expr, first: Expr, quads: int, image: Expr, row: Expr, column: Expr, high: int,
             wide: int) -> None:  # fmt: skip
        """``quads`` quads of outputs from ``first`` of group ``g``, ``high`` x ``wide`` pixels."""
        spec, k = self.spec, self.k
        vectors = packed([(r, c) for r in range(high) for c in range(wide)], spec.lanes // QUAD)
        sums: list[list[Buffer]] = []
        for s in range(quads):
            start = k.vector(spread(k, k.load(self.bias, (first + s) * QUAD, QUAD)))
            sums.append(k.accumulators(len(vectors), start))
        base = k.bind(x_index(spec, image, row, column), "int64")
        weights = k.bind(first * self.per_quad, "int64")

        def step(kh: Expr, kw: Expr, c: Expr) -> None:
            place = k.scalar(self.inputs, g * self.entries + c).astype("int64")
            taps = kh * (spec.dilation[0] * spec.x.row) + kw * (spec.dilation[1] * spec.x.column)
            at = k.bind(base + place + taps, "int64")
            position = ((kh * spec.kernel[1] + kw) * self.entries + c) * (spec.depth * QUAD * quads)
            self._products(c, at, weights + position, vectors, sums)

        k.loop(spec.kernel[0], lambda kh: k.loop(spec.kernel[1], lambda kw: k.loop(
            self.entries, lambda c: step(kh, kw, c), name="c"), name="kw"), name="kh")  # fmt: skip
        for s in range(quads):
            place = k.scalar(self.outputs, first + s).astype("int64")
            for pixels, total in zip(vectors, sums[s], strict=True):
                at = Packed(first + s, image, row, column, pixels)
                write(k, spec, self.y, place, apply(k, k.get(total), spec.post_ops, self.operands, at), at)

    def _products(self, c: Expr, at: Expr, wi: Expr, vectors: Sequence[Sequence[Pixel]],
                  sums: list[list[Buffer]]) -> None:  # fmt: skip
        """A quad of input channels at one tap: spread one by one, and multiplied with the weights of all outputs."""
        spec, k = self.spec, self.k
        if spec.h * spec.w > self.ahead > 0:
            # Four quads follow each other in a line: over four steps each pixel's line is asked for.
            ahead = (self.ahead + c % QUAD) * (spec.stride[1] * spec.x.column)
            for pixels in vectors:
                k.prefetch(self.x, at + (self._shift(pixels[0]) + ahead))
        xs = [k.fence(gather(k, self.x, at, [self._shift(p) for p in pixels])) for pixels in vectors]
        for i in range(spec.depth):
            ws = [k.vector(spread(k, k.load(self.w, wi + (i * len(sums) + s) * QUAD, QUAD))) for s in range(len(sums))]
            for t, x in enumerate(xs):
                wide = k.vector(k.shuffle([x], [lane // QUAD * QUAD + i for lane in range(spec.lanes)]))
                for s, w in enumerate(ws):
                    k.add(sums[s][t], wide * w)

    def _shift(self, pixel: Pixel) -> int:
        s = self.spec
        return pixel[0] * s.stride[0] * s.x.row + pixel[1] * s.stride[1] * s.x.column


@dataclass(frozen=True)
class Packed:
    """A position in the output: a quad of channels of several pixels, these from a row and column on."""

    quad: Expr
    image: Expr
    row: Expr
    column: Expr
    pixels: Sequence[Pixel]

    def operand(self, k: KernelBuilder, post_op: PostOp, pointer: Buffer, table: Buffer | None) -> Expr:
        """A weight per channel, or what the other tensor holds here; its quads are looked up."""
        s = post_op.strides
        if s is None:
            return spread(k, k.load(pointer, self.quad * QUAD, QUAD))
        index = k.scalar(table, self.quad).astype("int64") + self.image * s.image
        if post_op.operand == "vector":
            return spread(k, k.load(pointer, index, QUAD))
        at = k.bind(index + self.row * s.row + self.column * s.column, "int64")
        return gather(k, pointer, at, [r * s.row + c * s.column for r, c in self.pixels])


def write(k: KernelBuilder, spec: GroupedConvSpec, y: Buffer, place: Expr, value: Expr, at: Packed) -> None:
    """Store a vector: a quad to each of its pixels, ``place`` being that of the first pixel."""
    value = k.vector(value)
    base = k.bind(place + at.image * spec.y.image + at.row * spec.y.row + at.column * spec.y.column, "int64")
    for i, (r, c) in enumerate(at.pixels):
        part = k.shuffle([value], range(i * QUAD, (i + 1) * QUAD))
        if (r, c) not in at.pixels[:i]:
            k.store(y, base + (r * spec.y.row + c * spec.y.column), part, QUAD)


def packed(pixels: Sequence[Pixel], count: int) -> list[list[Pixel]]:
    """``count`` pixels a vector; the last one stands for those that are missing."""
    filled = [*pixels, *[pixels[-1]] * (-len(pixels) % count)]
    return [filled[i : i + count] for i in range(0, len(filled), count)]


def spread(k: KernelBuilder, quad: Expr) -> Expr:
    """The same quad for all pixels of a vector."""
    return k.shuffle([quad] * (k.lanes // QUAD), range(k.lanes))


def gather(k: KernelBuilder, buffer: Buffer, at: Expr, shifts: Sequence[int]) -> Expr:
    """A quad from each of several places, side by side."""
    if k.lanes < 16:
        return k.shuffle([k.load(buffer, at + s, QUAD) for s in shifts], range(k.lanes))
    # AVX-512 loads into some lanes and leaves the others at no cost; an insertion would take time from the multipliers.
    zeros = [tirx.Broadcast(tirx.FloatImm("float32", 0.0), QUAD)] * (len(shifts) - 1)
    value = k.shuffle([k.load(buffer, at + shifts[0], QUAD), *zeros], range(k.lanes))
    for i, shift in enumerate(shifts[1:], 1):
        value = k.merge(buffer, at + (shift - i * QUAD), [lane // QUAD == i for lane in range(k.lanes)], value)
    return value


def space(spec: GroupedConvSpec, target: Target) -> Iterator[GroupedConvChoice]:
    """The choices worth trying, the default first."""
    options = list(_options(spec, target.registers))
    yield from sorted(options, key=lambda c: _cycles(spec, c, target))[:12]


def _options(spec: GroupedConvSpec, registers: int) -> Iterator[GroupedConvChoice]:
    per = spec.lanes // QUAD
    for quads in sorted({-(-spec.quads // -(-spec.quads // most)) for most in (8, 7, 6, 5, 4, 3, 2, 1)}):
        # In registers: the sums, the weights of one input, a vector of inputs for each sum, and what is spread.
        most = max(1, (registers - quads - 1) // (quads + 1))
        for vectors in range(1, most + 1):
            if spec.w <= vectors * per:
                yield GroupedConvChoice(quads, max(1, min(vectors * per // spec.w, spec.h)), spec.w)
            else:
                yield GroupedConvChoice(quads, 1, vectors * per)


def _cycles(spec: GroupedConvSpec, choice: GroupedConvChoice, target: Target) -> float:
    """About the time of a choice, by what a core begins in a cycle."""
    per, taps = spec.lanes // QUAD, spec.kernel[0] * spec.kernel[1]
    total = 0.0
    for _, qcount, quads in segments(spec.quads, choice.quads):
        for _, rcount, high in segments(spec.h, choice.rows):
            for _, ccount, wide in segments(spec.w, choice.columns):
                vectors = -(-high * wide // per)
                sums = vectors * quads
                # As many loads as products a cycle, half of that across cache lines.
                cycles = max(sums / target.fmas, 1.4 * vectors * per / spec.depth + quads / 2, target.latency)
                total += qcount * rcount * ccount * (cycles * spec.ci * taps + 4.5 * sums + 10)
    return total * spec.groups * spec.n


def arrays(spec: GroupedConvSpec, target: Target) -> Arrays:
    """Arguments to time the kernel on, and where it begins in the first."""

    def places(count: int, block: int) -> NDArray[np.int32]:
        lane = np.arange(count) * QUAD
        return (lane // spec.lanes * block + lane % spec.lanes).astype(np.int32)

    inputs = places(spec.groups * spec.ci // spec.depth, spec.x.block)
    outputs = places(spec.groups * spec.quads, spec.y.block)
    x = random_floats(int(inputs.max()) + reach(spec) + spec.lanes)
    weights = random_floats(spec.groups * spec.quads * QUAD * spec.ci * spec.kernel[0] * spec.kernel[1])
    y = random_floats(int(outputs.max()) + spec.n * spec.y.image + spec.h * spec.y.row + spec.w * spec.y.column)
    return [x, weights, random_floats(spec.groups * spec.quads * QUAD), inputs, outputs, y], 0


TEMPLATES = {GroupedConvSpec: Template(build, space, arrays, REVISION)}
