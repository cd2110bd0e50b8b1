"""Convolutions and linear layers on planes: by tiles as an implicit matrix product, or without shared memory."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tvm import tirx

from secateur.codegen.emit.gpu.builder import GpuBuilder, Pointer, div, each, flat, integer, mod
from secateur.codegen.emit.types import Expr, Function
from secateur.codegen.kernels.gpu.post_ops import Operand, apply, operands, position
from secateur.codegen.kernels.gpu.reductions import plus
from secateur.codegen.kernels.gpu.tile import Side, multiply, own_column, own_row
from secateur.codegen.plan.family import Template
from secateur.codegen.targets import Target

from .packing import by_tap, slices
from .space import space
from .spec import GpuConvChoice, GpuConvSpec

REVISION = 2


def build(spec: GpuConvSpec, choice: GpuConvChoice, target: Target) -> Function:
    """The kernel ``(x, w, bias, [table], operands.., y, [parts])``."""
    return {"tile": _by_tiles, "direct": _direct, "sum": _sum}[choice.kind](spec, choice)


def join(spec: GpuConvSpec, choice: GpuConvChoice, target: Target) -> Function | None:
    """The kernel of the same operands that adds the parts of each sum, in order; None where sums are whole."""
    if choice.parts == 1:
        return None
    k = flat(spec.outputs)
    conv = _Conv(k, spec, choice)

    def one(i: Expr) -> None:
        assert conv.parts is not None
        total = k.local(1, k.load(conv.parts, i))
        for part in range(1, choice.parts):
            k.add(total, 0, k.load(conv.parts, part * spec.outputs + i))
        conv.write(k.bind(div(i, spec.pixels)), k.bind(mod(i, spec.pixels)), k.load(total, 0))

    each(k, spec.outputs, one)
    return k.finish()


class _Conv:
    """Operands, and where inputs lie."""

    def __init__(self, k: GpuBuilder, spec: GpuConvSpec, choice: GpuConvChoice) -> None:
        self.k, self.spec = k, spec
        self.x, self.weight, self.bias = k.pointer("x"), k.pointer("w"), k.pointer("bias")
        self.table: Pointer | None = k.pointer("table", "int32") if spec.table else None
        self.pointers: list[Operand] = operands(k, spec.post_ops)
        self.y = k.pointer("y")
        self.parts: Pointer | None = k.pointer("parts") if choice.parts > 1 else None

    def channel(self, c: Expr) -> Expr:
        """Where an input channel begins."""
        return c * self.spec.x.block if self.table is None else self.k.load(self.table, c)

    def first_tap(self, pixel: Expr) -> tuple[Expr, Expr, Expr]:
        """Of an output pixel: where its image begins, and row and column of its first tap."""
        k, spec = self.k, self.spec
        at = position(k, spec, integer(0), pixel)
        top, left = at.row * spec.stride[0] - spec.pad[0], at.column * spec.stride[1] - spec.pad[1]
        return k.bind(at.image * spec.x.image), k.bind(top), k.bind(left)

    def tap(self, first: tuple[Expr, Expr, Expr], tap: Expr) -> tuple[Expr | None, Expr]:
        """Whether a tap lies in the input (None: all do), and where in a channel."""
        k, spec = self.k, self.spec
        image, top, left = first
        row = k.bind(top + div(tap, spec.kernel[1]) * spec.dilation[0])
        column = k.bind(left + mod(tap, spec.kernel[1]) * spec.dilation[1])
        above, below, before, after = spec.checks
        checks = [
            *([row >= 0] if above else []), *([row < spec.size[0]] if below else []),
            *([column >= 0] if before else []), *([column < spec.size[1]] if after else []),
        ]  # fmt: skip
        place = k.bind(image + row * spec.x.row + column * spec.x.column)
        return _all(checks), place

    def write(self, output: Expr, pixel: Expr, value: Expr) -> None:
        """Bias, what comes after, and the store."""
        at = position(self.k, self.spec, output, pixel)
        done = apply(self.k, value + self.k.load(self.bias, output), self.spec.post_ops, self.pointers, at)
        self.k.store(self.y, at.place(self.spec.y), done)


def _all(checks: list[Expr]) -> Expr | None:
    return tirx.all(*checks) if len(checks) > 1 else checks[0] if checks else None


def _by_tiles(spec: GpuConvSpec, choice: GpuConvChoice) -> Function:
    wide = -(-spec.co // choice.outputs)
    k = GpuBuilder((-(-spec.pixels // choice.pixels), wide, spec.groups * choice.parts), choice.items)
    conv, depth, count = _Conv(k, spec, choice), choice.depth, slices(spec, choice.depth)
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
        if by_tap(spec, depth):
            blocks = -(-spec.ci // depth)
            channel, tap = k.bind(mod(s, blocks) * depth + row), div(s, blocks)
            checks = [channel < spec.ci] if spec.ci % depth else []
        else:
            at = k.bind(s * depth + row)
            channel, tap = k.bind(div(at, spec.taps)), mod(at, spec.taps)
            checks = [at < spec.ci * spec.taps] if spec.ci * spec.taps % depth else []
        inside, place = conv.tap(first, tap)
        checks += [] if inside is None else [inside]
        return k.load_if(_all(checks), conv.x, conv.channel(group * spec.ci + channel) + place)

    own = -(-count // choice.parts)  # slices of a part; the last may have fewer
    several = own if count % choice.parts == 0 else k.bind(tirx.min(integer(own), count - part * own))
    sums = multiply(k, choice, several, Side(choice.outputs, weights), Side(choice.pixels, inputs), part * own)

    def write(output: Expr, pixel: Expr, value: Expr) -> None:
        if conv.parts is None:
            conv.write(output, pixel, value)
        else:
            k.store(conv.parts, part * spec.outputs + output * spec.pixels + pixel, value)

    def column(j: Expr) -> None:
        at = k.bind(first_pixel + own_column(k, choice, j))

        def row(i: Expr) -> None:
            output = k.bind(first_output + own_row(k, choice, i))
            value = k.load(sums, i * choice.columns + j)
            k.branch(output < spec.co if spec.co % choice.outputs else None,
                     lambda: write(k.bind(group * spec.co + output), at, value))  # fmt: skip

        k.branch(at < spec.pixels if spec.pixels % choice.pixels else None,
                 lambda: k.loop(choice.rows, row, unroll=True))  # fmt: skip

    k.loop(choice.columns, column, unroll=True)
    return k.finish()


def _direct(spec: GpuConvSpec, choice: GpuConvChoice) -> Function:
    """Each work item all outputs of a group for one pixel: every input is read once, weights are the same for many."""
    k = flat(spec.groups * spec.pixels)
    conv = _Conv(k, spec, choice)

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
    conv, output = _Conv(k, spec, choice), k.group[0]
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
    scratch = k.shared(k.items)
    totals = [k.combine(k.load(sums, p), scratch, plus) for p in range(spec.pixels)]

    def write() -> None:
        for p, total in enumerate(totals):
            conv.write(output, integer(p), total)

    k.branch(k.item == 0, write)
    return k.finish()


TEMPLATES: Mapping[type, Template] = MappingProxyType(
    {GpuConvSpec: Template(build, space, revision=REVISION, then=join)}
)
