"""Expressions of sizes from their text, as in ``((H+1)//2)``: the name of a ``Sym``."""

from __future__ import annotations

import re
from functools import lru_cache

from .expr import Atom, Expr, quotient

_TOKEN = re.compile(r"\s*(//|[-+*();]|[^-+*/();\s]+)")


@lru_cache(maxsize=4096)  # a graph repeats a few names in thousands of dimensions
def parse(text: str) -> Expr:
    """The expression of a ``Sym``'s name. Raises ValueError."""
    tokens = [*_TOKEN.findall(text), ""]
    if "".join(tokens) != re.sub(r"\s", "", text):
        raise ValueError(f"'{text}' is not a size")
    found, rest = _sum(tokens)
    if rest != [""]:
        raise ValueError(f"'{text}' is not a size")
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
            raise ValueError("sizes by a factor that is not a power of two cannot be computed again")
        return Expr.atom(Atom(head, args=(a, b))), tokens[1:]
    if head == "(":
        value, tokens = _sum(tokens)
        if tokens[0] != ")":
            raise ValueError("a bracket is not closed")
        return value, tokens[1:]
    if not head or head in "+-*/();":
        raise ValueError("a size is missing")
    return (Expr.of(int(head)) if head.isdigit() else Expr.size(head)), tokens
