"""Convolutions and linear layers on planes: by tiles as an implicit matrix product, or without shared memory."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tvm import tirx

from secateur.codegen.emit.gpu.builder import GpuBuilder, div, each, flat, integer, mod
from secateur.codegen.emit.types import Expr, Function
from secateur.codegen.kernels.gpu.reductions import plus
from secateur.codegen.kernels.gpu.tile import Side, multiply, own_column, own_row
from secateur.codegen.plan.family import Template
from secateur.codegen.targets import Target

from .operands import Conv, every, join
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
    wide = -(-spec.co // choice.outputs)
    k = GpuBuilder((-(-spec.pixels // choice.pixels), wide, spec.groups * choice.parts), choice.items)
    conv, depth, count = Conv(k, spec, parts=choice.parts), choice.depth, spec.slices(choice.depth)
    group, part = k.bind(div(k.group[2], choice.parts)), k.bind(mod(k.group[2], choice.parts))
    first_output, first_pixel = k.group[1] * choice.outputs, k.group[0] * choice.pixels
    lanes = wide * choice.outputs
    # The last pixels of a tile that hangs over are computed like the last one, and not written.
    pixel = k.bind(tirx.min(first_pixel + mod(k.item, choice.pixels), spec.pixels - 1))
    first = conv.first_tap(pixel)
    from_weights = k.bind(group * (count * depth * lanes) + first_output)

    def weights(s: Expr, row: Expr, output: Expr) -> Expr:
        return k.load(conv.weight, from_weights + (s * depth + row) * lanes + output)

    def inputs(s: Expr, row: Expr, _: Expr) -> Expr:
        if spec.by_tap(depth):
            blocks = -(-spec.ci // depth)
            channel, tap = k.bind(mod(s, blocks) * depth + row), div(s, blocks)
            checks = [channel < spec.ci] if spec.ci % depth else []
        else:
            at = k.bind(s * depth + row)
            channel, tap = k.bind(div(at, spec.taps)), mod(at, spec.taps)
            checks = [at < spec.ci * spec.taps] if spec.ci * spec.taps % depth else []
        inside, place = conv.tap(first, tap)
        checks += [] if inside is None else [inside]
        return k.load_if(every(checks), conv.x, conv.channel(group * spec.ci + channel) + place)

    own = -(-count // choice.parts)  # the last part may have fewer slices
    several = own if count % choice.parts == 0 else k.bind(tirx.min(integer(own), count - part * own))
    sums = multiply(k, choice, several, Side(choice.outputs, weights), Side(choice.pixels, inputs), part * own)

    def column(j: Expr) -> None:
        at = k.bind(first_pixel + own_column(k, choice, j))

        def row(i: Expr) -> None:
            output = k.bind(first_output + own_row(k, choice, i))
            value = k.load(sums, i * choice.columns + j)
            k.branch(output < spec.co if spec.co % choice.outputs else None,
                     lambda: conv.write(k.bind(group * spec.co + output), at, value, part))  # fmt: skip

        k.branch(at < spec.pixels if spec.pixels % choice.pixels else None,
                 lambda: k.loop(choice.rows, row, unroll=True))  # fmt: skip

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
