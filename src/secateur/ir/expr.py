"""Expressions of sizes: polynomials over inputs' sizes with floors, minima and maxima, and their text.

Exact: coefficients are fractions. ``Expr.bounds`` holds at every size from 1 up. Their text, as in ``((H+1)//2)``, is
read again by ``expr_text.parse``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

Bound = Fraction | None  # None where there is no bound


@dataclass(frozen=True)
class Atom:
    """What cannot be taken apart: an input's size, a size that only a run reveals, or a function of expressions.

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
        known = getattr(value, "expr", None)  # of a ``symbolic.Size``
        if isinstance(known, Expr):
            return known
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
        """Its value at these sizes of the inputs; None where only a run reveals."""
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
        return self._text

    @cached_property
    def _text(self) -> str:
        text = ""
        for monomial, c in self.terms:
            factors = [a.key for a in monomial]
            if abs(c) != 1 or not factors:
                factors.insert(0, str(abs(c)))
            text += ("-" if c < 0 else "+" if text else "") + "*".join(factors)
        return text or "0"

    # -- arithmetic -----------------------------------------------------------------------------------------------
    def __add__(self, other: Expr | int | Fraction) -> Expr:
        more = Expr.of(other)
        if not self.terms or not more.terms:
            return self if self.terms else more
        table = dict(self.terms)
        for m, c in more.terms:
            table[m] = table.get(m, Fraction(0)) + c
        return Expr._from(table)

    def __neg__(self) -> Expr:
        return Expr(tuple((m, -c) for m, c in self.terms))

    def __sub__(self, other: Expr | int | Fraction) -> Expr:
        less = Expr.of(other)
        return self + -less if less.terms else self

    def __mul__(self, other: Expr | int | Fraction) -> Expr:
        by = Expr.of(other)
        factor = by.number
        if factor is not None:
            return Expr(tuple((m, c * factor) for m, c in self.terms if factor))
        table: dict[Monomial, Fraction] = {}
        for m, c in self.terms:
            for n, d in by.terms:
                both = tuple(sorted((*m, *n), key=lambda a: a.key))
                table[both] = table.get(both, Fraction(0)) + c * d
        return Expr._from(table)

    def over(self, other: Expr | int | Fraction) -> Expr | None:
        """The exact quotient; None where it is not a polynomial."""
        rest, divisor = self, Expr.of(other)
        if not divisor.terms:
            return None
        if divisor.number is not None:
            return self * (1 / divisor.number)
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
        return Fraction(scaled_down(int(found[0]), a.factor))
    return min(found) if a.kind == "min" else max(found)


def scaled_down(n: int, factor: float) -> int:
    """``floor(n * factor)`` as frameworks compute it, in single precision where the factor is of it."""
    narrow = np.float32(factor)
    return math.floor(np.float32(n) * narrow if narrow == factor else n * factor)


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
    low, high = lows[0], highs[0]  # of "scale", whose argument is whole, and which never falls as that rises
    if a.factor < 0:
        return None, None
    return (
        _apply(lambda v: scaled_down(math.ceil(v), a.factor), low),
        _apply(lambda v: scaled_down(math.floor(v), a.factor), high),
    )


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


def quotient(a: Expr, b: Expr) -> Expr:
    """``a // b``; where that is not an expression of this kind, a size that only a run reveals."""
    exact = a.over(b)
    if exact is not None:
        return exact.floor()
    if b.number is None:
        return Expr.atom(Atom("unknown", f"?({a})//({b})"))
    return (a * (1 / b.number)).floor()
