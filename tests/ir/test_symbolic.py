"""Sizes that carry expressions: arithmetic agrees with numbers at every size, what cancels is plain, names parse."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from secateur.ir import Sym, parse_graph
from secateur.ir.expr import Expr
from secateur.ir.expr_text import parse
from secateur.ir.followed import followed_shapes, said
from secateur.ir.symbolic import Size, as_size, largest, least, resized, scaled, unknown
from secateur.ir.text import reinfer

NAMES = ("H", "W", "batch.1", "T_2")


def sized(sizes: dict[str, int]) -> list[int]:
    return [Size(n, Expr.size(name)) for name, n in sizes.items()]


@st.composite
def programs(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    """Steps of arithmetic on earlier results: an operator, an operand, and another or a constant."""
    count = draw(st.integers(1, 8))
    kinds = st.sampled_from(["+", "-", "*", "//", "min", "max", "scale"])
    return [(draw(kinds), draw(st.integers(0, 20)), draw(st.integers(0, 20))) for _ in range(count)]


def compute(program: list[tuple[str, int, int]], sizes: list[int]) -> list[int]:
    values = [*sizes, 1, 2, 3]
    for kind, i, j in program:
        a, b = values[i % len(values)], values[j % len(values)]
        if abs(a) > 1 << 20 or abs(b) > 1 << 20:
            break  # at other sizes too what follows could not be compared
        if kind == "//":
            values.append(a // (j % 7 + 1))
        elif kind == "scale":
            values.append(scaled(a, (0.5, 1.5, 0.7)[j % 3]))
        else:
            values.append(least(a, b) if kind == "min" else largest(a, b) if kind == "max" else _apply(kind, a, b))
    return values


def _apply(kind: str, a: int, b: int) -> int:
    return a + b if kind == "+" else a - b if kind == "-" else a * b


@settings(max_examples=80, deadline=None)
@given(programs(), st.integers(1, 400), st.integers(1, 400), st.integers(1, 400), st.integers(1, 400))
@example([("+", 0, 0), ("-", 2, 0), ("+", 0, 0), ("+", 0, 0), ("scale", 19, 2)], 1, 1, 1, 1)  # a scale below zero
def test_expressions_give_the_numbers_at_every_size(
    program: list[tuple[str, int, int]], a: int, b: int, c: int, d: int
) -> None:
    first, other = dict(zip(NAMES, (224, 226, 3, 50), strict=True)), dict(zip(NAMES, (a, b, c, d), strict=True))
    derived, plain = compute(program, sized(first)), compute(program, list(first.values()))
    assert [int(v) for v in derived] == plain
    for value, elsewhere in zip(derived, compute(program, sized(other)), strict=False):
        expr = Expr.of(value)
        if type(value) is int and type(elsewhere) is int:
            assert value == elsewhere  # what is plain is the same at every size
        assert expr.at(first) == value
        low, high = expr.bounds()
        assert (low is None or low <= value) and (high is None or value <= high)
        if expr.known:
            assert parse(str(expr)) == expr


def test_what_cancels_is_constant() -> None:
    h, w = sized({"H": 224, "W": 224})
    assert type(h - h + 3) is int
    assert type((h * 6) // (h * 2)) is int
    assert (h + 2 - 3) // 2 + 1 == 112
    assert str(((h - 1) // 2 + 1).expr) == str(((h + 1) // 2).expr)  # type: ignore[attr-defined]
    assert str((h // 2 // 3).expr) == str((h // 6).expr)  # type: ignore[attr-defined]
    assert said((h, w)) != said((w, h))


def test_products_divide_again() -> None:
    n, h = sized({"N": 1, "H": 224})
    half = (h + 1) // 2
    assert said(((n * 16 * half * half) // (n * 16 * half),)) == said((half,))
    odd = (n * h) // half
    assert isinstance(odd, Size)
    assert not odd.expr.known


def test_bounds_decide_minima() -> None:
    h, _ = sized({"H": 224, "W": 5})
    assert said((least(h, h + 1),)) == said((h,))
    assert str(least(h, 512).expr) == "min(H;512)"  # type: ignore[attr-defined]
    margin = (-(-h // 2) - 1) * 2 + 3 - h  # of automatic padding: never negative, by the remainder alone
    assert said((largest(margin, 0),)) == said((margin,))


@pytest.mark.parametrize("text", ["", "H+", "(H", "H//", "min(H)", "H H", "*", "floor(H;0.7)"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises((ValueError, IndexError)):
        parse(text)


def test_factors_that_are_no_powers_of_two_are_only_known_in_a_run() -> None:
    (h,) = sized({"H": 10})
    exact, rough = scaled(h, 1.5), scaled(h, float(np.float32(0.7)))
    assert Expr.of(exact).known
    assert not Expr.of(rough).known
    assert rough == 7
    assert Expr.of(rough).at({"H": 11}) == math.floor(np.float32(11) * np.float32(0.7))
    assert Expr.of(unknown(5, "v#0")).at({"H": 3}) is None
    assert Expr.of(Fraction(1, 2)).number == Fraction(1, 2)


TEXT = """graph g
  in  %x : f32[N:1, 4, H:8, W:6]
  %c = conv(%x, @w) dilation=[1,1] groups=1 pad=[1,1,1,1] stride=[2,2] : f32[N:1, 4, 4, 3]
  %y = resize(%c) coordinate='half_pixel' mode='linear' rounding='floor' scales=None size=[H:8,((W+1)//2):3] : f32[N:1, 4, H:8, ((W+1)//2):3]
  out %y
weights
  @w f32[4, 4, 3, 3]
"""  # noqa: E501


def test_graphs_hold_expressions_as_names() -> None:
    graph = parse_graph(TEXT)
    assert str(graph) == TEXT
    shapes = followed_shapes(graph)
    assert said(shapes["c"][2:]) == (parse("((H+1)//2)"), parse("((W+1)//2)"))
    other = reinfer(resized(graph, {"H": 11, "W": 20}))
    assert other.values["y"].shape == (1, 4, 11, 10)
    assert isinstance(as_size(Sym(3, "H")), Size)
