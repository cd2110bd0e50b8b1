"""Convolutions by tensor cores: the tiles of the float32 kernel, of words, each warp's product by small matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from secateur.codegen.emit.gpu.builder import div, mod
from secateur.codegen.emit.gpu.fragments import exchange, mma, word
from secateur.codegen.emit.gpu.matrices import COLUMNS, DEPTH, JOINED, LEFT, RIGHT, ROWS, SUMS, WARP
from secateur.codegen.emit.types import Buffer, Expr, Function
from secateur.codegen.kernels.gpu.conv.implicit import Implicit
from secateur.codegen.kernels.gpu.conv.operands import join
from secateur.codegen.kernels.gpu.tile import Side, through
from secateur.codegen.plan.family import Template
from secateur.codegen.targets import Target

from .spec import (
    GAP,
    WORDS,
    F16ConvSpec,
    MmaChoice,
    MmaConvSpec,
    SparseF16ConvSpec,
    SparseTf32ConvSpec,
    Tf32ConvSpec,
    space,
)


def build(spec: MmaConvSpec, choice: MmaChoice, target: Target) -> Function:
    """The kernel ``(x, w, bias, [table], operands.., y, [parts])``."""
    dtype = next(name for name, joined in JOINED.items() if joined == spec.joined)
    tile, sparse = Implicit(spec, choice, spec.depth, spec.rows), spec.pruned > 1
    k, rows, columns, right = tile.k, choice.rows, choice.columns, RIGHT * spec.pruned
    warp, lane = k.bind(div(k.item, WARP)), k.bind(mod(k.item, WARP))
    g, t = k.bind(div(lane, 4)), k.bind(mod(lane, 4))
    top, left = k.bind(div(warp, choice.across) * (rows * ROWS)), k.bind(mod(warp, choice.across) * (columns * COLUMNS))
    sums = k.local(rows * columns * SUMS, 0.0)
    lefts, rights, wheres = k.local(rows * LEFT), k.local(columns * right), k.local(rows)
    between = exchange(k, target.triple == "cuda", sparse)
    sides = (
        Side(choice.outputs, tile.weights, gap=GAP, rows=spec.rows),
        Side(choice.pixels, tile.inputs, joined=spec.joined, join=lambda *x: word(dtype, *x), gap=GAP),
    )

    def step(halves: Sequence[Buffer], starts: Sequence[Expr], d: Expr) -> None:
        a = k.bind(starts[0] + (div(d, spec.pruned) + t) * sides[0].pitch + top + g)
        b = k.bind(starts[1] + (d + t) * sides[1].pitch + left + g)
        for m in range(rows):
            for i in range(LEFT):
                at = a + i // 2 * 4 * sides[0].pitch + m * ROWS + i % 2 * 8
                k.store(lefts, m * LEFT + i, k.load(halves[0], at))
            if sparse:  # lanes 0 and 1 of four are asked for it
                at = starts[0] + (spec.rows - 1) * sides[0].pitch + top + m * ROWS + g * 2 + mod(t, 2)
                k.store(wheres, m, k.load(halves[0], at))
        for n in range(columns):
            for i in range(right):
                k.store(rights, n * right + i, k.load(halves[1], b + i * 4 * sides[1].pitch + n * COLUMNS))
        for m in range(rows):
            for n in range(columns):
                mma(k, dtype, sums, (m * columns + n) * SUMS, [k.load(lefts, m * LEFT + i) for i in range(LEFT)],
                    [k.load(rights, n * right + i) for i in range(right)], between,
                    k.load(wheres, m) if sparse else None)  # fmt: skip

    through(k, WORDS, tile.several, sides, step, tile.begin, DEPTH * spec.pruned)

    def column(n: int, side: int) -> None:
        def outputs(at: Expr) -> None:
            for m in range(rows):
                for below in range(2):
                    value = k.load(sums, (m * columns + n) * SUMS + below * 2 + side)
                    tile.write(top + (m * ROWS + below * 8) + g, at, value)

        tile.column(left + n * COLUMNS + t * 2 + side, outputs)

    for n in range(columns):
        for side in range(2):
            column(n, side)
    return k.finish()


def joined(spec: MmaConvSpec, choice: MmaChoice, target: Target) -> Function | None:
    """The kernel of the same operands that adds the parts of each sum; None where sums are whole."""
    return None if choice.parts == 1 else join(spec, choice.parts)


TEMPLATES: Mapping[type, Template] = MappingProxyType(
    {
        kind: Template(build, space, then=joined)
        for kind in (Tf32ConvSpec, F16ConvSpec, SparseTf32ConvSpec, SparseF16ConvSpec)
    }
)
