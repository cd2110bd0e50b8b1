"""What kernels of convolutions have in common: operands, where inputs lie, and what is done with sums."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx

from secateur.codegen.emit.gpu.builder import GpuBuilder, Pointer, div, each, flat, integer, mod
from secateur.codegen.emit.types import Expr, Function
from secateur.codegen.kernels.gpu.post_ops import Operand, apply, operands, position

from .spec import GpuConvSpec

TABLE = "table"  # of input channels


class Conv:
    """The operands ``(x, w, bias, tables.., operands.., y, [parts])`` of a kernel, and what it does with them.

    ``tables``: names of its tables; without them, that of the input's channels if the spec has it. ``parts``: groups
    that share a reduction; each writes its part of every sum.
    """

    def __init__(self, k: GpuBuilder, spec: GpuConvSpec, tables: Sequence[str] = (), parts: int = 1) -> None:
        self.k, self.spec = k, spec
        self.x, self.weight, self.bias = k.pointer("x"), k.pointer("w"), k.pointer("bias")
        names = tables or ([TABLE] if spec.table else [])
        self.tables = {name: k.pointer(name, "int32") for name in names}
        self.pointers: list[Operand] = operands(k, spec.post_ops)
        self.y = k.pointer("y")
        self.parts: Pointer | None = k.pointer("parts") if parts > 1 else None

    def channel(self, c: Expr) -> Expr:
        """Where an input channel begins."""
        return self.k.load(self.tables[TABLE], c) if TABLE in self.tables else c * self.spec.x.block

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
        return every(checks), place

    def write(self, output: Expr, pixel: Expr, value: Expr, part: Expr = 0) -> None:
        """A part of a sum as it is; a whole one with bias and what comes after."""
        if self.parts is not None:
            self.k.store(self.parts, part * self.spec.outputs + output * self.spec.pixels + pixel, value)
        else:
            self.finish(output, pixel, value)

    def finish(self, output: Expr, pixel: Expr, value: Expr) -> None:
        """Bias, what comes after, and the store."""
        at = position(self.k, self.spec, output, pixel)
        done = apply(self.k, value + self.k.load(self.bias, output), self.spec.post_ops, self.pointers, at)
        self.k.store(self.y, at.place(self.spec.y), done)


def every(checks: list[Expr]) -> Expr | None:
    """All of them; None where there is none."""
    return tirx.all(*checks) if len(checks) > 1 else checks[0] if checks else None


def join(spec: GpuConvSpec, parts: int, tables: Sequence[str] = ()) -> Function:
    """The kernel of the same operands that adds the parts of each sum, in order, and writes it."""
    k = flat(spec.outputs)
    conv = Conv(k, spec, tables, parts)

    def one(i: Expr) -> None:
        assert conv.parts is not None
        total = k.local(1, k.load(conv.parts, i))
        for part in range(1, parts):
            k.add(total, 0, k.load(conv.parts, part * spec.outputs + i))
        conv.finish(k.bind(div(i, spec.pixels)), k.bind(mod(i, spec.pixels)), k.load(total, 0))

    each(k, spec.outputs, one)
    return k.finish()
