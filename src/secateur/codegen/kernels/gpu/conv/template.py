"""Convolutions and linear layers on planes: by tiles as an implicit matrix product, or without shared memory."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from secateur.codegen.emit.gpu.builder import GpuBuilder, div, each, flat, integer, mod
from secateur.codegen.emit.types import Expr, Function
from secateur.codegen.kernels.gpu.reductions import plus
from secateur.codegen.kernels.gpu.tile import Side, multiply, own_column, own_row
from secateur.codegen.plan.family import Template
from secateur.codegen.targets import Target

from .implicit import Implicit
from .operands import Conv, join
from .spec import GpuConvSpec, space
from .tiles import GpuConvChoice

REVISION = 2


def build(spec: GpuConvSpec, choice: GpuConvChoice, target: Target) -> Function:
    """The kernel ``(x, w, bias, [table], operands.., y, [parts])``."""
    return {"tile": _by_tiles, "direct": _direct, "sum": _sum}[choice.kind](spec, choice)


def joined(spec: GpuConvSpec, choice: GpuConvChoice, target: Target) -> Function | None:
    """The kernel of the same operands that adds the parts of each sum; None where sums are whole."""
    return None if choice.parts == 1 else join(spec, choice.parts)


def _by_tiles(spec: GpuConvSpec, choice: GpuConvChoice) -> Function:
    tile = Implicit(spec, choice, choice.depth, choice.depth)
    k = tile.k
    sides = Side(choice.outputs, tile.weights), Side(choice.pixels, tile.inputs)
    sums = multiply(k, choice, tile.several, *sides, tile.begin)

    def column(j: Expr) -> None:
        def rows(at: Expr) -> None:
            def row(i: Expr) -> None:
                tile.write(own_row(k, choice, i), at, k.load(sums, i * choice.columns + j))

            k.loop(choice.rows, row, unroll=True)

        tile.column(own_column(k, choice, j), rows)

    k.loop(choice.columns, column, unroll=True)
    return k.finish()


def _direct(spec: GpuConvSpec, choice: GpuConvChoice) -> Function:
    """Each work item all outputs of a group for one pixel: every input is read once, weights are the same for many."""
    k = flat(spec.groups * spec.pixels)
    conv = Conv(k, spec, parts=choice.parts)

    def one(i: Expr) -> None:
        group, pixel = k.bind(div(i, spec.pixels)), k.bind(mod(i, spec.pixels))
        first, sums = conv.first_tap(pixel), k.local(spec.co, 0.0)

        def channel(c: Expr) -> None:
            inputs = k.bind(group * spec.ci + c)
            begin = k.bind(conv.channel(inputs))

            def tap(t: Expr) -> None:
                inside, place = conv.tap(first, t)
                value = k.held(k.load_if(inside, conv.x, begin + place))
                weights = k.bind((inputs * spec.taps + t) * spec.co)
                k.loop(spec.co, lambda o: k.add(sums, o, value * k.load(conv.weight, weights + o)), unroll=True)

            k.loop(spec.taps, tap, "t", unroll=True)

        k.loop(spec.ci, channel, "c")
        k.loop(spec.co, lambda o: conv.write(k.bind(group * spec.co + o), pixel, k.load(sums, o)), unroll=True)

    each(k, spec.groups * spec.pixels, one)
    return k.finish()


def _sum(spec: GpuConvSpec, choice: GpuConvChoice) -> Function:
    """A group of work items for each output: they share its sum, over weights that follow each other."""
    k = GpuBuilder((spec.co,), choice.items)
    conv, output = Conv(k, spec, parts=choice.parts), k.group[0]
    sums = k.local(spec.pixels, 0.0)
    places = [
        n * spec.x.image + (r * spec.stride[0] - spec.pad[0]) * spec.x.row
        + (c * spec.stride[1] - spec.pad[1]) * spec.x.column
        for n in range(spec.n) for r in range(spec.h) for c in range(spec.w)
    ]  # fmt: skip

    def channel(c: Expr) -> None:
        weight, begin = k.held(k.load(conv.weight, output * spec.ci + c)), k.bind(conv.channel(c))
        for p, place in enumerate(places):
            k.add(sums, p, weight * k.load(conv.x, begin + place))

    k.strided(spec.ci, channel, "c")
    scratch = k.shared(k.items * spec.pixels)
    totals = k.combine_all([k.load(sums, p) for p in range(spec.pixels)], scratch, plus)

    def write() -> None:
        for p, total in enumerate(totals):
            conv.write(output, integer(p), total)

    k.branch(k.item == 0, write)
    return k.finish()


TEMPLATES: Mapping[type, Template] = MappingProxyType(
    {GpuConvSpec: Template(build, space, revision=REVISION, then=joined)}
)
