"""1x1 convolutions with zeros from panels: a tile of pixels of all channels side by side, a tile after the other.

What a kept block reads of a tile lies in two cache lines, and a tile's channels follow each other, so that little is
lost where a tile of all channels is larger than the first cache. The tiles of a strip take turns at an output block,
whose weights stay in the first: few tiles, so that they and the weights of all output blocks stay in the second. Or one
part of the inputs is packed and multiplied after the other, while sums wait: then a part stays in the first cache, or
all tiles of a small image in the second, so that weights are read once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tvm import tirx

from secateur.codegen.emit.builder import INT, const
from secateur.codegen.emit.types import Expr, Function
from secateur.codegen.targets import Target

from .panel_tile import PanelKernel, Vector
from .pixels import LINE, pixels_of, room_of
from .spec import PanelChoice, PanelSpec

AHEAD = 2  # blocks of inputs: so early they are asked for while tiles are packed


@dataclass(frozen=True)
class Strip:
    """Tiles of an image from ``begin`` to ``stop``, and a part of the inputs.

    They are packed so that the first block of all inputs would be at ``start``; results wait from ``kept`` on.
    """

    image: Expr
    part: Expr
    start: Expr
    begin: Expr
    stop: Expr
    kept: Expr


class PixelKernel(PanelKernel):
    """Builds the kernel, with the parameters of ``panel_template.build``."""

    def __init__(self, spec: PanelSpec, choice: PanelChoice, target: Target) -> None:
        self.found = pixels_of(spec, target)
        super().__init__(spec, choice, self.found.each, self.found.vectors)
        self.room = room_of(spec, target)
        self.each_strip = self.found.strip(choice.tiles, spec.threads)
        self.strips = -(-self.found.tiles // self.each_strip)
        self.packed = self.found.packed(spec, choice.parts)

    def build(self) -> Function:
        k = self.k
        k.everyone(self.own_strips if self.choice.outer == "strips" else self.own_blocks)
        return k.finish()

    def own_strips(self, worker: Expr) -> None:
        """The strips of one worker, all output blocks of each."""
        k, spec = self.k, self.spec
        each = -(-self.strips // spec.threads)
        first, end = worker * each, tirx.min((worker + 1) * each, const(self.strips))
        self.over_images(k.bind(first, INT), k.bind(end, INT), worker, const(0), const(spec.blocks))

    def own_blocks(self, worker: Expr) -> None:
        """All strips of the output blocks of one worker, which have about as many kept blocks as another's."""
        self.over_images(const(0), const(self.strips), worker, *self.own(worker))

    def over_images(self, start: Expr, stop: Expr, worker: Expr, first: Expr, end: Expr) -> None:
        """Some strips of every image, some output blocks of them."""
        k = self.k
        k.loop(self.spec.n, lambda n: k.span(
            start, stop, lambda i: self.strip(n, worker, i, first, end), name="s"), name="n")  # fmt: skip

    def strip(self, image: Expr, worker: Expr, number: Expr, first: Expr, end: Expr) -> None:
        """Pack some tiles, then write their pixels of some output blocks; one part of the inputs after the other."""
        k, spec, found, parts = self.k, self.spec, self.found, self.choice.parts
        begin = k.bind(number * self.each_strip, INT)
        stop = k.bind(tirx.min(begin + self.each_strip, const(found.tiles)), INT)
        base = self.scratch(worker, self.room)
        blocks = found.part(spec, parts)
        kept = k.bind(base + self.each_strip * self.packed, INT)

        def part(p: Expr) -> None:
            low = k.bind(tirx.min(p * blocks, const(spec.inputs)), INT)
            high = k.bind(tirx.min((p + 1) * blocks, const(spec.inputs)), INT)
            start = k.bind(base - low * (spec.lanes * found.vectors * spec.lanes), INT)
            strip = Strip(image, p, start, begin, stop, kept)
            k.span(low, high, partial(self.pack, strip), name="cb")
            (self.groups_of if self.apart else self.blocks_of)(strip, first, end)

        k.loop(parts, part, name="part")

    def pack(self, strip: Strip, block: Expr) -> None:
        """One block of inputs of all tiles."""
        k, spec, v = self.k, self.spec, self.spec.lanes
        source, step = self.source(strip.image, block), self.found.vectors * v

        def one(_: Expr, vectors: list[Vector]) -> None:
            for vector in vectors:
                at = k.bind(source + vector.row * spec.x.row + vector.column * spec.x.column, INT)
                for pixel in range(0, v, max(1, LINE // v)):
                    k.prefetch(self.memory, at + (AHEAD * spec.x.block + pixel * spec.x.column))
                self.turn(at, vector.at + block * (v * step), step)

        self.tiles(strip, one)

    def blocks_of(self, strip: Strip, first: Expr, end: Expr) -> None:
        """What a part adds to some output blocks, each written as soon as it is whole."""

        def one(block: Expr, tile: Expr, vectors: list[Vector]) -> None:
            if self.choice.parts == 1:
                self.tile(strip.image, block, vectors, strip.kept)
                return
            place = self.results(self.kept(strip, tile), block)
            self.sums(block, strip.part, vectors, place)
            self.k.branch(self.last(strip), lambda: self.write(strip.image, block, vectors, place))

        self.k.span(first, end, lambda block: self.tiles(strip, partial(one, block)), name="co")

    def groups_of(self, strip: Strip, first: Expr, end: Expr) -> None:
        """What a part adds to the outputs of some blocks, which are written after all: groups are of any of them."""
        k = self.k

        def add(number: Expr, tile: Expr, vectors: list[Vector]) -> None:
            self.group(strip.part, number, vectors, self.kept(strip, tile))

        def write(block: Expr, tile: Expr, vectors: list[Vector]) -> None:
            self.write(strip.image, block, vectors, self.results(self.kept(strip, tile), block))

        k.span(*self.grouped(first, end), lambda i: self.tiles(strip, partial(add, i)), name="group")
        k.branch(self.last(strip), lambda: k.span(
            first, end, lambda block: self.tiles(strip, partial(write, block)), name="co"))  # fmt: skip

    def last(self, strip: Strip) -> Expr:
        """Is it the last part?"""
        return strip.part == self.choice.parts - 1

    def kept(self, strip: Strip, tile: Expr) -> Expr:
        """Where the results of a tile wait."""
        return self.k.bind(strip.kept + (tile - strip.begin) * (self.spec.blocks * self.found.sums(self.spec)), INT)

    def tiles(self, strip: Strip, body: Callable[[Expr, list[Vector]], None]) -> None:
        """``body`` of all tiles of a strip: of those of as many vectors as there is room for, then of narrower ones."""
        k, found, v, begin, stop = self.k, self.found, self.spec.lanes, strip.begin, strip.stop

        def one(first: int, size: int, tile: Expr) -> None:
            at = k.bind(strip.start + (tile - begin) * self.packed, INT)
            start = first + tile * size
            body(tile, [Vector(*self.split(start + j), at + j * v) for j in range(size)])

        if not found.narrow:
            k.span(begin, stop, partial(one, 0, found.vectors), name="t")
            return
        wide, first = const(found.wide), found.wide * (found.vectors - found.less)
        k.span(tirx.min(begin, wide), tirx.min(stop, wide), partial(one, 0, found.vectors), name="t")
        k.span(tirx.max(begin, wide), tirx.max(stop, wide), partial(one, first, found.less), name="t")

    def split(self, number: Expr) -> tuple[Expr, Expr]:
        """The row and the first column of a vector of outputs; the last of a row overlaps the one before."""
        each, last, v = self.each, const(self.spec.w - self.spec.lanes), self.spec.lanes
        if self.spec.h == 1:
            return const(0), self.k.bind(tirx.min(number * v, last), INT)
        row = self.k.bind(tirx.floordiv(number, const(each)), INT)
        return row, self.k.bind(tirx.min((number - row * each) * v, last), INT)
