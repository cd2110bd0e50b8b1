"""Dense convolution and linear layers: a tile of output blocks by pixels in registers, one input channel at a time.

For each input channel and tap: one vector of weights per output block, one number per pixel, broadcast; all products
go to accumulators. Weights lie in the order in which they are read (``ConvSpec.order``), the output block and lane last. Channels are looked up in a table where they do not lie in whole blocks in their order, which
costs one load in ``nb * pixels`` multiply-adds: concat, split and shuffle before a convolution are free.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..specs import ConvChoice, ConvSpec
from ..writer import Expr, Kernel, even_tile, segments
from .epilogue import At, apply, operand_pointers


def build(spec: ConvSpec, choice: ConvChoice) -> Any:
    """The kernel ``(x, w, [bias], [table], operands.., y)``."""
    k = Kernel(spec.lanes)
    x, w = k.pointer("x"), k.pointer("w")
    bias = k.pointer("bias") if spec.bias else None
    table = k.pointer("table", "int32") if spec.table else None
    operands = operand_pointers(k, spec.steps)
    y = k.pointer("y")
    tiles = block_tiles(spec.blocks, choice.nb)
    per_block = spec.ci * spec.kernel[0] * spec.kernel[1] * spec.lanes

    def over_blocks(body: Any, parallel: bool) -> None:
        for start, count, nb in tiles:
            k.loop(count, lambda t: body(start + t * nb, nb), parallel, "co")  # noqa: B023  called at once

    def over_pixels(body: Any, parallel: bool) -> None:
        def rows(image: Expr) -> None:
            for r0, rcount, rows in segments(spec.h, choice.rows):
                for c0, ccount, columns in segments(spec.w, choice.columns):
                    # The longer of the two loops goes outside when the image is one row.
                    def row(tr: Expr, r0: int = r0, rows: int = rows, c0: int = c0, ccount: int = ccount,
                            columns: int = columns, parallel: bool = parallel and rcount == 1) -> None:  # fmt: skip
                        k.loop(ccount, lambda tc: body(image, r0 + tr * rows, c0 + tc * columns, rows, columns),
                               parallel, "ow")  # fmt: skip

                    k.loop(rcount, row, parallel and rcount > 1, "oh")

        k.loop(spec.n, rows, False, "n")

    def tile(block: Expr, nb: int, image: Expr, row: Expr, column: Expr, rows: int, columns: int) -> None:
        pixels = [(r, c) for r in range(rows) for c in range(columns)]
        start = x_index(spec, image, row, column)
        accumulators = k.accumulators(len(pixels) * nb)
        for j in range(nb):
            first = k.load(bias, (block + j) * spec.lanes) if bias is not None else k.splat(0.0)
            for p in range(len(pixels)):
                k.set(accumulators[p * nb + j], first)
        weights = block * per_block

        def tap(position: Expr, source: Expr, kh: Expr, kw: Expr) -> None:
            sdh, sdw = spec.dilation[0] * spec.x.row, spec.dilation[1] * spec.x.column
            at = k.bind(source + kh * sdh + kw * sdw, "int64")
            wi = weights + position * (nb * spec.lanes)
            ws = [k.vector(k.load(w, wi + j * spec.lanes)) for j in range(nb)]
            if choice.ahead:
                for j in range(0, nb * spec.lanes, 16):
                    k.prefetch(w, wi + (nb * per_block + j))
            for p, (r, c) in enumerate(pixels):
                value = k.scalar(x, at + (r * spec.stride[0] * spec.x.row + c * spec.stride[1] * spec.x.column))
                wide = k.vector(k.splat(value))
                for j in range(nb):
                    k.add(accumulators[p * nb + j], wide * ws[j])

        def every_tap(body: Any) -> None:
            k.loop(spec.kernel[0], lambda kh: k.loop(spec.kernel[1], lambda kw: body(kh, kw), name="kw"), name="kh")

        # The innermost loop is long enough that LLVM leaves it alone: unrolled, it would not fit the registers.
        v, (height, width) = spec.lanes, spec.kernel
        if spec.order == "blocks":
            k.loop(spec.ci // v, lambda b: every_tap(lambda kh, kw: k.loop(
                v, lambda i: tap(((b * height + kh) * width + kw) * v + i, start + b * spec.x.block + i, kh, kw),
                name="i")), name="cb")  # fmt: skip
        elif spec.order == "taps":
            every_tap(lambda kh, kw: k.loop(spec.ci, lambda c: tap(
                (kh * width + kw) * spec.ci + c, start + k.scalar(table, c).astype("int64"), kh, kw), name="ci"))  # fmt: skip
        else:
            k.loop(spec.ci, lambda c: every_tap(lambda kh, kw: tap(
                (c * height + kh) * width + kw, start + k.scalar(table, c).astype("int64"), kh, kw)), name="ci")  # fmt: skip
        for p, (r, c) in enumerate(pixels):
            for j in range(nb):
                at = At(block + j, image, row + r, column + c)
                value = apply(k, k.get(accumulators[p * nb + j]), spec.steps, operands, at)
                k.store(y, y_index(spec, at), value)

    shared = spec.threads > 1
    if choice.outer == "blocks":
        wide = shared and spec.blocks // choice.nb >= 2 * spec.threads
        over_blocks(lambda b, nb: over_pixels(lambda *p: tile(b, nb, *p), shared and not wide), wide)
    else:
        over_pixels(lambda *p: over_blocks(lambda b, nb: tile(b, nb, *p), False), shared)
    return k.finish()


def x_index(spec: ConvSpec, image: Expr, row: Expr, column: Expr) -> Expr:
    """The first tap of an output."""
    return image * spec.x.image + row * (spec.stride[0] * spec.x.row) + column * (spec.stride[1] * spec.x.column)


def y_index(spec: Any, at: At) -> Expr:
    """Where a vector is written."""
    return at.block * spec.y.block + at.image * spec.y.image + at.row * spec.y.row + at.column * spec.y.column


def block_tiles(blocks: int, nb: int) -> list[tuple[int, int, int]]:
    """Output blocks in tiles of ``nb``."""
    return segments(blocks, nb)


def space(spec: ConvSpec, registers: int) -> Iterator[ConvChoice]:
    """The choices worth trying, the default first."""
    seen: set[ConvChoice] = set()
    for nb in (2, 1, 4, 3) if spec.h * spec.w > 1 else (8, 4, 12, 2, 1):
        nb = min(nb, spec.blocks)
        most = max(1, (registers - nb - 2) // nb) if spec.h * spec.w > 1 else 1
        shapes = [(1, even_tile(spec.w, most))]
        if spec.w * 2 <= most and spec.h > 1:
            rows = even_tile(spec.h, most // spec.w)
            shapes = [(rows, spec.w), *shapes]
        if spec.w > most:
            shapes += [(1, most), (1, max(d for d in range(1, most + 1) if spec.w % d == 0))]
            if most >= 8 and spec.h > 1:
                shapes += [(2, even_tile(spec.w, most // 2))]
        for rows, columns in shapes:
            for outer in ("blocks", "pixels"):
                # Weights come from memory when a network runs, which timing a kernel alone does not show: always ahead.
                choice = ConvChoice(nb, rows, columns, outer, outer == "blocks")
                if choice not in seen:
                    seen.add(choice)
                    yield choice


def default(spec: ConvSpec, registers: int) -> ConvChoice:
    """The choice where nothing was measured."""
    return next(space(spec, registers))
