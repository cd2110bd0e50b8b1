"""Group norm in two kernels and an element-wise third: moments of each channel, then scale and shift of each group."""

from __future__ import annotations

from collections.abc import Mapping

from tvm import tirx

from secateur.codegen.emit.builder import KernelBuilder, number, segments
from secateur.codegen.emit.types import Buffer, Expr, Function
from secateur.codegen.kernels.post_ops.template import block_base
from secateur.codegen.plan.family import Template
from secateur.codegen.targets import Target

from .spec import GroupNormSpec, MomentSpec


def build_moments(spec: MomentSpec, choice: None, target: Target, width: int = 4) -> Function:
    """The kernel ``(x, [table], y)``: per image and block the means of the lanes, then their variances.

    In one pass: sums of the differences from the channel's first pixel, which is about as far from the mean as any.
    """
    k = KernelBuilder(spec.lanes, spec.threads)
    x = k.pointer("x")
    table = k.pointer("table", "int32") if spec.table else None
    y = k.pointer("y")
    wide = min(width, spec.w)

    def one(block: Expr, image: Expr) -> None:
        base = k.bind(block_base(k, table, block, spec.x.block) + image * spec.x.image, "int64")
        first = k.vector(k.load(x, base))
        sums, squares = (k.accumulators(wide, k.splat(0.0)) for _ in range(2))

        def row(r: Expr) -> None:
            for start, count, tile in segments(spec.w, wide):

                def some(t: Expr, start: int = start, tile: int = tile) -> None:
                    for c in range(tile):
                        at = base + r * spec.x.row + (start + t * tile + c) * spec.x.column
                        value = k.vector(k.load(x, at) - first)
                        k.add(sums[c], value)
                        k.add(squares[c], value * value)

                k.loop(count, some, name="w")

        k.loop(spec.h, row, name="h")
        share = k.splat(1.0 / (spec.h * spec.w))
        mean, square = (k.vector(_total(k, parts) * share) for parts in (sums, squares))
        at = (image * spec.blocks + block) * (2 * spec.lanes)
        k.store(y, at, first + mean)
        k.store(y, at + spec.lanes, tirx.max(square - mean * mean, k.splat(0.0)))

    shared = spec.threads > 1 and spec.blocks >= spec.threads
    k.loop(spec.blocks, lambda b: k.loop(spec.n, lambda n: one(b, n), name="n"), shared, "c")
    return k.finish()


def _total(k: KernelBuilder, parts: list[Buffer]) -> Expr:
    total = k.get(parts[0])
    for part in parts[1:]:
        total = total + k.get(part)
    return total


def build_group(spec: GroupNormSpec, choice: None, target: Target) -> Function:
    """The kernel ``(moments, places, targets, weight, bias, y)``: scales, then shifts, [block, image, lane] each.

    ``places`` and ``targets`` say where an image's mean of each channel is and where its scale goes. They, ``weight``
    and ``bias`` are in the order of the groups.
    """
    k = KernelBuilder(1)
    moments, places = k.pointer("moments"), k.pointer("places", "int32")
    targets = k.pointer("targets", "int32")
    weight, bias, y = k.pointer("weight"), k.pointer("bias"), k.pointer("y")
    per, lanes = spec.channels // spec.groups, spec.lanes
    if spec.channels < spec.blocks * lanes:  # lanes that hold nothing
        k.loop(2 * spec.n * spec.blocks * lanes, lambda i: k.store_scalar(y, i, number(0.0)))

    def group(n: Expr, g: Expr) -> None:
        base = n * (spec.blocks * 2 * lanes)

        def place(c: Expr) -> Expr:
            return base + k.scalar(places, g * per + c).astype("int64")

        mean, var = k.accumulators(1, number(0.0))[0], k.accumulators(1, number(0.0))[0]
        k.loop(per, lambda c: k.add(mean, k.scalar(moments, place(c))), name="c")
        k.set(mean, k.get(mean) * number(1.0 / per))

        def spread(c: Expr) -> None:
            away = k.vector(k.scalar(moments, place(c)) - k.get(mean))
            k.add(var, k.scalar(moments, place(c) + lanes) + away * away)

        k.loop(per, spread, name="c")
        scale = k.vector(number(1.0) / tirx.sqrt(k.get(var) * number(1.0 / per) + number(spec.eps)))

        def write(c: Expr) -> None:
            at = k.scalar(targets, g * per + c).astype("int64") + n * lanes
            factor = k.vector(scale * k.scalar(weight, g * per + c))
            k.store_scalar(y, at, factor)
            k.store_scalar(y, at + spec.blocks * spec.n * lanes,
                           k.scalar(bias, g * per + c) - k.get(mean) * factor)  # fmt: skip

        k.loop(per, write, name="c")

    k.loop(spec.n, lambda n: k.loop(spec.groups, lambda g: group(n, g), name="g"), name="n")
    return k.finish()


TEMPLATES: Mapping[type, Template] = {MomentSpec: Template(build_moments), GroupNormSpec: Template(build_group)}
