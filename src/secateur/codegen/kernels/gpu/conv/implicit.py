"""A convolution as an implicit product of matrices by tiles: what is read of both, and what is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tvm import tirx

from secateur.codegen.emit.gpu.builder import GpuBuilder, div, integer, mod
from secateur.codegen.emit.types import Expr

from .operands import Conv, every
from .spec import GpuConvSpec


class Tiling(Protocol):
    """How outputs and pixels are shared among groups."""

    @property
    def outputs(self) -> int: ...
    @property
    def pixels(self) -> int: ...
    @property
    def items(self) -> int: ...
    @property
    def parts(self) -> int: ...


class Implicit:
    """A kernel ``k`` of groups that have a tile each, of a part of the reduction: ``several`` slices from ``begin`` on.

    A slice has ``depth`` numbers of the reduction, in ``rows`` rows of words of the weights.
    """

    def __init__(self, spec: GpuConvSpec, choice: Tiling, depth: int, rows: int) -> None:
        wide, count = -(-spec.co // choice.outputs), spec.slices(depth)
        self.spec, self.choice, self.depth, self.rows = spec, choice, depth, rows
        self.k = k = GpuBuilder((-(-spec.pixels // choice.pixels), wide, spec.groups * choice.parts), choice.items)
        self.conv = Conv(k, spec, parts=choice.parts)
        self.group, self.part = k.bind(div(k.group[2], choice.parts)), k.bind(mod(k.group[2], choice.parts))
        self.first_output, self.first_pixel = k.group[1] * choice.outputs, k.group[0] * choice.pixels
        self.lanes = wide * choice.outputs
        # The last pixels of a tile that hangs over are computed like the last one, and not written.
        pixel = k.bind(tirx.min(self.first_pixel + mod(k.item, choice.pixels), spec.pixels - 1))
        self.first_tap = self.conv.first_tap(pixel)
        self.from_weights = k.bind(self.group * (count * rows * self.lanes) + self.first_output)
        own = -(-count // choice.parts)  # the last part may have fewer slices
        self.begin = self.part * own
        self.several = own if count % choice.parts == 0 else k.bind(tirx.min(integer(own), count - self.begin))

    def weights(self, s: Expr, row: Expr, output: Expr) -> Expr:
        """A word of the weights."""
        return self.k.load(self.conv.weight, self.from_weights + (s * self.rows + row) * self.lanes + output)

    def inputs(self, s: Expr, row: Expr, _: Expr) -> Expr:
        """A number of the input, of the work item's pixel."""
        k, spec, depth = self.k, self.spec, self.depth
        if spec.by_tap(depth):
            blocks = -(-spec.ci // depth)
            channel, tap = k.bind(mod(s, blocks) * depth + row), div(s, blocks)
            checks = [channel < spec.ci] if spec.ci % depth else []
        else:
            at = k.bind(s * depth + row)
            channel, tap = k.bind(div(at, spec.taps)), mod(at, spec.taps)
            checks = [at < spec.ci * spec.taps] if spec.ci * spec.taps % depth else []
        inside, place = self.conv.tap(self.first_tap, tap)
        checks += [] if inside is None else [inside]
        return k.load_if(every(checks), self.conv.x, self.conv.channel(self.group * spec.ci + channel) + place)

    def column(self, pixel: Expr, body: Callable[[Expr], None]) -> None:
        """``body(pixel)`` for a pixel of the tile, if the output has it."""
        at = self.k.bind(self.first_pixel + pixel)
        there = at < self.spec.pixels if self.spec.pixels % self.choice.pixels else None
        self.k.branch(there, lambda: body(at))

    def write(self, output: Expr, at: Expr, value: Expr) -> None:
        """The sum of an output of the tile for a pixel, if there is such an output."""
        k, spec = self.k, self.spec
        found = k.bind(self.first_output + output)
        there = found < spec.co if spec.co % self.choice.outputs else None
        k.branch(there, lambda: self.conv.write(k.bind(self.group * spec.co + found), at, value, self.part))
