"""Products of two computed tensors by tiles, one for each image and row."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tvm import tirx

from secateur.codegen.emit.gpu.builder import GpuBuilder, div, mod
from secateur.codegen.emit.types import Expr, Function
from secateur.codegen.kernels.matmul.spec import MatmulSpec
from secateur.codegen.plan.family import Template
from secateur.codegen.targets import Target

from .conv.tiles import GpuConvChoice, Products, tiles
from .post_ops import At, apply, operands
from .tile import Side, multiply, own_column, own_row


def tile_of(spec: MatmulSpec, target: Target) -> GpuConvChoice:
    """How a product is tiled."""
    batch = spec.n * spec.h
    moved = batch * (spec.k * (spec.blocks + spec.w) + spec.blocks * spec.w)
    return tiles(Products(spec.blocks, spec.w, batch, lambda depth: -(-spec.k // depth), moved), target)[0]


def build(spec: MatmulSpec, choice: None, target: Target) -> Function:
    """The kernel ``(x, w, operands.., y)``."""
    tile = tile_of(spec, target)
    k = GpuBuilder((-(-spec.w // tile.pixels), -(-spec.blocks // tile.outputs), spec.n * spec.h), tile.items)
    x, weight = k.pointer("x"), k.pointer("w")
    pointers = operands(k, spec.post_ops)
    y = k.pointer("y")
    image, row = k.bind(div(k.group[2], spec.h)), k.bind(mod(k.group[2], spec.h))
    first_output, first_pixel = k.group[1] * tile.outputs, k.group[0] * tile.pixels
    from_x = k.bind(image * spec.x.image + row * spec.x.row)
    from_right = k.bind(image * spec.right.image + row * spec.right.row)

    def inside(at: Expr) -> Expr | None:
        return at < spec.k if spec.k % tile.depth else None

    def right(s: Expr, d: Expr, output: Expr) -> Expr:
        at, column = k.bind(s * tile.depth + d), k.bind(tirx.min(first_output + output, spec.blocks - 1))
        return k.load_if(inside(at), weight, from_right + at * spec.right.column + column * spec.right.block)

    def left(s: Expr, d: Expr, pixel: Expr) -> Expr:
        at, line = k.bind(s * tile.depth + d), k.bind(tirx.min(first_pixel + pixel, spec.w - 1))
        return k.load_if(inside(at), x, from_x + at * spec.x.block + line * spec.x.column)

    along = spec.right.column < spec.right.block
    sums = multiply(k, tile, -(-spec.k // tile.depth), Side(tile.outputs, right, deep=along), Side(tile.pixels, left))

    def column(j: Expr) -> None:
        at = k.bind(first_pixel + own_column(k, tile, j))

        def one(i: Expr) -> None:
            output = k.bind(first_output + own_row(k, tile, i))
            where = At(output, image, row, at)
            k.branch(output < spec.blocks, lambda: k.store(y, where.place(spec.y), apply(
                k, k.load(sums, i * tile.columns + j), spec.post_ops, pointers, where)))  # fmt: skip

        k.branch(at < spec.w, lambda: k.loop(tile.rows, one, unroll=True))

    k.loop(tile.columns, column, unroll=True)
    return k.finish()


TEMPLATES: Mapping[type, Template] = MappingProxyType({MatmulSpec: Template(build)})
