"""Element-wise operators and means over all pixels: kernels bound by memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tvm import tirx

from secateur.codegen.emit.builder import KernelBuilder, const, even_tile, segments
from secateur.codegen.emit.types import Expr, Function
from secateur.codegen.kernels.conv.template import y_index
from secateur.codegen.kernels.post_ops.template import At, apply, block_base, operand_pointers
from secateur.codegen.plan.family import Template
from secateur.codegen.targets import Target

from .spec import MapSpec, MeanSpec

FEW = 256  # pixels: sharing fewer costs threads more than it saves


def build_map(spec: MapSpec, choice: None, target: Target, width: int = 8) -> Function:
    """The kernel ``(x, [table], operands.., y)``."""
    k = KernelBuilder(spec.lanes, spec.threads)
    x = k.pointer("x")
    table = k.pointer("table", "int32") if spec.table else None
    operands = operand_pointers(k, spec.post_ops)
    y = k.pointer("y")

    def pixels(block: Expr, image: Expr, row: Expr) -> None:
        base = k.bind(block_base(k, table, block, spec.x.block) + image * spec.x.image + row * spec.x.row, "int64")
        for start, count, tile in segments(spec.w, even_tile(spec.w, width)):

            def some(t: Expr, start: int = start, tile: int = tile) -> None:
                for c in range(tile):
                    column = start + t * tile + c
                    at = At(block, image, row, column)
                    value = k.load(x, base + column * spec.x.column)
                    k.store(y, y_index(spec, at), apply(k, value, spec.post_ops, operands, at))

            k.loop(count, some, name="ow")

    _over(k, spec, lambda b, n: k.loop(spec.h, lambda r: pixels(b, n, r), name="oh"))
    return k.finish()


def _over(k: KernelBuilder, spec: MapSpec | MeanSpec, body: Callable[[Expr, Expr], None]) -> None:
    shared = spec.threads > 1 and spec.blocks >= spec.threads
    k.loop(spec.blocks, lambda b: k.loop(spec.n, lambda n: body(b, n), name="n"), shared, "c")


def build_mean(spec: MeanSpec, choice: None, target: Target, width: int = 8) -> Function:
    """The kernel ``(x, [table], operands.., y)``; several sums run side by side."""
    k = KernelBuilder(spec.lanes, spec.threads)
    x = k.pointer("x")
    table = k.pointer("table", "int32") if spec.table else None
    operands = operand_pointers(k, spec.post_ops)
    y = k.pointer("y")
    best = spec.kind == "max"

    def join(a: Expr, b: Expr) -> Expr:
        return tirx.max(a, b) if best else a + b

    def one(block: Expr, image: Expr) -> None:
        base = k.bind(block_base(k, table, block, spec.x.block) + image * spec.x.image, "int64")
        width_ = min(width, spec.w)
        sums = k.accumulators(width_, k.splat(-3.4028234663852886e38 if best else 0.0))

        def row(r: Expr) -> None:
            for start, count, tile in segments(spec.w, width_):

                def some(t: Expr, start: int = start, tile: int = tile) -> None:
                    for c in range(tile):
                        at = base + r * spec.x.row + (start + t * tile + c) * spec.x.column
                        k.set(sums[c], join(k.get(sums[c]), k.load(x, at)))

                k.loop(count, some, name="w")

        k.loop(spec.h, row, name="h")
        while len(sums) > 1:
            half = (len(sums) + 1) // 2
            for a, b in zip(sums, sums[half:], strict=False):
                k.set(a, join(k.get(a), k.get(b)))
            sums = sums[:half]
        value = k.get(sums[0])
        if spec.kind == "mean":
            value = value * k.splat(1.0 / (spec.h * spec.w))
        at = At(block, image, const(0), const(0))
        k.store(y, y_index(spec, at), apply(k, value, spec.post_ops, operands, at))

    _over(k, spec, one)
    return k.finish()


TEMPLATES: Mapping[type, Template] = {MapSpec: Template(build_map), MeanSpec: Template(build_mean)}
