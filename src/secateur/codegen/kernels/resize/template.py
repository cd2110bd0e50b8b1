"""Resizing by sums of neighbours: linear and cubic, the channels in the vector, positions and weights from tables."""

from __future__ import annotations

from collections.abc import Mapping

from secateur.codegen.emit.builder import KernelBuilder
from secateur.codegen.emit.types import Expr, Function
from secateur.codegen.kernels.conv.template import y_index
from secateur.codegen.kernels.post_ops.template import At, apply, block_base, operand_pointers
from secateur.codegen.plan.family import Template
from secateur.codegen.targets import Target

from .spec import ResizeSpec


def build(spec: ResizeSpec, choice: None, target: Target) -> Function:
    """The kernel ``(x, rows, row weights, columns, column weights, [table], operands.., y)``.

    Tables hold ``taps`` entries per output row and column; positions are offsets in floats.
    """
    k = KernelBuilder(spec.lanes, spec.threads)
    x = k.pointer("x")
    axes = [(k.pointer(f"at{j}", "int32"), k.pointer(f"w{j}")) for j in (0, 1)]
    table = k.pointer("table", "int32") if spec.table else None
    operands = operand_pointers(k, spec.post_ops)
    y = k.pointer("y")

    def taps(axis: int, position: Expr) -> list[tuple[Expr, Expr]]:
        """(offset, weight in all lanes) of an output position."""
        count = spec.taps[axis]
        offsets, weights = axes[axis]
        return [
            (k.bind(k.scalar(offsets, position * count + t).astype("int64"), "int64"),
             k.vector(k.splat(k.scalar(weights, position * count + t))))
            for t in range(count)
        ]  # fmt: skip

    def row(block: Expr, image: Expr, line: Expr) -> None:
        base = k.bind(block_base(k, table, block, spec.x.block) + image * spec.x.image, "int64")
        down = [(k.bind(base + at, "int64"), w) for at, w in taps(0, line)]

        def pixel(column: Expr) -> None:
            value: Expr | None = None
            for at, weight in taps(1, column):
                part: Expr | None = None
                for start, factor in down:
                    product = k.load(x, start + at) * factor
                    part = product if part is None else part + product
                value = part * weight if value is None else value + part * weight
            where = At(block, image, line, column)
            k.store(y, y_index(spec, where), apply(k, value, spec.post_ops, operands, where))

        k.loop(spec.w, pixel, name="ow")

    shared = spec.threads > 1
    wide = shared and spec.blocks >= 2 * spec.threads
    k.loop(spec.blocks, lambda b: k.loop(spec.n, lambda n: k.loop(
        spec.h, lambda r: row(b, n, r), shared and not wide, "oh"), name="n"), wide, "c")  # fmt: skip
    return k.finish()


TEMPLATES: Mapping[type, Template] = {ResizeSpec: Template(build)}
