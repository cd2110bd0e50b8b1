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
from secateur.codegen.kernels.conv.template import y_index
from secateur.codegen.kernels.post_ops.template import At, apply
from secateur.codegen.targets import Target

from .panel_tile import PanelKernel, Span, Vector
from .pixels import LINE, pixels_of, room_of, waiting
from .spec import PanelChoice, PanelSpec

AHEAD = 2  # blocks of inputs: so early they are asked for while tiles are packed


@dataclass(frozen=True)
class Strip:
    """Tiles of a worker from ``begin`` to ``stop``, and a part of the inputs; the first ``wide`` ones are wide.

    The worker's vectors of pixels begin at ``first``. Tiles are packed so that the first block of all inputs would be
    at ``start``; results wait from ``kept`` on. Single pixels are packed at ``left``: with its first strip the worker
    writes their output blocks ``own``.
    """

    image: Expr
    part: Expr
    start: Expr
    first: Expr
    wide: Expr
    begin: Expr
    stop: Expr
    kept: Expr
    left: Expr
    own: Span


class PixelKernel(PanelKernel):
    """Builds the kernel, with the parameters of ``panel_template.build``."""

    def __init__(self, spec: PanelSpec, choice: PanelChoice, target: Target) -> None:
        self.found = pixels_of(spec, target)
        super().__init__(spec, choice, self.found.each, self.found.vectors)
        self.room = room_of(spec, target)
        self.shared = self.found.shared(spec.threads if choice.outer == "strips" else 1)
        self.each_strip = self.shared.strip(choice.tiles)
        self.packed = self.found.packed(spec, choice.parts)

    def build(self) -> Function:
        k, spec = self.k, self.spec
        k.everyone(lambda worker: k.loop(spec.n, partial(self.image, worker, self.own(worker)), name="n"))
        return k.finish()

    def image(self, worker: Expr, own: Span, number: Expr) -> None:
        """The strips of one worker, all output blocks of each; or all strips of some output blocks, about as many."""
        k = self.k
        mine = (const(0), const(self.spec.blocks)) if self.choice.outer == "strips" else own
        tiles = self.of(worker, self.shared.wide) + self.of(worker, self.shared.narrow)
        strips = tirx.floordiv(tiles + (self.each_strip - 1), const(self.each_strip))
        if self.found.left:  # which the first strip has, even if it has nothing else
            strips = tirx.max(strips, const(1))
        k.span(const(0), k.bind(strips, INT), lambda i: self.strip(number, worker, i, mine, own), name="s")

    def of(self, worker: Expr, numbers: tuple[int, int]) -> Expr:
        """What a worker has: the first number if it has a vector more than others, else the second."""
        larger, other = numbers
        if larger == other:
            return const(other)
        return tirx.Select(worker < self.shared.larger, const(larger), const(other))

    def strip(self, image: Expr, worker: Expr, number: Expr, mine: Span, own: Span) -> None:
        """Pack some tiles, then write their pixels of some output blocks; one part of the inputs after the other."""
        k, spec, found, parts, tiles = self.k, self.spec, self.found, self.choice.parts, self.shared
        wide = k.bind(self.of(worker, tiles.wide), INT)
        begin = k.bind(number * self.each_strip, INT)
        stop = k.bind(tirx.min(begin + self.each_strip, wide + self.of(worker, tiles.narrow)), INT)
        first = worker * tiles.least + tirx.min(worker, const(tiles.larger)) if tiles.least < found.total else const(0)
        first, base = k.bind(first, INT), self.scratch(worker, self.room)
        blocks = found.part(spec, parts)
        kept = k.bind(base + self.each_strip * self.packed, INT)
        after = self.each_strip * spec.blocks if waiting(spec, parts) else 1
        left = k.bind(kept + after * found.sums(spec), INT)
        if found.left:
            k.branch(number == 0, lambda: k.loop(spec.inputs, partial(self.copy, image, left), name="cb"))

        def part(p: Expr) -> None:
            low = k.bind(tirx.min(p * blocks, const(spec.inputs)), INT)
            high = k.bind(tirx.min((p + 1) * blocks, const(spec.inputs)), INT)
            start = k.bind(base - low * (spec.lanes * found.vectors * spec.lanes), INT)
            strip = Strip(image, p, start, first, wide, begin, stop, kept, left, own)
            k.span(low, high, partial(self.pack, strip), name="cb")
            (self.groups_of if self.apart else self.blocks_of)(strip, *mine)

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

        def all_pixels(block: Expr) -> None:
            self.tiles(strip, partial(one, block))
            if self.found.left:
                mine = tirx.all(strip.begin == 0, strip.own[0] <= block, block < strip.own[1])
                self.k.branch(mine, lambda: self.single(strip, block))

        self.in_turn(strip, first, end, all_pixels)

    def in_turn(self, strip: Strip, first: Expr, end: Expr, body: Callable[[Expr], None]) -> None:
        """``body`` of some output blocks; of all if workers share pixels, each from its own ones on.

        So each reads other weights from memory, and what the others have read from the last cache.
        """
        k, blocks = self.k, const(self.spec.blocks)
        if self.choice.outer != "strips" or self.spec.threads == 1:
            k.span(first, end, body, name="co")
            return
        start = strip.own[0]
        k.span(start, start + blocks, lambda i: body(k.bind(tirx.Select(i < blocks, i, i - blocks), INT)), name="co")

    def copy(self, image: Expr, left: Expr, block: Expr) -> None:
        """One block of inputs of the single pixels."""
        k, spec, v = self.k, self.spec, self.spec.lanes
        source = self.source(image, block)
        for i in range(self.found.left):
            pixel = k.load(self.memory, source + (self.each * v + i) * spec.x.column)
            k.store(self.memory, left + block * v + i * spec.ci, pixel)

    def single(self, strip: Strip, block: Expr) -> None:
        """What a part adds to the single pixels of an output block, whose outputs are in the lanes."""
        k, spec, v, count, rows = self.k, self.spec, self.spec.lanes, self.found.left, self.choice.rows
        turns, waits = self.found.turns(), waiting(spec, self.choice.parts)
        room = k.bind(strip.left + count * spec.ci + (block * self.found.sums_left(spec) if waits else 0), INT)
        every, span = self.kept_of(block, strip.part)
        weights = [self.weights_of(const(i), every) for i in range(v // rows)]
        pitch = const(self.found.vectors * v)

        def add(i: Expr, turn: int) -> None:
            channel = k.bind(tirx.truncdiv(self.number(self.offsets, i), pitch), INT)
            each = [k.load(self.w, at + i * rows, rows) for at in weights]
            w = k.vector(k.shuffle(each, range(v)) if len(each) > 1 else each[0])
            for j, total in enumerate(sums[turn % turns]):
                x = k.scalar(self.memory, strip.left + channel + j * spec.ci)
                k.add(total, k.vector(k.splat(x)) * w)

        with self.summed(strip.part, count, [room + i * (count * v) for i in range(turns)]) as sums:
            self.unrolled(span, add)

        def write() -> None:
            for j in range(count):
                pixel = k.vector(k.load(self.bias, block * v))
                for i in range(turns):
                    pixel = k.vector(pixel + k.load(self.memory, room + (i * count + j) * v))
                at = At(block, strip.image, const(0), const(self.each * v + j))
                k.store(self.y, y_index(spec, at), apply(k, pixel, spec.post_ops, self.operands, at))

        k.branch(self.last(strip), write)

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
        k, v, shared, wide, begin, stop = self.k, self.spec.lanes, self.shared, strip.wide, strip.begin, strip.stop

        def one(first: Expr, size: int, tile: Expr) -> None:
            at = k.bind(strip.start + (tile - begin) * self.packed, INT)
            start = first + tile * size
            body(tile, [Vector(*self.split(start + j), at + j * v) for j in range(size)])

        if not any(shared.narrow):
            k.span(begin, stop, partial(one, strip.first, shared.vectors), name="t")
            return
        narrow = k.bind(strip.first + wide, INT)  # of one vector less
        k.span(tirx.min(begin, wide), tirx.min(stop, wide), partial(one, strip.first, shared.vectors), name="t")
        k.span(tirx.max(begin, wide), tirx.max(stop, wide), partial(one, narrow, shared.vectors - 1), name="t")

    def split(self, number: Expr) -> tuple[Expr, Expr]:
        """The row and the first column of a vector of outputs; the last of a row overlaps the one before."""
        each, last, v = self.each, const(self.spec.w - self.spec.left - self.spec.lanes), self.spec.lanes
        if self.spec.h == 1:
            return const(0), self.k.bind(tirx.min(number * v, last), INT)
        row = self.k.bind(tirx.floordiv(number, const(each)), INT)
        return row, self.k.bind(tirx.min((number - row * each) * v, last), INT)
