"""What is done to a number before it is written: bias, activation, residual, scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from secateur.codegen.emit.gpu.builder import GpuBuilder, Pointer, div, mod
from secateur.codegen.emit.gpu.maths import BINARY, UNARY
from secateur.codegen.emit.types import Expr
from secateur.codegen.plan.post_ops import PostOp
from secateur.codegen.plan.strides import Strides

Operand = tuple[Pointer | None, Pointer | None]  # an operand, and the table of its channels


@dataclass(frozen=True)
class At:
    """A position in the output: channel, image, row and column."""

    block: Expr
    image: Expr
    row: Expr
    column: Expr

    def pixel(self, strides: Strides) -> Expr:
        """From the first pixel of a tensor to the one that belongs here."""
        found: Expr = 0
        for index, stride in ((self.image, strides.image), (self.row, strides.row), (self.column, strides.column)):
            found = found + index * stride if stride else found
        return found

    def place(self, strides: Strides) -> Expr:
        """From the beginning of a tensor whose channels follow each other to the number that belongs here."""
        return self.block * strides.block + self.pixel(strides)


class Extents(Protocol):
    """Sizes of what a kernel writes."""

    @property
    def n(self) -> int: ...
    @property
    def h(self) -> int: ...
    @property
    def w(self) -> int: ...


def position(k: GpuBuilder, spec: Extents, block: Expr, pixel: Expr) -> At:
    """The position of a pixel, counted through images and rows, of a channel."""
    line = k.bind(div(pixel, spec.w))
    return At(block, k.bind(div(line, spec.h)), k.bind(mod(line, spec.h)), k.bind(mod(pixel, spec.w)))


def operands(k: GpuBuilder, post_ops: Sequence[PostOp]) -> list[Operand]:
    """The parameters that the post-ops need, in order."""
    found = []
    for i, post_op in enumerate(post_ops):
        pointer = k.pointer(f"r{i}") if post_op.operand not in ("", "earlier") else None
        found.append((pointer, k.pointer(f"rt{i}", "int32") if post_op.table else None))
    return found


def base(k: GpuBuilder, table: Pointer | None, block: Expr, stride: int) -> Expr:
    """Where a channel begins."""
    return block * stride if table is None else k.load(table, block)


def apply(k: GpuBuilder, value: Expr, post_ops: Sequence[PostOp], pointers: Sequence[Operand], at: At) -> Expr:
    """The value after all post-ops."""
    wanted = {p.earlier for p in post_ops if p.operand == "earlier"}
    kept: dict[int, Expr] = {}
    for i, (post_op, pointer) in enumerate(zip(post_ops, pointers, strict=True)):
        value = k.held(value)
        if i in wanted:
            kept[i] = value
        if not post_op.operand:
            value = UNARY[post_op.op](k, value, dict(post_op.attrs))
            continue
        other = kept[post_op.earlier] if post_op.operand == "earlier" else k.held(_operand(k, post_op, pointer, at))
        value = BINARY[post_op.op](other, value) if post_op.swapped else BINARY[post_op.op](value, other)
    return value


def _operand(k: GpuBuilder, post_op: PostOp, pointer: Operand, at: At) -> Expr:
    source, table = pointer
    assert source is not None
    if post_op.strides is None:
        return k.load(source, at.block)
    if post_op.operand == "pixel":
        return k.load(source, at.pixel(post_op.strides))
    return k.load(source, base(k, table, at.block, post_op.strides.block) + at.pixel(post_op.strides))
