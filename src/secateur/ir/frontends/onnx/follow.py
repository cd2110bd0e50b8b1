"""Constants that follow the sizes of the inputs: shape arithmetic, entry by entry.

Next to a folded array stands one of the same shape whose entries are expressions or plain numbers. What moves entries
is run on their positions; arithmetic is done on expressions. Where its result is not an expression for certain,
it is not folded and stays a node: a number that happens to be the same at some sizes is never taken for a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from secateur.ir.expr import Expr
from secateur.ir.graph import Array
from secateur.ir.symbolic import Size, size

Entry = Expr | Fraction


@dataclass(frozen=True, eq=False)
class Following:
    """A constant that follows the inputs: at the captured size, and entry by entry as it follows."""

    array: Array
    entries: Array

    def numbers(self) -> tuple[int, ...]:
        """The entries as integers that know how they follow."""
        pairs = zip(self.array.reshape(-1), self.entries.reshape(-1), strict=True)
        return tuple(size(int(v), e) if isinstance(e, Expr) else int(v) for v, e in pairs)

    @property
    def known(self) -> bool:
        """Whether all of it can be computed from the sizes of the inputs."""
        return all(e.known for e in self.entries.reshape(-1) if isinstance(e, Expr))

    def fits(self, sizes: Mapping[str, int]) -> bool:
        """Whether the entries give the array at the captured sizes, where a run is not needed to tell."""
        for v, e in zip(self.array.reshape(-1), self.entries.reshape(-1), strict=True):
            found = e.at(sizes) if isinstance(e, Expr) else e
            if found is not None and found != Fraction(v.item()):
                return False
        return True


Fold = Callable[[Sequence[Array | None]], list[Array] | None]

MOVES = frozenset(
    {"Identity", "Gather", "GatherElements", "GatherND", "Slice", "Unsqueeze", "Squeeze", "Reshape", "Transpose",
     "Flatten", "Expand", "Tile", "Split"}
)  # fmt: skip


def entries(shape: Sequence[int]) -> Array | None:
    """The expressions of a shape; None where none of its dimensions follows the inputs."""
    if not any(isinstance(d, Size) for d in shape):
        return None
    out = np.empty(len(shape), object)
    out[:] = [d.expr if isinstance(d, Size) else Fraction(int(d)) for d in shape]
    return out


def follow(
    kind: str,
    attrs: Mapping[str, Any],
    arrays: Sequence[Array | None],
    known: Sequence[Array | None],
    results: Sequence[Array],
    again: Fold,
) -> list[Array | None] | None:
    """The entries of each result, None for one that is constant by proof; None in all where that is not certain.

    ``arrays`` are the inputs at the captured size, ``known`` the entries of those that follow, ``results`` the folded
    outputs; ``again`` folds the node on other inputs.
    """
    found = _moved(kind, arrays, known, again) if kind in MOVES or kind == "Concat" else _computed(
        kind, attrs, arrays, known
    )  # fmt: skip
    if found is None or any(f.shape != r.shape for f, r in zip(found, results, strict=True)):
        return None
    return [f if any(isinstance(e, Expr) for e in f.reshape(-1)) else None for f in found]


def _moved(kind: str, arrays: Sequence[Array | None], known: Sequence[Array | None], again: Fold) -> list[Array] | None:
    """Run the node on positions in a list of all entries."""
    data = range(len(arrays)) if kind == "Concat" else range(1)
    if any(k is not None for i, k in enumerate(known) if i not in data):
        return None  # where to take from depends on the sizes
    pool: list[Entry] = []
    places = list(arrays)
    for i in data:
        array, entry = arrays[i], known[i]
        if array is None or array.dtype.kind not in "iufb" or not np.isfinite(array).all():
            return None
        places[i] = np.arange(len(pool), len(pool) + array.size, dtype=np.int64).reshape(array.shape)
        pool += list((_plain(array) if entry is None else entry).reshape(-1))
    moved = again(places)
    if moved is None:
        return None
    table = np.empty(len(pool), object)
    table[:] = pool
    return [np.asarray(table[m]).reshape(m.shape) if m.ndim else _single(table[int(m)]) for m in moved]


def _plain(array: Array) -> Array:
    out = np.empty(array.shape, object)
    flat = out.reshape(-1)
    flat[:] = [Fraction(v) for v in array.reshape(-1).tolist()]
    return out


def _single(entry: Entry) -> Array:
    out = np.empty((), object)
    out[()] = entry
    return out


def _computed(
    kind: str, attrs: Mapping[str, Any], arrays: Sequence[Array | None], known: Sequence[Array | None]
) -> list[Array] | None:
    given: list[Array] = []
    for array, entry in zip(arrays, known, strict=True):
        if array is None or array.dtype.kind not in "iufb" or not np.isfinite(array).all():
            return None
        given.append(_plain(array) if entry is None else entry)
    floating = any(a is not None and a.dtype.kind == "f" for a in arrays)
    try:
        if kind in ELEMENTWISE:
            made = _elementwise(ELEMENTWISE[kind], given)
        elif kind == "Cast":
            made = _elementwise(_truncate, given) if floating and attrs["to"] in INTEGERS else given[0]
            if attrs["to"] not in INTEGERS and attrs["to"] not in FLOATING:
                return None
        elif kind == "Div":
            made = _elementwise(_over if floating else _divide, given)
        elif kind == "Mod" and not floating and not attrs.get("fmod", 0):
            made = _elementwise(_remainder, given)
        elif kind == "Where":
            made = _elementwise(_choose, given)
        elif kind == "ReduceProd" and given[0].ndim == 1 and len(given) == 1 and not attrs.get("axes"):
            made = np.empty((1,) * attrs.get("keepdims", 1), object)
            product: Entry = Fraction(1)
            for e in given[0]:
                product = _times(product, e)
            made[...] = product
        else:
            return None
    except Unsure:
        return None
    return None if floating and not all(map(_exact, made.reshape(-1))) else [made]


class Unsure(Exception):
    """What comes out is not an expression for certain."""


def _elementwise(function: Callable[..., Entry], given: Sequence[Array]) -> Array:
    shape = np.broadcast_shapes(*(g.shape for g in given))
    wide = [np.broadcast_to(g, shape).reshape(-1) for g in given]
    out = np.empty(shape, object)
    made = [_settle(function(*row)) for row in zip(*wide, strict=True)]
    if out.ndim:
        out.reshape(-1)[:] = made
    else:
        out[()] = made[0]
    return out


def _settle(entry: Entry) -> Entry:
    number = entry.number if isinstance(entry, Expr) else None
    return entry if number is None else number


def _exact(entry: Entry) -> bool:
    """Whether floating point gives this very value at every size: a few bits, and only halves of them."""
    terms = entry.terms if isinstance(entry, Expr) else (((), entry),)
    return all(
        len(m) <= 1
        and c.denominator & (c.denominator - 1) == 0
        and max(abs(c.numerator), c.denominator) <= 1 << 10
        for m, c in terms
    )  # fmt: skip


def _times(a: Entry, b: Entry) -> Entry:
    return _settle(Expr.of(a) * Expr.of(b))


def _over(a: Entry, b: Entry) -> Entry:
    found = None if isinstance(b, Fraction) and b == 0 else Expr.of(a).over(Expr.of(b))
    if found is None:
        raise Unsure
    return found


def _divide(a: Entry, b: Entry) -> Entry:
    """Division of integers, which rounds towards zero."""
    if isinstance(b, Expr):
        return _over(a, b)
    low = Expr.of(a).bounds()[0]
    if b <= 0 or low is None or low < 0:
        raise Unsure
    return (Expr.of(a) * (1 / b)).floor()


def _remainder(a: Entry, b: Entry) -> Entry:
    if isinstance(b, Expr) or b <= 0:
        raise Unsure
    return Expr.of(a) - (Expr.of(a) * (1 / b)).floor() * b


def _truncate(a: Entry) -> Entry:
    low = Expr.of(a).bounds()[0]
    if low is None or low < 0:
        raise Unsure
    return Expr.of(a).floor()


def _choose(condition: Entry, a: Entry, b: Entry) -> Entry:
    if isinstance(condition, Expr):
        raise Unsure
    return a if condition else b


def _compare(decide: Callable[[Fraction | None, Fraction | None], bool | None]) -> Callable[[Entry, Entry], Entry]:
    """A comparison of ``a - b`` with zero, by the numbers that it never falls below or rises above."""

    def function(a: Entry, b: Entry) -> Entry:
        answer = decide(*(Expr.of(a) - Expr.of(b)).bounds())
        if answer is None:
            raise Unsure
        return Fraction(answer)

    return function


def _equal(low: Fraction | None, high: Fraction | None) -> bool | None:
    if low == 0 and high == 0:
        return True
    return False if (low is not None and low > 0) or (high is not None and high < 0) else None


def _less(low: Fraction | None, high: Fraction | None) -> bool | None:
    if high is not None and high < 0:
        return True
    return False if low is not None and low >= 0 else None


def _less_or_equal(low: Fraction | None, high: Fraction | None) -> bool | None:
    if high is not None and high <= 0:
        return True
    return False if low is not None and low > 0 else None


def _turned(decide: Callable[[Fraction | None, Fraction | None], bool | None]) -> Callable[[Entry, Entry], Entry]:
    function = _compare(decide)
    return lambda a, b: function(b, a)


def _extreme(sign: int) -> Callable[..., Entry]:
    def function(*given: Entry) -> Entry:
        best = given[0]
        for other in given[1:]:
            low, high = ((Expr.of(best) - Expr.of(other)) * sign).bounds()
            if low is not None and low >= 0:
                continue
            if high is None or high > 0:
                raise Unsure
            best = other
        return best

    return function


ELEMENTWISE: dict[str, Callable[..., Entry]] = {
    "Add": lambda a, b: Expr.of(a) + Expr.of(b), "Sub": lambda a, b: Expr.of(a) - Expr.of(b), "Mul": _times,
    "Neg": lambda a: -Expr.of(a), "Floor": lambda a: Expr.of(a).floor(), "Ceil": lambda a: -((-Expr.of(a)).floor()),
    "Equal": _compare(_equal), "Less": _compare(_less), "LessOrEqual": _compare(_less_or_equal),
    "Greater": _turned(_less), "GreaterOrEqual": _turned(_less_or_equal), "Max": _extreme(1), "Min": _extreme(-1),
}  # fmt: skip
INTEGERS, FLOATING = frozenset({6, 7}), frozenset({1, 11})  # ONNX's int32 and int64, float and double
