"""1x1 convolutions with zeros from panels: a tile of pixels of all channels side by side, a tile after the other.

What a kept block reads of a tile lies in two cache lines, and a tile's channels follow each other, so that little is
lost where a tile of all channels is larger than the first cache. A strip is as many tiles as the second cache holds:
its tiles take turns at an output block, whose weights stay in the first.
"""

from __future__ import annotations

from functools import partial

from tvm import tirx

from secateur.codegen.emit.builder import INT, const
from secateur.codegen.emit.types import Expr, Function
from secateur.codegen.targets import Target

from .packing import PIECES
from .panel_tile import LINE, PanelKernel, Vector
from .pixels import Strips, pixels_of, room_of
from .spec import PanelChoice, PanelSpec


class PixelKernel(PanelKernel):
    """Builds the kernel, with the parameters of ``panel_template.build``."""

    def __init__(self, spec: PanelSpec, choice: PanelChoice, target: Target) -> None:
        self.found = pixels_of(spec, target)
        super().__init__(spec, choice, self.found.each)
        self.room = room_of(spec, target)

    def build(self) -> Function:
        k = self.k
        k.everyone(self.own_strips if self.choice.outer == "strips" else self.own_blocks)
        return k.finish()

    def own_strips(self, worker: Expr) -> None:
        """The strips of one worker, all output blocks of each."""
        k, spec = self.k, self.spec
        for strips in self.found.strips:
            each = -(-strips.count // spec.threads)
            first, end = worker * each, tirx.min((worker + 1) * each, const(strips.count))
            self.over_images(strips, k.bind(first, INT), k.bind(end, INT), worker, const(0), const(spec.blocks))

    def own_blocks(self, worker: Expr) -> None:
        """All strips of the output blocks of one worker, which have about as many kept blocks as another's."""
        at = self.spec.blocks * PIECES + 1 + worker
        first, end = self.number(self.starts, at), self.number(self.starts, at + 1)
        for strips in self.found.strips:
            self.over_images(strips, const(0), const(strips.count), worker, first, end)

    def over_images(self, strips: Strips, start: Expr, stop: Expr, worker: Expr, first: Expr, end: Expr) -> None:
        """Some strips of every image, some output blocks of them."""
        k = self.k
        k.loop(self.spec.n, lambda n: k.span(
            start, stop, lambda i: self.strip(n, strips, worker, i, first, end), name="s"), name="n")  # fmt: skip

    def strip(self, image: Expr, strips: Strips, worker: Expr, number: Expr, first: Expr, end: Expr) -> None:
        """Pack some tiles, then write their pixels of some output blocks."""
        k, spec, v, size = self.k, self.spec, self.spec.lanes, self.found.tile(self.spec)
        base = self.scratch(worker, self.room)
        begin = k.bind(number * strips.each, INT)
        end_tile = k.bind(tirx.min(begin + strips.each, const(strips.tiles)), INT)
        kept = k.bind(base + self.found.most * size, INT)
        step = self.found.vectors * v

        def vectors(tile: Expr) -> list[Vector]:
            at = k.bind(base + (tile - begin) * size, INT)
            return [Vector(*self.split(strips.first + tile * strips.vectors + j), at + j * v)
                    for j in range(strips.vectors)]  # fmt: skip

        def pack(block: Expr, tile: Expr) -> None:
            source = self.source(image, block)
            for vector in vectors(tile):
                start = k.bind(source + vector.row * spec.x.row + vector.column * spec.x.column, INT)
                self.turn(start, vector.at + block * (v * step), step)

        def block(number: Expr, tile: Expr) -> None:
            self.ask(image, strips, tile + strips.each, number - first)
            self.tile(image, number, vectors(tile), kept)

        k.loop(spec.inputs, lambda b: k.span(begin, end_tile, partial(pack, b), name="t"), name="cb")
        k.span(first, end, lambda b: k.span(begin, end_tile, partial(block, b), name="t"), name="co")

    def ask(self, image: Expr, strips: Strips, tile: Expr, turn: Expr) -> None:
        """Ask for what a tile of the next strip reads, a share of its blocks of inputs for each output block."""
        k, spec, v = self.k, self.spec, self.spec.lanes
        if strips.count == 1:
            return
        turns = spec.blocks if self.choice.outer == "strips" else -(-spec.blocks // spec.threads)
        places = [self.split(strips.first + tile * strips.vectors + j) for j in range(strips.vectors)]

        def one(block: Expr) -> None:
            source = self.source(image, block)
            for row, column in places:
                at = k.bind(source + row * spec.x.row + column * spec.x.column, INT)
                for pixel in range(0, v, max(1, LINE // v)):
                    k.prefetch(self.memory, at + pixel * spec.x.column, near=False)

        share = [tirx.min(tirx.floordiv((turn + i) * spec.inputs, turns), const(spec.inputs)) for i in (0, 1)]
        k.span(k.bind(share[0], INT), k.bind(share[1], INT), one, name="ask")

    def split(self, number: Expr) -> tuple[Expr, Expr]:
        """The row and the first column of a vector of outputs; the last of a row overlaps the one before."""
        each, last, v = self.each, const(self.spec.w - self.spec.lanes), self.spec.lanes
        if self.spec.h == 1:
            return const(0), self.k.bind(tirx.min(number * v, last), INT)
        row = self.k.bind(tirx.floordiv(number, const(each)), INT)
        return row, self.k.bind(tirx.min((number - row * each) * v, last), INT)
