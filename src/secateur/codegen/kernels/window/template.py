"""Depthwise convolution, groups of two or four, and pooling: the channels are the vector, the outputs of a tile are in
registers.

An input vector is loaded once and given to every output of the tile that it belongs to. Several narrow groups lie in a
vector: each channel in turn is spread over the lanes of its group. Pools know at build time which taps lie outside of
the input, so they need no halo and no comparison at run time.
"""

from __future__ import annotations

import numpy as np
from tvm import tirx

from secateur.codegen.emit.builder import KernelBuilder, even_tile
from secateur.codegen.emit.types import Buffer, Expr, Function
from secateur.codegen.kernels.arrays import random_floats, reach, written
from secateur.codegen.kernels.conv.template import y_index
from secateur.codegen.kernels.post_ops.template import At, apply, block_base, operand_pointers
from secateur.codegen.plan.family import Arrays, Template
from secateur.codegen.targets import Target

from .spec import LARGEST, WindowChoice, WindowSpec, copies_of_bias

REVISION = 3  # raise it with every change of the code or the space: tuning records of before are then not used
WEIGHTS = 9  # registers that hold weights, at most
Segment = tuple[int, int, int, int, int]  # first output, tiles, outputs in a tile, first tap, end tap


def build(spec: WindowSpec, choice: WindowChoice, target: Target) -> Function:
    """The kernel ``(x, [w, bias], [table], operands.., y)``."""
    k = KernelBuilder(spec.lanes, spec.threads)
    x = k.pointer("x")
    w = k.pointer("w") if spec.kind == "conv" else None
    bias = k.pointer("bias") if spec.kind == "conv" else None
    table = k.pointer("table", "int32") if spec.table else None
    operands = operand_pointers(k, spec.post_ops)
    y = k.pointer("y")
    rows_of = axis_segments(spec, 0, choice.rows)
    columns_of = axis_segments(spec, 1, choice.columns)
    taps = spec.kernel[0] * spec.kernel[1]
    copies = copies_of_bias(target)
    # Larger inputs come from beyond the second cache, and the rows below a tile are fetched early.
    far = target.ahead > 0 and spec.n * spec.blocks * spec.size[0] * spec.x.row * 4 > target.l2 // 2

    def one(block: Expr, image: Expr, tr: Expr, tc: Expr, rs: Segment, cs: Segment) -> None:
        row0, column0 = rs[0] + tr * rs[2], cs[0] + tc * cs[2]
        at0 = (
            block_base(k, table, block, spec.x.block) + image * spec.x.image
            + (row0 * spec.stride[0] - spec.pad[0]) * spec.x.row
            + (column0 * spec.stride[1] - spec.pad[1]) * spec.x.column
        )  # fmt: skip
        base = k.bind(at0, "int64")
        places = [(r, c) for r in range(rs[2]) for c in range(cs[2])]
        accumulators = dict(zip(places, _begun(k, spec, bias, block, len(places), copies), strict=True))
        for r in range(rs[2] * spec.stride[0] if far else 0):
            for c in range(cs[2] * spec.stride[1]):
                k.prefetch(x, base + ((rs[4] + r) * spec.x.row + (cs[3] + c) * spec.x.column))
        for (ih, iw), uses in _uses(spec, rs, cs).items():
            value = k.vector(k.load(x, base + (ih * spec.x.row + iw * spec.x.column)))
            for i in range(spec.group):
                wide = k.vector(_spread(spec, value, i)) if spec.group > 1 else value
                for r, c, tap in uses:
                    acc = accumulators[r, c]
                    if w is not None:
                        k.add(acc, wide * k.load(w, ((block * taps + tap) * spec.group + i) * spec.lanes))
                    elif spec.kind == "max":
                        k.set(acc, tirx.max(k.get(acc), value))
                    else:
                        k.add(acc, value)
        count = taps if spec.count_pad else (rs[4] - rs[3]) * (cs[4] - cs[3])
        for (r, c), acc in accumulators.items():
            at = At(block, image, row0 + r, column0 + c)
            value = k.get(acc) * k.splat(1.0 / count) if spec.kind == "avg" else k.get(acc)
            k.store(y, y_index(spec, at), apply(k, value, spec.post_ops, operands, at))

    def entry(block: Expr, image: Expr, parallel: bool) -> None:
        for rs in rows_of:

            def row(tr: Expr, rs: Segment = rs) -> None:
                for cs in columns_of:
                    k.loop(cs[1], lambda tc: one(block, image, tr, tc, rs, cs), name="ow")  # noqa: B023

            k.loop(rs[1], row, parallel, "oh")

    shared = spec.threads > 1
    wide = shared and spec.blocks >= 2 * spec.threads
    k.loop(spec.blocks, lambda b: k.loop(spec.n, lambda n: entry(b, n, shared and not wide)), wide, "c")
    return k.finish()


def _begun(
    k: KernelBuilder, spec: WindowSpec, bias: Buffer | None, block: Expr, count: int, copies: int
) -> list[Buffer]:
    """Sums before the first tap: their bias, from memory each where there are ``copies`` of it, or a constant."""
    if bias is None:
        return k.accumulators(count, k.splat(-3.4028234663852886e38 if spec.kind == "max" else 0.0))
    if copies == 1:
        return k.accumulators(count, k.vector(k.load(bias, block * spec.lanes)))
    sums = k.accumulators(count)
    for i, total in enumerate(sums):
        k.set(total, k.load(bias, (block * copies + i) * spec.lanes))
    return sums


def _spread(spec: WindowSpec, value: Expr, i: int) -> Expr:
    """Channel ``i`` of each group in all lanes of the group."""
    return KernelBuilder.shuffle([value], [lane // spec.group * spec.group + i for lane in range(spec.lanes)])


def _uses(spec: WindowSpec, rs: Segment, cs: Segment) -> dict[tuple[int, int], list[tuple[int, int, int]]]:
    """For each input pixel of a tile, in row-major order: (output row, output column, tap) it belongs to."""
    uses: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for kh in range(rs[3], rs[4]):
        for r in range(rs[2]):
            for kw in range(cs[3], cs[4]):
                for c in range(cs[2]):
                    place = (r * spec.stride[0] + kh * spec.dilation[0], c * spec.stride[1] + kw * spec.dilation[1])
                    uses.setdefault(place, []).append((r, c, kh * spec.kernel[1] + kw))
    return dict(sorted(uses.items()))


def axis_segments(spec: WindowSpec, axis: int, tile: int) -> list[Segment]:
    """Outputs along an axis in runs that have the same taps inside of the input, each run in tiles."""
    size = (spec.h, spec.w)[axis]
    valid = []
    for o in range(size):
        first = o * spec.stride[axis] - spec.pad[axis]
        inside = [t for t in range(spec.kernel[axis]) if 0 <= first + t * spec.dilation[axis] < spec.size[axis]]
        everything = spec.kind == "conv" or not inside
        valid.append((0, spec.kernel[axis]) if everything else (inside[0], inside[-1] + 1))
    runs: list[Segment] = []
    start = 0
    while start < size:
        end = start
        while end < size and valid[end] == valid[start]:
            end += 1
        length = end - start
        step = even_tile(length, tile)
        whole, rest = divmod(length, step)
        runs.append((start, whole, step, *valid[start]))
        if rest:
            runs.append((start + whole * step, 1, rest, *valid[start]))
        start = end
    return runs


def space(spec: WindowSpec, target: Target) -> list[WindowChoice]:
    """The tiles worth trying, the default first."""
    weights = min(spec.kernel[0] * spec.kernel[1], WEIGHTS) if spec.kind == "conv" else 0
    room = max(2, target.registers - weights - 3)
    tiles = [(1, 14), (2, 7), (1, 7), (1, 4), (2, 4), (4, 4), (1, 2)]
    tiles = tiles if spec.w >= 14 and spec.stride[1] == 1 else tiles[1:]
    fit = [WindowChoice(r, c) for r, c in tiles if r * c <= room and r <= spec.h]
    strided = spec.kind == "conv" and (spec.kernel, spec.stride) == ((3, 3), (2, 2))
    if target.by_lane and target.registers >= WEIGHTS + LARGEST + 2 and strided:
        # Two registers for what is read are enough where three rows share it: 85 of 100 slots instead of 84.
        fit = [WindowChoice(r, c) for r, c in [(3, 7)] if spec.h >= 14 and spec.w % c == 0] + fit
    return fit or [WindowChoice(1, 1)]


def arrays(spec: WindowSpec, target: Target) -> Arrays:
    """Arguments to time the kernel on, and where it begins in the first."""
    start = spec.pad[0] * spec.x.row + spec.pad[1] * spec.x.column
    x = random_floats(start + spec.blocks * spec.x.block + reach(spec))
    weights = []
    if spec.kind == "conv":
        taps = spec.kernel[0] * spec.kernel[1]
        biases = random_floats(spec.blocks * spec.lanes * copies_of_bias(target))
        weights = [random_floats(spec.blocks * taps * spec.group * spec.lanes), biases]
    blocks = (np.arange(spec.blocks) * spec.x.block + start).astype(np.int32)
    table = [blocks] if spec.table else []
    return [x, *weights, *table, random_floats(written(spec))], 0 if spec.table else start


TEMPLATES = {WindowSpec: Template(build, space, arrays, REVISION)}
