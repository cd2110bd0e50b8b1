"""Arithmetic on sizes that the caller chooses: polynomials with floors, minima and maxima.

A ``Size`` is an ``int`` that also knows how it follows from the sizes of the inputs, so the shape rules of ``infer``,
which compute with numbers, say at the same time what holds at every size. What cancels is a plain ``int`` again: a
dimension that is no ``Size`` is constant by proof. Comparisons look at the number alone.

In a graph such a dimension is a ``Sym`` whose name is the expression, as in ``((H+1)//2):112``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

from .graph import Attr, Graph, Sym, Value

Bound = Fraction | None  # None where there is no bound


@dataclass(frozen=True)
class Atom:
    """What cannot be taken apart: an input's size, a size that only a run tells, or a function of expressions.

    ``kind`` is "size", "unknown" (``name`` says of what), "floor" (one argument), "min" or "max" (two), "scale" (one,
    times ``factor`` in floating point, rounded down), or, while bounds are looked for, "rest": argument minus floor.
    """

    kind: str
    name: str = ""
    args: tuple[Expr, ...] = ()
    factor: float = 1.0

    @cached_property
    def key(self) -> str:
        """What atoms are ordered and compared by."""
        if self.kind in ("size", "unknown", "rest"):
            return self.name
        if self.kind == "floor":
            (inner,) = self.args
            below = inner.denominator
            above = inner * below
            text = str(above)
            plain = len(above.terms) == 1 and above.terms[0][1] == 1 and len(above.terms[0][0]) == 1
            return f"({text}//{below})" if plain else f"(({text})//{below})"
        if self.kind == "scale":
            return f"floor({self.args[0]};{self.factor!r})"
        return f"{self.kind}({self.args[0]};{self.args[1]})"


Monomial = tuple[Atom, ...]


@dataclass(frozen=True)
class Expr:
    """A polynomial over atoms with rational coefficients; ``terms`` are sorted, none is zero."""

    terms: tuple[tuple[Monomial, Fraction], ...]

    @staticmethod
    def of(value: Expr | int | Fraction) -> Expr:
        """A number as an expression; a ``Size`` as its own."""
        if isinstance(value, Expr):
            return value
        if isinstance(value, Size):
            return value.expr
        return Expr(((((), Fraction(value))),) if value else ())

    @staticmethod
    def atom(atom: Atom) -> Expr:
        return Expr((((atom,), Fraction(1)),))

    @staticmethod
    def size(name: str) -> Expr:
        """The size of an input, by its name."""
        return Expr.atom(Atom("size", name))

    @staticmethod
    def _from(table: Mapping[Monomial, Fraction]) -> Expr:
        terms = [(m, c) for m, c in table.items() if c]
        return Expr(tuple(sorted(terms, key=lambda t: (-len(t[0]), [a.key for a in t[0]]))))

    # -- what is asked of it ------------------------------------------------------------------------------------
    @property
    def number(self) -> Fraction | None:
        """The value where it is a constant."""
        if not self.terms:
            return Fraction(0)
        return self.terms[0][1] if len(self.terms) == 1 and not self.terms[0][0] else None

    @cached_property
    def denominator(self) -> int:
        return math.lcm(*(c.denominator for _, c in self.terms))

    def atoms(self) -> Iterator[Atom]:
        """Every atom in it, those inside of others too."""
        for monomial, _ in self.terms:
            for a in monomial:
                yield a
                for inner in a.args:
                    yield from inner.atoms()

    @cached_property
    def known(self) -> bool:
        """Whether it can be computed exactly from the sizes of the inputs."""
        return all(a.kind not in ("unknown", "scale") for a in self.atoms())

    def at(self, sizes: Mapping[str, int]) -> Fraction | None:
        """Its value at these sizes of the inputs; None where only a run tells."""
        total = Fraction(0)
        for monomial, c in self.terms:
            for a in monomial:
                value = _atom_at(a, sizes)
                if value is None:
                    return None
                c *= value
            total += c
        return total

    def __str__(self) -> str:
        text = ""
        for monomial, c in self.terms:
            factors = [a.key for a in monomial]
            if abs(c) != 1 or not factors:
                factors.insert(0, str(abs(c)))
            text += ("-" if c < 0 else "+" if text else "") + "*".join(factors)
        return text or "0"

    # -- arithmetic -----------------------------------------------------------------------------------------------
    def __add__(self, other: Expr | int | Fraction) -> Expr:
        table = dict(self.terms)
        for m, c in Expr.of(other).terms:
            table[m] = table.get(m, Fraction(0)) + c
        return Expr._from(table)

    def __neg__(self) -> Expr:
        return Expr(tuple((m, -c) for m, c in self.terms))

    def __sub__(self, other: Expr | int | Fraction) -> Expr:
        return self + -Expr.of(other)

    def __mul__(self, other: Expr | int | Fraction) -> Expr:
        table: dict[Monomial, Fraction] = {}
        for m, c in self.terms:
            for n, d in Expr.of(other).terms:
                both = tuple(sorted((*m, *n), key=lambda a: a.key))
                table[both] = table.get(both, Fraction(0)) + c * d
        return Expr._from(table)

    def over(self, other: Expr | int | Fraction) -> Expr | None:
        """The exact quotient; None where it is no polynomial."""
        rest, divisor = self, Expr.of(other)
        if not divisor.terms:
            return None
        quotient = Expr(())
        lead, c = divisor.terms[0]
        while rest.terms:
            left = list(rest.terms[0][0])
            for a in lead:
                if a not in left:
                    return None
                left.remove(a)
            part = Expr._from({tuple(left): rest.terms[0][1] / c})
            quotient, before = quotient + part, rest
            rest = rest - part * divisor
            if len(rest.terms) > len(before.terms) + len(divisor.terms):
                return None
        return quotient

    def floor(self) -> Expr:
        """Rounded down. Whole multiples come out of it, as in floor(n/2 + 3) = floor(n/2) + 3."""
        whole = Expr(tuple((m, Fraction(math.floor(c))) for m, c in self.terms if math.floor(c)))
        rest = self - whole
        if not rest.terms or rest.number is not None:
            return whole
        return whole + Expr.atom(Atom("floor", args=(rest._flat(),)))

    def _flat(self) -> Expr:
        """floor((floor(x) + k) / d) is floor((x + k) / d) for whole numbers k and d."""
        inner = [(m[0], c) for m, c in self.terms if len(m) == 1 and m[0].kind == "floor"]
        others = [c for m, c in self.terms if not m]
        if len(inner) != 1 or len(inner) + len(others) != len(self.terms):
            return self
        (atom, c), d = inner[0], self.denominator
        if c * d != 1:
            return self
        return (atom.args[0] + sum(others, Fraction(0)) * d) * c

    # -- what can be proven ---------------------------------------------------------------------------------------
    def bounds(self) -> tuple[Bound, Bound]:
        """Numbers that it never falls below or rises above, where every size is at least 1."""
        flat = self._without_floors()
        low: Bound = Fraction(0)
        high: Bound = Fraction(0)
        for monomial, c in flat.terms:
            a, b = _product([_atom_bounds(x) for x in monomial])
            a, b = (_times(a, c), _times(b, c)) if c > 0 else (_times(b, c), _times(a, c))
            low, high = _plus(low, a), _plus(high, b)
        return low, high

    def _without_floors(self) -> Expr:
        """The same with a floor that stands alone written as its argument less a remainder."""
        out = Expr(())
        for monomial, c in self.terms:
            if len(monomial) == 1 and monomial[0].kind == "floor":
                (inner,) = monomial[0].args
                rest = Expr.atom(Atom("rest", monomial[0].key, (inner,)))
                out = out + (inner._without_floors() - rest) * c
            else:
                out = out + Expr(((monomial, c),))
        return out


def _atom_at(a: Atom, sizes: Mapping[str, int]) -> Fraction | None:
    if a.kind == "size":
        return Fraction(sizes[a.name]) if a.name in sizes else None
    args = [e.at(sizes) for e in a.args]
    if a.kind == "unknown" or None in args:
        return None
    found = [v for v in args if v is not None]
    if a.kind == "floor":
        return Fraction(math.floor(found[0]))
    if a.kind == "scale":
        return Fraction(_rounded(int(found[0]), a.factor))
    return min(found) if a.kind == "min" else max(found)


def _atom_bounds(a: Atom) -> tuple[Bound, Bound]:
    if a.kind in ("size", "unknown"):
        return Fraction(1), None
    if a.kind == "rest":  # of a division of whole numbers
        return Fraction(0), Fraction(a.args[0].denominator - 1, a.args[0].denominator)
    each = [e.bounds() for e in a.args]
    lows, highs = [e[0] for e in each], [e[1] for e in each]
    if a.kind == "floor":
        return _apply(math.floor, lows[0]), _apply(math.floor, highs[0])
    if a.kind == "min":
        known = [h for h in highs if h is not None]
        return (None if None in lows else min(v for v in lows if v is not None)), min(known, default=None)
    if a.kind == "max":
        known = [v for v in lows if v is not None]
        return max(known, default=None), (None if None in highs else max(h for h in highs if h is not None))
    return Fraction(0), None


def _apply(function: Callable[[Fraction], int], value: Bound) -> Bound:
    return None if value is None else Fraction(function(value))


def _product(bounds: list[tuple[Bound, Bound]]) -> tuple[Bound, Bound]:
    low: Bound = Fraction(1)
    high: Bound = Fraction(1)
    for a, b in bounds:
        if low is None or a is None or low < 0 or a < 0:
            return None, None
        low, high = low * a, None if high is None or b is None else high * b
    return low, high


def _times(value: Bound, c: Fraction) -> Bound:
    return None if value is None else value * c


def _plus(a: Bound, b: Bound) -> Bound:
    return None if a is None or b is None else a + b


# -- numbers that know where they come from ------------------------------------------------------------------------
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
    """A size that only a run tells, by a name that means the same wherever it comes up."""
    return Size(value, Expr.atom(Atom("unknown", f"?{name}")))


def quotient(a: Expr, b: Expr) -> Expr:
    """``a // b``; where that is no expression of this kind, a size that only a run tells."""
    exact = a.over(b)
    if exact is not None:
        return exact.floor()
    if b.number is None:
        return Expr.atom(Atom("unknown", f"?({a})//({b})"))
    return (a * (1 / b.number)).floor()


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
    value = _rounded(int(n), factor)
    if not isinstance(n, Size):
        return value
    exact = Fraction(factor)
    if exact.denominator <= 1 << 10 and exact.numerator <= 1 << 10:
        return size(value, (n.expr * exact).floor())
    return size(value, Expr.atom(Atom("scale", args=(n.expr,), factor=factor)))


def _rounded(n: int, factor: float) -> int:
    narrow = np.float32(factor)
    return math.floor(np.float32(n) * narrow if narrow == factor else n * factor)


# -- to and from graphs ----------------------------------------------------------------------------------------------
_TOKEN = re.compile(r"\s*(//|[-+*();]|[^-+*/();\s]+)")


def parse(text: str) -> Expr:
    """The expression of a ``Sym``'s name. Raises ValueError."""
    tokens = [*_TOKEN.findall(text), ""]
    if "".join(tokens) != re.sub(r"\s", "", text):
        raise ValueError(f"'{text}' is no size")
    found, rest = _sum(tokens)
    if rest != [""]:
        raise ValueError(f"'{text}' is no size")
    return found


def _sum(tokens: list[str]) -> tuple[Expr, list[str]]:
    sign = -1 if tokens[0] == "-" else 1
    value, tokens = _term(tokens[1:] if tokens[0] == "-" else tokens)
    value = value * sign
    while tokens[0] in ("+", "-"):
        sign = 1 if tokens[0] == "+" else -1
        other, tokens = _term(tokens[1:])
        value = value + other * sign
    return value, tokens


def _term(tokens: list[str]) -> tuple[Expr, list[str]]:
    value, tokens = _factor(tokens)
    while tokens[0] in ("*", "//"):
        other, after = _factor(tokens[1:])
        value = value * other if tokens[0] == "*" else quotient(value, other)
        tokens = after
    return value, tokens


def _factor(tokens: list[str]) -> tuple[Expr, list[str]]:
    head, *tokens = tokens
    if head in ("min", "max", "floor") and tokens[0] == "(":
        a, tokens = _sum(tokens[1:])
        b, tokens = _sum(tokens[1:])
        if head == "floor":
            raise ValueError("sizes by a factor that is no power of two cannot be computed again")
        return Expr.atom(Atom(head, args=(a, b))), tokens[1:]
    if head == "(":
        value, tokens = _sum(tokens)
        if tokens[0] != ")":
            raise ValueError("a bracket is not closed")
        return value, tokens[1:]
    if not head or head in "+-*/();":
        raise ValueError("a size is missing")
    return (Expr.of(int(head)) if head.isdigit() else Expr.size(head)), tokens


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

    Raises ValueError where an attribute needs a size that only a run tells.
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
