"""What is done to a vector before it is written: bias, activation, residual, scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from secateur.codegen.emit.builder import Expr, Kernel
from secateur.codegen.emit.maths import BINARY, UNARY
from secateur.codegen.plan.post_ops import PostOp
from secateur.codegen.plan.strides import Strides


class Position(Protocol):
    """Where a vector is written: it knows the operands that belong there."""

    def operand(self, k: Kernel, step: PostOp, pointer: Any, table: Any) -> Expr:
        """The vector that ``step`` applies."""


@dataclass(frozen=True)
class At:
    """A position in the output: block, image, row and column."""

    block: Expr
    image: Expr
    row: Expr
    column: Expr

    def operand(self, k: Kernel, step: PostOp, pointer: Any, table: Any) -> Expr:
        """A weight per lane, or what the other tensor holds here."""
        if step.strides is None:
            return k.load(pointer, self.block * k.lanes)
        if step.operand == "pixel":
            return k.splat(k.scalar(pointer, self.pixel(step.strides)))
        return k.load(pointer, self.place(k, step.strides, table))

    def pixel(self, strides: Strides) -> Expr:
        """From the first pixel of a tensor to the one that belongs here."""
        return self.image * strides.image + self.row * strides.row + self.column * strides.column

    def place(self, k: Kernel, strides: Strides, table: Any) -> Expr:
        """From the beginning of a tensor to the vector that belongs here."""
        return block_base(k, table, self.block, strides.block) + self.pixel(strides)


def operand_pointers(k: Kernel, steps: Sequence[PostOp]) -> list[tuple[Any, Any]]:
    """The parameters the steps need, in order: (operand, its table of blocks)."""
    found = []
    for i, step in enumerate(steps):
        operand = k.pointer(f"r{i}") if step.operand not in ("", "earlier") else None
        table = k.pointer(f"rt{i}", "int32") if step.table else None
        found.append((operand, table))
    return found


def block_base(k: Kernel, table: Any, block: Expr, stride: int) -> Expr:
    """Where a block begins."""
    if table is None:
        return block * stride
    return k.scalar(table, block).astype("int64")


def fetch(k: Kernel, steps: Sequence[PostOp], pointers: Sequence[tuple[Any, Any]], places: Sequence[At]) -> None:
    """Ask for what ``apply`` will read at these places from tensors that may have left the first caches."""
    for step, (pointer, table) in zip(steps, pointers, strict=True):
        if step.operand == "full" and step.strides is not None:
            for at in places:
                k.prefetch(pointer, at.place(k, step.strides, table))


def apply(k: Kernel, value: Expr, steps: Sequence[PostOp], pointers: Sequence[tuple[Any, Any]], at: Position) -> Expr:
    """The value after all steps."""
    wanted = {step.earlier for step in steps if step.operand == "earlier"}
    kept: dict[int, Expr] = {}
    for i, (step, (pointer, table)) in enumerate(zip(steps, pointers, strict=True)):
        if i in wanted:
            kept[i] = value = k.vector(value)
        if not step.operand:
            value = UNARY[step.op](k, value, dict(step.attrs))
            continue
        other = kept[step.earlier] if step.operand == "earlier" else at.operand(k, step, pointer, table)
        value = BINARY[step.op](other, value) if step.swapped else BINARY[step.op](value, other)
    return value
