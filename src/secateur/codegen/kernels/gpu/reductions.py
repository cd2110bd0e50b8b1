"""Reductions: over all pixels of a channel, along the channels of a pixel, and the moments of group norm.

A group of work items shares one reduction and joins its parts by halves; where there are many pixels to reduce over the
channels of, each work item does one by itself, and neighbours read neighbouring numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from tvm import tirx

from secateur.codegen.emit.gpu.builder import LEAST, GpuBuilder, div, integer, mod, number
from secateur.codegen.emit.types import Buffer, Expr, Function
from secateur.codegen.kernels.elementwise.spec import MeanSpec
from secateur.codegen.kernels.norms.spec import GroupNormSpec, MomentSpec
from secateur.codegen.kernels.rows.spec import RowSpec
from secateur.codegen.plan.family import Template
from secateur.codegen.targets import Target

from .post_ops import At, apply, base, operands, position

MANY = 256  # pixels: from there on each work item reduces the channels of one
Join = Callable[[Expr, Expr], Expr]


def plus(a: Expr, b: Expr) -> Expr:
    """The sum."""
    return a + b


def team(size: int) -> int:
    """Work items that share a reduction of so many numbers: a power of 2."""
    return min(128, max(32, 1 << (size - 1).bit_length()))


def build_mean(spec: MeanSpec, choice: None, target: Target) -> Function:
    """The kernel ``(x, [table], operands.., y)``: mean, sum or max over the pixels of each channel and image."""
    pixels, best = spec.h * spec.w, spec.kind == "max"
    k = GpuBuilder((spec.blocks, spec.n), team(pixels))
    x = k.pointer("x")
    table = k.pointer("table", "int32") if spec.table else None
    pointers = operands(k, spec.post_ops)
    y = k.pointer("y")
    channel, image = k.group[0], k.group[1]
    begin = k.bind(base(k, table, channel, spec.x.block) + image * spec.x.image)
    total = k.local(1, LEAST if best else 0.0)
    join: Join = tirx.max if best else plus

    def one(p: Expr) -> None:
        value = k.load(x, begin + div(p, spec.w) * spec.x.row + mod(p, spec.w) * spec.x.column)
        k.store(total, 0, join(k.load(total, 0), value))

    k.strided(pixels, one, "p")
    found = k.combine(k.load(total, 0), k.shared(k.items), join)
    at = At(channel, image, integer(0), integer(0))

    def write() -> None:
        value = found * number(1.0 / pixels) if spec.kind == "mean" else found
        k.store(y, at.place(spec.y), apply(k, value, spec.post_ops, pointers, at))

    k.branch(k.item == 0, write)
    return k.finish()


class _Rows:
    """Along the channels of each pixel, ``share`` work items a pixel: all of a group, or one."""

    def __init__(self, spec: RowSpec) -> None:
        self.spec, pixels = spec, spec.n * spec.h * spec.w
        self.alone = pixels >= MANY
        items = 64 if self.alone else team(spec.width)
        self.k = k = GpuBuilder((-(-pixels // items) if self.alone else pixels,), items)
        self.x = k.pointer("x")
        self.table = k.pointer("table", "int32") if spec.table else None
        self.pointers = operands(k, spec.post_ops)
        self.y = k.pointer("y")
        self.scratch = None if self.alone else k.shared(items)
        pixel = k.bind(k.group[0] * items + k.item) if self.alone else k.group[0]
        # Work items past the last pixel compute the last one's as well, and write nothing.
        self.real = pixel < pixels if self.alone and pixels % items else None
        self.at = position(k, spec, integer(0), pixel if self.real is None else k.bind(tirx.min(pixel, pixels - 1)))

    def value(self, channel: Expr) -> Expr:
        """What is read of a channel."""
        begin = base(self.k, self.table, channel, self.spec.x.block)
        return self.k.load(self.x, begin + self.at.pixel(self.spec.x))

    def channels(self, body: Callable[[Expr], None]) -> None:
        """``body`` for each channel, shared among those that work on the pixel."""
        if self.alone:
            self.k.loop(self.spec.width, body, "c")
        else:
            self.k.strided(self.spec.width, body, "c")

    def reduced(self, of: Callable[[Expr], Expr], start: float, join: Join) -> Expr:
        """Something of all channels, joined."""
        k, total = self.k, self.k.local(1, start)
        self.channels(lambda c: k.store(total, 0, join(k.load(total, 0), of(self.value(c)))))
        return k.load(total, 0) if self.scratch is None else k.combine(k.load(total, 0), self.scratch, join)

    def write(self, channel: Expr, value: Expr) -> None:
        """What comes after, and the store."""
        at = At(channel, self.at.image, self.at.row, self.at.column)
        done = apply(self.k, value, self.spec.post_ops, self.pointers, at)
        self.k.store(self.y, at.place(self.spec.y), done)

    def each(self, of: Callable[[Expr], Expr]) -> None:
        """Write something of every channel."""
        self.k.branch(self.real, lambda: self.channels(lambda c: self.write(c, of(self.value(c)))))

    def single(self, value: Expr) -> None:
        """Write the pixel's only number."""
        first = None if self.alone else self.k.item == 0
        checks = [c for c in (self.real, first) if c is not None]
        self.k.branch(checks[0] if checks else None, lambda: self.write(integer(0), value))

    def build(self) -> Function:
        """The kernel of the spec's kind."""
        spec, k = self.spec, self.k
        share = number(1.0 / spec.width)
        if spec.kind in ("softmax", "log_softmax"):
            top = self.reduced(lambda x: x, LEAST, tirx.max)
            total = self.reduced(lambda x: tirx.exp(x - top), 0.0, plus)
            if spec.kind == "softmax":
                self.each(lambda x: tirx.exp(x - top) / total)
            else:
                log = k.held(tirx.log(total))
                self.each(lambda x: x - top - log)
        elif spec.kind in ("layer_norm", "rms_norm"):
            mean = number(0.0) if spec.kind == "rms_norm" else k.held(self.reduced(lambda x: x, 0.0, plus) * share)
            square = self.reduced(lambda x: (x - mean) * (x - mean), 0.0, plus)
            scale = k.held(number(1.0) / tirx.sqrt(square * share + number(spec.eps)))
            self.each(lambda x: (x - mean) * scale)
        elif spec.kind == "reduce_max":
            self.single(self.reduced(lambda x: x, LEAST, tirx.max))
        else:
            total = self.reduced(lambda x: x, 0.0, plus)
            self.single(total * share if spec.kind == "reduce_mean" else total)
        return k.finish()


def build_rows(spec: RowSpec, choice: None, target: Target) -> Function:
    """The kernel ``(x, [table], operands.., y)``."""
    return _Rows(spec).build()


def build_moments(spec: MomentSpec, choice: None, target: Target) -> Function:
    """The kernel ``(x, [table], y)``: mean and variance of each channel and image, in two passes."""
    pixels = spec.h * spec.w
    k = GpuBuilder((spec.blocks, spec.n), team(pixels))
    x = k.pointer("x")
    table = k.pointer("table", "int32") if spec.table else None
    y = k.pointer("y")
    channel, image = k.group[0], k.group[1]
    begin = k.bind(base(k, table, channel, spec.x.block) + image * spec.x.image)
    scratch = k.shared(k.items)

    def mean(of: Callable[[Expr], Expr]) -> Expr:
        total = k.local(1, 0.0)

        def one(p: Expr) -> None:
            k.add(total, 0, of(k.load(x, begin + div(p, spec.w) * spec.x.row + mod(p, spec.w) * spec.x.column)))

        k.strided(pixels, one, "p")
        return k.held(k.combine(k.load(total, 0), scratch, plus) * number(1.0 / pixels))

    middle = mean(lambda v: v)
    spread = mean(lambda v: (v - middle) * (v - middle))

    def write() -> None:
        at = k.bind((image * spec.blocks + channel) * 2)
        k.store(y, at, middle)
        k.store(y, at + 1, spread)

    k.branch(k.item == 0, write)
    return k.finish()


def build_group(spec: GroupNormSpec, choice: None, target: Target) -> Function:
    """The kernel ``(moments, places, targets, weight, bias, y)``: one group of channels of an image a group."""
    per = spec.channels // spec.groups
    k = GpuBuilder((spec.groups, spec.n), min(32, team(per)))
    moments, places = k.pointer("moments"), k.pointer("places", "int32")
    targets = k.pointer("targets", "int32")
    weight, bias, y = k.pointer("weight"), k.pointer("bias"), k.pointer("y")
    scratch = k.shared(k.items)
    first, begin = k.bind(k.group[0] * per), k.bind(k.group[1] * (spec.blocks * 2))

    def mean(of: Callable[[Expr], Expr]) -> Expr:
        total = k.local(1, 0.0)
        k.strided(per, lambda c: k.add(total, 0, of(begin + k.load(places, first + c))), "c")
        return k.held(k.combine(k.load(total, 0), scratch, plus) * number(1.0 / per))

    middle = mean(lambda at: k.load(moments, at))

    def spread(at: Expr) -> Expr:
        away: Buffer = k.held(k.load(moments, at) - middle)
        return k.load(moments, at + 1) + away * away

    scale = k.held(number(1.0) / tirx.sqrt(mean(spread) + number(spec.eps)))

    def write(c: Expr) -> None:
        at = k.bind(k.load(targets, first + c) + k.group[1])
        factor = k.held(scale * k.load(weight, first + c))
        k.store(y, at, factor)
        k.store(y, at + spec.blocks * spec.n, k.load(bias, first + c) - middle * factor)

    k.strided(per, write, "c")
    return k.finish()


TEMPLATES: Mapping[type, Template] = MappingProxyType(
    {
        MeanSpec: Template(build_mean),
        RowSpec: Template(build_rows),
        MomentSpec: Template(build_moments),
        GroupNormSpec: Template(build_group),
    }
)
