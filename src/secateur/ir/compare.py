"""Whether two graphs are the same up to names: the same operators, attributes and wiring.

Both are walked together from their outputs backward. Operands have an order, so there is one way at most to lay one
graph over the other, and it is found in linear time. Names, sources, the order of nodes, and whether a value is
computed once or twice do not count. What the weights hold is not compared: the pairs in one place are handed out.
"""

from __future__ import annotations

from dataclasses import dataclass

from .graph import Graph, Node


@dataclass(frozen=True)
class Alignment:
    """Pairs of weights in the same place, or the first ``difference`` in words (None where there is none)."""

    weights: tuple[tuple[str, str], ...] = ()
    difference: str | None = None


def align(one: Graph, other: Graph) -> Alignment:
    """Lay two graphs over each other; inputs and outputs correspond in order."""
    if len(one.inputs) != len(other.inputs) or len(one.outputs) != len(other.outputs):
        return Alignment(difference="they take or give another number of values")
    places = {v.name: i for i, v in enumerate(one.inputs)}, {v.name: i for i, v in enumerate(other.inputs)}
    met: dict[tuple[str, str], None] = {}
    pairs: dict[tuple[str, str], None] = {}
    stack = list(zip(reversed(one.outputs), reversed(other.outputs), strict=True))
    while stack:
        a, b = stack.pop()
        if (a, b) in met:
            continue
        met[a, b] = None
        if a in one.weights and b in other.weights:
            mine, theirs = one.weights[a], other.weights[b]
            if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
                return Alignment(difference=f"weight '{a}' is {mine.dtype}{list(mine.shape)}, "
                                            f"'{b}' in its place {theirs.dtype}{list(theirs.shape)}")  # fmt: skip
            pairs[a, b] = None
            continue
        if a in places[0] or b in places[1]:
            if places[0].get(a, -1) != places[1].get(b, -2):
                return Alignment(difference=f"where one reads '{a}' the other reads '{b}'")
            continue
        found = _operands(one, other, a, b)
        if isinstance(found, str):
            return Alignment(difference=found)
        stack.extend(reversed(found))
    return Alignment(tuple(pairs))


def _operands(one: Graph, other: Graph, a: str, b: str) -> list[tuple[str, str]] | str:
    """What the nodes of two values read, in pairs; a sentence where the nodes differ."""
    mine, theirs = one.producer.get(a), other.producer.get(b)
    if mine is None or theirs is None:
        return f"where one computes '{a if mine else b}' the other reads the constant '{b if mine else a}'"
    what = f"'{mine.label}' is {mine.op}, '{theirs.label}' in its place"
    if mine.op != theirs.op:
        return f"{what} is {theirs.op}"
    if dict(mine.attrs) != dict(theirs.attrs):
        keys = {*mine.attrs, *theirs.attrs}
        name = min(k for k in keys if mine.attrs.get(k) != theirs.attrs.get(k))
        return f"{what} has {name} {_short(theirs.attrs.get(name))} instead of {_short(mine.attrs.get(name))}"
    if _position(mine, a) != _position(theirs, b):
        return f"another output of '{mine.label}' is read"
    absent = [i is None for i in mine.inputs], [i is None for i in theirs.inputs]
    if absent[0] != absent[1]:
        return f"{what} has other operands"
    return [(x, y) for x, y in zip(mine.inputs, theirs.inputs, strict=True) if x is not None and y is not None]


def _position(node: Node, name: str) -> int:
    return next(i for i, v in enumerate(node.outputs) if v.name == name)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
