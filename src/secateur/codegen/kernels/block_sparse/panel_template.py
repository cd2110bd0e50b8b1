"""Convolutions with zeros from panels: pixels in the lanes, some outputs at a time, kept blocks alone.

A strip of the input is packed so that the pixels of a channel lie side by side. Then, for each kept block of weights
(one tap of one input channel, for ``rows`` of the outputs of a block at a time): vectors of pixels, and one number per
output, broadcast. That takes fewer loads for as many products than outputs in the lanes would, since there is no
vector of weights that only some pixels share; results are transposed when they are written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from tvm import tirx

from secateur.codegen.emit.builder import INT, const
from secateur.codegen.emit.partition import partition
from secateur.codegen.emit.types import Expr, Function
from secateur.codegen.kernels.arrays import random_floats, reach, written
from secateur.codegen.plan.family import Arrays
from secateur.codegen.plan.tensors import Ints
from secateur.codegen.targets import Target

from .lists import Lists, pack_lists
from .packing import Packed, random_pattern
from .panel_tile import PanelKernel, Vector
from .panels import offsets_in, panel, room_of, scratch
from .pixel_template import PixelKernel
from .pixels import divided, in_registers, parts_tried, tilings
from .spec import PanelChoice, PanelSpec, UnstructuredChoice, UnstructuredSpec

PANEL_REVISION = 9  # raise it with every change of the code or the space: tuning records of before are then not used


def build(spec: PanelSpec, choice: PanelChoice, target: Target) -> Function:
    """The kernel ``(memory, w, bias, places, offsets, starts, operands.., y)``.

    ``places``: where in ``memory`` the input's blocks begin (the first, if they follow each other), then the scratch.
    ``offsets``: where in the panel the input of each kept block is. ``starts``: as for ``BlockSparseSpec``; of single
    weights ``Lists.table``.
    """
    return (PixelKernel if spec.kernel == (1, 1) else RowKernel)(spec, choice, target).build()


class RowKernel(PanelKernel):
    """Builds the kernel of windows: strips are whole rows of outputs."""

    def __init__(self, spec: PanelSpec, choice: PanelChoice, target: Target) -> None:
        self.panel, self.room = panel(spec, target), room_of(spec, target)
        super().__init__(spec, choice, self.panel.each, min(self.panel.vectors, choice.vectors))

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
        k, (first, end) = self.k, self.own(worker)
        k.loop(self.spec.n, lambda image: k.loop(
            self.panel.strips, lambda i: self.strip(image, worker, i, first, end), name="s"), name="n")  # fmt: skip

    def strip(self, image: Expr, worker: Expr, number: Expr, first: Expr, end: Expr) -> None:
        """Pack a strip, then write its pixels of some output blocks."""
        k, found, spec = self.k, self.panel, self.spec
        begin = k.bind(tirx.min(number * found.rows, const(spec.h - found.rows)), INT)
        base = self.scratch(worker, self.room)
        k.loop(spec.inputs, lambda b: self.pack(image, begin, b, base), name="cb")
        if self.apart:
            self.tiles(begin, base, lambda vectors, kept: self.tile_apart(image, first, end, vectors, kept))
            return
        k.span(first, end, lambda b: self.tiles(begin, base, lambda vectors, kept: self.tile(
            image, b, vectors, kept)), name="co")  # fmt: skip

    def pack(self, image: Expr, begin: Expr, block: Expr, base: Expr) -> None:
        """One block of inputs of a strip."""
        k, spec, found, v, s = self.k, self.spec, self.panel, self.spec.lanes, self.spec.x
        source, to = self.source(image, block), k.bind(base + block * (v * found.channel), INT)
        rows, last = found.rows + (spec.kernel[0] - 1) * spec.dilation[0], const(found.pitch - v)

        def part(r: Expr, t: Expr) -> None:
            column = k.bind(tirx.min(t * v, last), INT)
            start = k.bind(source + (begin + r) * s.row + column * s.column, INT)
            self.turn(start, to + (r * found.pitch + column), found.channel)

        k.loop(rows, lambda r: k.loop(-(-found.pitch // v), lambda t: part(r, t), name="t"), name="r")

    def tile_apart(self, image: Expr, first: Expr, end: Expr, vectors: list[Vector], kept: Expr) -> None:
        """A tile of some output blocks whose outputs read inputs of their own."""
        k, groups = self.k, self.grouped(first, end)
        k.loop(self.choice.parts, lambda part: k.span(
            *groups, lambda number: self.group(part, number, vectors, kept), name="group"), name="part")  # fmt: skip
        k.span(first, end, lambda b: self.write(image, b, vectors, self.results(kept, b)), name="co")

    def tiles(self, begin: Expr, base: Expr, body: Callable[[list[Vector], Expr], None]) -> None:
        """All tiles of a strip, and where there is room for their results."""
        k, v, done = self.k, self.spec.lanes, 0
        kept = k.bind(base + self.spec.ci * self.panel.channel, INT)

        def vector(number: Expr) -> Vector:
            row = k.bind(tirx.floordiv(number, const(self.each)), INT)
            column = k.bind(tirx.min((number - row * self.each) * v, const(self.spec.w - v)), INT)
            return Vector(k.bind(begin + row, INT), column, k.bind(base + row * self.panel.pitch + column, INT))

        for count, times in divided(self.panel.vectors, self.choice.vectors):
            k.loop(times, lambda t: body([vector(done + t * count + j) for j in range(count)], kept), name="t")  # noqa: B023
            done += count * times


def space(spec: PanelSpec, target: Target) -> Iterator[PanelChoice]:
    """The choices worth trying, the default first."""
    kind = UnstructuredChoice if isinstance(spec, UnstructuredSpec) else PanelChoice
    rows, vectors = in_registers(spec, target)
    vectors = min(vectors, spec.h * -(-spec.w // spec.lanes))
    for outer in ("strips", "blocks") if spec.threads > 1 else ("strips",):
        if spec.kernel == (1, 1):
            for tiles, parts in tilings(spec, target, spec.threads if outer == "strips" else 1):
                yield kind(rows, vectors, outer, parts, tiles)
        else:
            for parts in parts_tried(spec, vectors, target):
                yield kind(rows, vectors, outer, parts)


def arrays(spec: PanelSpec, target: Target) -> Arrays:
    """Arguments to time the kernel on, and where it begins in the first: as many kept blocks in each output block."""
    packed = random_pattern(spec.blocks, spec.lanes, spec.ci, spec.kernel, spec.percent)
    starts = np.concatenate([packed.starts, packed.shares(spec.threads)])
    return _arrays(spec, target, packed, starts)


def unstructured_arrays(spec: UnstructuredSpec, target: Target) -> Arrays:
    """The same with weights that are kept at random. Of all choices, which have the same parts."""
    rng = np.random.default_rng(0)
    kept = rng.random((spec.blocks * spec.lanes, spec.ci, *spec.kernel), np.float32) * 100 < spec.percent
    choice = next(space(spec, target))
    packed = pack_lists(kept.astype(np.float32), spec.lanes, choice.rows, choice.parts, spec.threads)
    return _arrays(spec, target, packed, packed.table)


def _arrays(spec: PanelSpec, target: Target, packed: Packed | Lists, starts: Ints) -> Arrays:
    v = spec.lanes
    size = -(-(spec.inputs * spec.x.block + reach(spec)) // v) * v
    memory = random_floats(size + scratch(spec, target))
    places = [*(np.arange(spec.inputs if spec.table else 1) * spec.x.block), size]
    offsets = offsets_in(spec, packed, np.arange(spec.ci), target)
    return [memory, random_floats(packed.weight.size), random_floats(spec.blocks * v),
            *(np.asarray(table).astype(np.int32) for table in (places, offsets, starts)),
            random_floats(written(spec))], 0  # fmt: skip
