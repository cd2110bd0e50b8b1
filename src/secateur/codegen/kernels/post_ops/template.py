"""What is done to a vector before it is written: bias, activation, residual, scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from secateur.codegen.emit.builder import KernelBuilder
from secateur.codegen.emit.maths import ARITHMETIC, BINARY, UNARY
from secateur.codegen.emit.types import Buffer, Expr
from secateur.codegen.plan.post_ops import PostOp
from secateur.codegen.plan.strides import Strides

Pointers = tuple[Buffer | None, Buffer | None]  # of an operand, and of the table of its blocks


class Position(Protocol):
    """Where a vector is written: it knows the operands that belong there."""

    def operand(self, k: KernelBuilder, post_op: PostOp, pointer: Buffer, table: Buffer | None) -> Expr:
        """The vector that ``post_op`` applies."""


@dataclass(frozen=True)
class At:
    """A position in the output: block, image, row and column."""

    block: Expr
    image: Expr
    row: Expr
    column: Expr

    def operand(self, k: KernelBuilder, post_op: PostOp, pointer: Buffer, table: Buffer | None) -> Expr:
        """A weight per lane, or what the other tensor holds here."""
        if post_op.strides is None:
            return k.load(pointer, self.block * k.lanes)
        if post_op.operand == "pixel":
            return k.splat(k.scalar(pointer, self.pixel(post_op.strides)))
        return k.load(pointer, self.place(k, post_op.strides, table))

    def pixel(self, strides: Strides) -> Expr:
        """From the first pixel of a tensor to the one that belongs here."""
        return self.image * strides.image + self.row * strides.row + self.column * strides.column

    def place(self, k: KernelBuilder, strides: Strides, table: Buffer | None) -> Expr:
        """From the beginning of a tensor to the vector that belongs here."""
        return block_base(k, table, self.block, strides.block) + self.pixel(strides)


def operand_pointers(k: KernelBuilder, post_ops: Sequence[PostOp]) -> list[Pointers]:
    """The parameters the post-ops need, in order: (operand, its table of blocks)."""
    found = []
    for i, post_op in enumerate(post_ops):
        operand = k.pointer(f"r{i}") if post_op.operand not in ("", "earlier") else None
        table = k.pointer(f"rt{i}", "int32") if post_op.table else None
        found.append((operand, table))
    return found


def block_base(k: KernelBuilder, table: Buffer | None, block: Expr, stride: int) -> Expr:
    """Where a block begins."""
    if table is None:
        return block * stride
    return k.scalar(table, block).astype("int64")


def fetch(k: KernelBuilder, post_ops: Sequence[PostOp], pointers: Sequence[Pointers], places: Sequence[At]) -> None:
    """Ask for what ``apply`` will read at these places from tensors that may have left the first caches."""
    for post_op, (pointer, table) in zip(post_ops, pointers, strict=True):
        if post_op.operand == "full" and post_op.strides is not None:
            for at in places:
                k.prefetch(pointer, at.place(k, post_op.strides, table))


def apply(
    k: KernelBuilder, value: Expr, post_ops: Sequence[PostOp], pointers: Sequence[Pointers], at: Position
) -> Expr:
    """The value after all post_ops."""
    wanted = {post_op.earlier for post_op in post_ops if post_op.operand == "earlier"}
    kept: dict[int, Expr] = {}
    for i, (post_op, (pointer, table)) in enumerate(zip(post_ops, pointers, strict=True)):
        if i in wanted:
            kept[i] = value = k.held(value)
        if not post_op.operand:
            value = UNARY[post_op.op](k, k.held(value), dict(post_op.attrs))
            continue
        if post_op.op not in ARITHMETIC:  # written with its operands several times
            value = k.held(value)
        other = kept[post_op.earlier] if post_op.operand == "earlier" else at.operand(k, post_op, pointer, table)
        value = BINARY[post_op.op](other, value) if post_op.swapped else BINARY[post_op.op](value, other)
    return value
