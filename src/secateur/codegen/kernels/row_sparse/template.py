"""Linear layers on a few pixels with zeros: a vector of rows after the other, each by all pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from secateur.codegen.emit.builder import INT, KernelBuilder
from secateur.codegen.emit.types import Expr, Function
from secateur.codegen.kernels.arrays import random_floats, reach, written
from secateur.codegen.kernels.conv.template import x_index, y_index
from secateur.codegen.kernels.post_ops.template import At, apply, operand_pointers
from secateur.codegen.plan.family import Arrays, Template
from secateur.codegen.plan.tensors import Floats, Ints
from secateur.codegen.targets import Target

from .packing import keep_rows
from .products import RowProducts, Shape
from .spec import RowSparseChoice, RowSparseSpec

CONSTANTS = 8  # weights, tables and the bias


def build(spec: RowSparseSpec, choice: RowSparseChoice, target: Target) -> Function:
    """The kernel ``(x, r, units, starts, place, own, words, edges, bias, scratch, operands.., y)``."""
    k = KernelBuilder(spec.lanes)
    x = k.pointer("x")
    rows = RowProducts(k, Shape(spec.blocks, spec.ci, spec.x.block, spec.powers, choice.sums), target.permute)
    bias, scratch = k.pointer("bias"), k.pointer("scratch")
    operands = operand_pointers(k, spec.post_ops)
    y = k.pointer("y")

    def pixels(body: Callable[[Expr, Expr, Expr, Expr], None]) -> None:
        """``body(image, row, column, where its products begin)``."""

        def one(n: Expr, i: Expr, j: Expr) -> None:
            body(n, i, j, k.bind(((n * spec.h + i) * spec.w + j) * (spec.blocks * spec.lanes), INT))

        k.loop(spec.n, lambda n: k.loop(spec.h, lambda i: k.loop(
            spec.w, lambda j: one(n, i, j), name="w"), name="h"), name="n")  # fmt: skip

    def inputs(body: Callable[[Expr, Expr], None]) -> None:
        pixels(lambda n, i, j, to: body(k.bind(x_index(spec, n, i, j), INT), to))

    def write(n: Expr, i: Expr, j: Expr, to: Expr) -> None:
        def block(b: Expr) -> None:
            at = At(b, n, i, j)
            total = k.vector(rows.product(scratch, to, b) + k.load(bias, b * spec.lanes))
            k.store(y, y_index(spec, at), apply(k, total, spec.post_ops, operands, at))

        k.loop(spec.blocks, block, name="b")

    rows.multiply(x, scratch, inputs)
    pixels(write)
    return k.finish()


def space(spec: RowSparseSpec, target: Target) -> Iterator[RowSparseChoice]:
    """The choices worth trying, the default first."""
    for sums in (4, 8, 2):
        yield RowSparseChoice(sums)


def arrays(spec: RowSparseSpec, target: Target) -> Arrays:
    """Arguments to time the kernel on: rows of each power with a weight anywhere in each of their blocks."""
    kept = keep_rows(*_random(spec))
    tables = [kept.unit // spec.lanes * spec.x.block + kept.unit % spec.lanes, kept.starts, kept.place]
    own = kept.powers
    units, starts, place, words, edges = (np.append(t, 0).astype(np.int32) for t in (*tables, own.words, own.starts))
    size = -(-spec.ci // spec.lanes) * spec.x.block + reach(spec)
    weights = [random_floats(max(spec.lanes, each.weight.size)) for each in (kept, own)]
    room = random_floats(spec.pixels * spec.blocks * spec.lanes)
    return [random_floats(size), weights[0], units, starts, place, weights[1], words, edges,
            random_floats(spec.blocks * spec.lanes), room, random_floats(written(spec))], 0  # fmt: skip


def _random(spec: RowSparseSpec) -> tuple[Floats, int, Mapping[int, Ints]]:
    """Weights, lanes, and the rows of each power."""
    rng, v = np.random.default_rng(0), spec.lanes
    r = (rng.random((spec.blocks * v, spec.ci)) < spec.percent / 100).astype(np.float32)
    chosen, first = dict[int, Ints](), 0
    for how, count in spec.counts():
        rows = chosen[how.power] = np.arange(first * v, (first + count) * v)
        starts = np.arange(how.vectors) << how.power
        room = np.minimum(1 << how.power, spec.ci - starts)
        r[rows] = 0
        r[rows[:, None], starts + (rng.random((len(rows), how.vectors)) * room).astype(np.int64)] = 1
        first += count
    return r, v, chosen


TEMPLATES = {RowSparseSpec: Template(build, space, arrays, constants=CONSTANTS)}
