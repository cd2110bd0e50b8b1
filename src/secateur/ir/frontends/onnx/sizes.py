"""Sizes as ONNX nodes: an expression becomes arithmetic on the shapes of the network's inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from secateur.ir.expr import Atom, Expr
from secateur.ir.symbolic import Size


class Pen(Protocol):
    """Writes nodes, one after another."""

    def write(self, kind: str, inputs: Sequence[str], shape: tuple[int, ...], **attrs: Any) -> str:
        """Append a node with one int64 output of this shape. Returns its name."""

    def numbers(self, values: Sequence[int]) -> str:
        """The name of an int64 vector."""

    def where(self, name: str) -> tuple[str, int, int]:
        """An input of which a dimension has this name: the input, the axis and the input's rank."""

    def alive(self, name: str) -> bool:
        """Whether what was written under this name is still there."""


class Unwritable(Exception):
    """No operator computes this size."""


@dataclass
class Sizes:
    """Writes expressions with a pen; what was written once is read again. Raises Unwritable."""

    pen: Pen
    opset: int
    written: dict[str, str] = field(default_factory=dict)

    def vector(self, values: Sequence[int]) -> str:
        """Numbers and sizes as one int64 vector."""
        parts: list[str] = []
        plain: list[int] = []
        for v in values:
            if isinstance(v, Size):
                if plain:
                    parts.append(self.pen.numbers(plain))
                    plain = []
                parts.append(self.scalar(v.expr))
            else:
                plain.append(int(v))
        if plain or not parts:
            parts.append(self.pen.numbers(plain))
        return parts[0] if len(parts) == 1 else self._op("Concat", parts, len(values), axis=0)

    def scalar(self, expr: Expr) -> str:
        """A whole-numbered expression as an int64 vector of one element."""
        key = str(expr)
        if key not in self.written or not self.pen.alive(self.written[key]):
            self.written[key] = self._sum(expr)
        return self.written[key]

    def _sum(self, expr: Expr) -> str:
        if expr.denominator != 1:
            raise Unwritable(f"{expr} is not a whole number")
        total = None
        for monomial, c in expr.terms:
            term = None
            for atom in monomial:
                factor = self._atom(atom)
                term = factor if term is None else self._op("Mul", [term, factor])
            if term is None:
                term = self.pen.numbers([int(c)])
            elif c != 1:
                term = self._op("Mul", [term, self.pen.numbers([int(c)])])
            total = term if total is None else self._op("Add", [total, term])
        return self.pen.numbers([0]) if total is None else total

    def _atom(self, atom: Atom) -> str:
        if atom.key in self.written and self.pen.alive(self.written[atom.key]):
            return self.written[atom.key]
        if atom.kind == "size":
            name, axis, rank = self.pen.where(atom.name)
            shape = self.pen.write("Shape", [name], (rank,))
            made = self._op("Gather", [shape, self.pen.numbers([axis])], axis=0)
        elif atom.kind == "floor":
            made = self._floor(atom.args[0])
        elif atom.kind in ("min", "max") and self.opset >= 12:  # for integers
            made = self._op("Min" if atom.kind == "min" else "Max", [self.scalar(e) for e in atom.args])
        else:
            raise Unwritable(f"{atom.key} cannot be computed in operator set {self.opset}")
        self.written[atom.key] = made
        return made

    def _floor(self, inner: Expr) -> str:
        below = self.pen.numbers([inner.denominator])
        above = self.scalar(inner * inner.denominator)
        low = inner.bounds()[0]
        if low is None or low < 0:  # ONNX divides towards zero, and its remainder has the divisor's sign
            if self.opset < 10:
                raise Unwritable(f"{inner} may be negative")
            above = self._op("Sub", [above, self._op("Mod", [above, below])])
        return self._op("Div", [above, below])

    def _op(self, kind: str, inputs: Sequence[str], length: int = 1, **attrs: Any) -> str:
        return self.pen.write(kind, inputs, (length,), **attrs)
