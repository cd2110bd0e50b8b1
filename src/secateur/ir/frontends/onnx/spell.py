"""Attributes that follow the inputs, in the words that operators have for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from secateur.ir.graph import Attr
from secateur.ir.ops import END
from secateur.ir.symbolic import Size


def spelled(op: str, attrs: Mapping[str, Attr], x: tuple[int, ...], out: tuple[int, ...]) -> dict[str, Attr]:
    """Attributes that follow the inputs, said without sizes where the operator has a word for it.

    ``x`` and ``out`` are the shapes of its first input and of its result.
    """
    new = dict(attrs)
    if op == "reshape":
        new["shape"] = _reshaped(attrs["shape"], x, out)
    elif op == "expand":
        lead = len(attrs["shape"]) - len(x)
        pairs = enumerate(attrs["shape"])
        new["shape"] = tuple(-1 if i >= lead and _same(d, x[i - lead]) else d for i, d in pairs)
    elif op == "slice":
        triples = zip(attrs["axes"], attrs["ends"], attrs["steps"], strict=True)
        new["ends"] = tuple(END if s > 0 and _same(e, x[a]) else e for a, e, s in triples)
    return new


def _reshaped(target: Sequence[int], x: tuple[int, ...], out: tuple[int, ...]) -> tuple[int, ...]:
    new = list(target)
    for i, d in enumerate(target):
        if isinstance(d, Size) and i < len(x) and _same(out[i], x[i]):
            new[i] = 0
    # A size that only a run reveals needs the one place for -1 more than others do.
    left = sorted((i for i, d in enumerate(new) if isinstance(d, Size)), key=lambda i: told(new[i]))
    if left and -1 not in new:
        new[left[0]] = -1
    return tuple(new)


def _same(a: int, b: int) -> bool:
    return isinstance(a, Size) and isinstance(b, Size) and a.expr == b.expr


def told(attr: Attr) -> bool:
    """Whether every size in an attribute can be computed from the inputs."""
    if isinstance(attr, tuple):
        return all(map(told, attr))
    return not isinstance(attr, Size) or attr.expr.known
