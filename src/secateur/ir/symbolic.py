"""Arithmetic on sizes that the caller chooses: polynomials with floors, minima and maxima.

A ``Size`` is an ``int`` that also knows how it follows from the sizes of the inputs, so the shape rules of ``infer``,
which compute with numbers, say at the same time what holds at every size. What cancels is a plain ``int`` again: a
dimension that is no ``Size`` is constant by proof. Comparisons look at the number alone.

In a graph such a dimension is a ``Sym`` whose name is the expression, as in ``((H+1)//2):112``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction

from .expr import Atom, Expr, quotient, scaled_down
from .expr_text import parse
from .graph import Attr, Graph, Sym, Value


class Size(Sym):
    """A dimension at its captured value, with the expression that gives it at every size of the inputs."""

    expr: Expr

    def __new__(cls, value: int, expr: Expr) -> Size:
        self = int.__new__(cls, value)
        self.expr = expr
        return self

    @property
    def name(self) -> str:  # type: ignore[override]
        return str(self.expr)

    def __reduce__(self) -> tuple[type[Size], tuple[int, Expr]]:  # type: ignore[override]
        return Size, (int(self), self.expr)

    def __add__(self, other: int) -> int:
        return size(int(self) + int(other), self.expr + Expr.of(other))

    __radd__ = __add__

    def __sub__(self, other: int) -> int:
        return size(int(self) - int(other), self.expr - Expr.of(other))

    def __rsub__(self, other: int) -> int:
        return size(int(other) - int(self), Expr.of(other) - self.expr)

    def __neg__(self) -> int:
        return size(-int(self), -self.expr)

    def __mul__(self, other: int) -> int:
        return size(int(self) * int(other), self.expr * Expr.of(other))

    __rmul__ = __mul__

    def __floordiv__(self, other: int) -> int:
        return size(int(self) // int(other), quotient(self.expr, Expr.of(other)))

    def __rfloordiv__(self, other: int) -> int:
        return size(int(other) // int(self), quotient(Expr.of(other), self.expr))


def size(value: int, expr: Expr) -> int:
    """A ``Size``, or a plain number where the expression is constant."""
    number = expr.number
    return int(value) if number is not None and number == value else Size(value, expr)


def unknown(value: int, name: str) -> int:
    """A size that only a run reveals, by a name that means the same wherever it comes up."""
    return Size(value, Expr.atom(Atom("unknown", f"?{name}")))


def least(a: int, b: int) -> int:
    """The smaller of two sizes, at every size of the inputs."""
    if not isinstance(a, Size) and not isinstance(b, Size):
        return min(a, b)
    low, high = (Expr.of(a) - Expr.of(b)).bounds()
    if high is not None and high <= 0:
        return a
    if low is not None and low >= 0:
        return b
    return size(min(int(a), int(b)), Expr.atom(Atom("min", args=(Expr.of(a), Expr.of(b)))))


def largest(a: int, b: int) -> int:
    """The larger of two sizes, at every size of the inputs."""
    if not isinstance(a, Size) and not isinstance(b, Size):
        return max(a, b)
    low, high = (Expr.of(a) - Expr.of(b)).bounds()
    if low is not None and low >= 0:
        return a
    if high is not None and high <= 0:
        return b
    return size(max(int(a), int(b)), Expr.atom(Atom("max", args=(Expr.of(a), Expr.of(b)))))


def scaled(n: int, factor: float) -> int:
    """``n * factor`` rounded down, in float32 if that is what the factor is, as in ONNX, else in double.

    Only powers of two are exact in floating point at every size.
    """
    value = scaled_down(int(n), factor)
    if not isinstance(n, Size):
        return value
    exact = Fraction(factor)
    if exact.denominator <= 1 << 10 and exact.numerator <= 1 << 10:
        return size(value, (n.expr * exact).floor())
    return size(value, Expr.atom(Atom("scale", args=(n.expr,), factor=factor)))


def map_sizes(value: Attr, change: Callable[[Sym], int]) -> Attr:
    """An attribute with every ``Sym`` in it changed."""
    if isinstance(value, tuple):
        return tuple(map_sizes(v, change) for v in value)
    return change(value) if isinstance(value, Sym) else value


def has_sizes(value: Attr) -> bool:
    """Whether an attribute follows the inputs' sizes."""
    return any(map(has_sizes, value)) if isinstance(value, tuple) else isinstance(value, Sym)


def is_fixed(value: Attr) -> bool:
    """Whether an attribute is what it is at every size of the inputs: only then may a pass go by its number."""
    return not has_sizes(value)


def as_sym(value: Sym) -> int:
    """A ``Size`` as graphs hold it."""
    return Sym(int(value), value.name)


def as_size(value: Sym) -> int:
    """A graph's dimension with its expression."""
    return value if isinstance(value, Size) else size(int(value), parse(value.name))


def in_proportion(old: int, value: int) -> int:
    """A dimension that became ``value``; one that follows the inputs follows them in proportion."""
    if not isinstance(old, Sym) or value == old:
        return value if not isinstance(old, Sym) else old
    return Sym(value, str(parse(old.name) * Fraction(value, int(old))))


def resized(graph: Graph, sizes: Mapping[str, int]) -> Graph:
    """The graph at other sizes of its inputs, by name: inputs and attributes; shapes are to be derived anew.

    Raises ValueError where an attribute needs a size that only a run reveals.
    """
    now = {d.name: int(d) for v in graph.inputs for d in v.shape if isinstance(d, Sym)} | dict(sizes)

    def change(old: Sym) -> int:
        found = parse(old.name).at(now)
        if found is None:
            raise ValueError(f"the size {old.name} is only known in a run")
        return Sym(int(found), old.name)

    inputs = tuple(Value(v.name, map_sizes(v.shape, change), v.dtype) for v in graph.inputs)
    nodes = [
        n.with_attrs(**{k: map_sizes(a, change) for k, a in n.attrs.items()}) if any(map(has_sizes, n.attrs.values()))
        else n for n in graph.nodes
    ]  # fmt: skip
    return graph.rewrite(inputs=inputs, nodes=nodes)
