"""Products of two computed tensors: the tile of registers of a convolution, its weights read where they lie.

[n, h, w, k] x [n, h, k, blocks of lanes]: for each k one number per row of the tile, broadcast, times one vector per
block. The right operand needs no packing, for NCHWc it lies just so: a vector of outputs for each k.
"""

from __future__ import annotations

from collections.abc import Mapping

from secateur.codegen.emit.builder import KernelBuilder, const, even_tile, segments
from secateur.codegen.emit.types import Expr, Function
from secateur.codegen.kernels.conv.template import y_index
from secateur.codegen.kernels.post_ops.template import At, apply, operand_pointers
from secateur.codegen.plan.family import Template
from secateur.codegen.targets import Target

from .spec import MatmulSpec


def build(spec: MatmulSpec, choice: None, target: Target) -> Function:
    """The kernel ``(x, w, operands.., y)``."""
    k = KernelBuilder(spec.lanes, spec.threads)
    x, weights = k.pointer("x"), k.pointer("w")
    operands = operand_pointers(k, spec.post_ops)
    y = k.pointer("y")
    most = target.registers * 3 // 4
    width = min(spec.blocks, 4 if target.registers >= 32 else 2)
    high = even_tile(spec.w, max(1, most // width))

    def tile(image: Expr, row: Expr, block: Expr, nb: int, column: Expr, columns: int) -> None:
        accumulators = k.accumulators(columns * nb, k.splat(0.0))
        from_x = k.bind(image * spec.x.image + row * spec.x.row + column * spec.x.column, "int64")
        from_w = k.bind(image * spec.right.image + row * spec.right.row + block * spec.right.block, "int64")

        def products(index: Expr, at: Expr) -> None:
            first = k.bind(from_w + index * spec.right.column, "int64")
            vectors = [k.vector(k.load(weights, first + j * spec.right.block)) for j in range(nb)]
            for c in range(columns):
                wide = k.vector(k.splat(k.scalar(x, from_x + at + c * spec.x.column)))
                for j in range(nb):
                    k.add(accumulators[c * nb + j], wide * vectors[j])

        whole, rest = divmod(spec.k, spec.lanes)

        def some(b: Expr, count: int) -> None:
            k.loop(count, lambda i: products(b * spec.lanes + i, b * spec.x.block + i), name="i")

        k.loop(whole, lambda b: some(b, spec.lanes), name="kb")
        if rest:
            some(const(whole), rest)
        for c in range(columns):
            for j in range(nb):
                at = At(block + j, image, row, column + c)
                k.store(y, y_index(spec, at), apply(k, k.get(accumulators[c * nb + j]), spec.post_ops, operands, at))

    shared = spec.threads > 1
    many = spec.n * spec.h >= spec.threads

    def product(image: Expr, row: Expr) -> None:
        for b0, bcount, nb in segments(spec.blocks, width):

            def blocks(tb: Expr, b0: int = b0, nb: int = nb) -> None:
                for c0, ccount, columns in segments(spec.w, high):
                    k.loop(ccount, lambda tc: tile(image, row, b0 + tb * nb, nb, c0 + tc * columns, columns),  # noqa: B023
                           shared and not many, "ow")  # fmt: skip

            k.loop(bcount, blocks, name="co")

    k.loop(spec.n, lambda n: k.loop(spec.h, lambda h: product(n, h), shared and many and spec.h >= spec.n, "h"),
           shared and many and spec.h < spec.n, "n")  # fmt: skip
    return k.finish()


TEMPLATES: Mapping[type, Template] = {MatmulSpec: Template(build)}
