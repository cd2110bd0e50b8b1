"""The knapsack solvers against each other, against all choices, and by hand."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from secateur.ir import Array, BudgetError
from secateur.passes.allocate.choice import Problem, dynamic, greedy, solve

# (cost, loss): A (4, 0) (2, 1) (1, 4); B (6, 0) (3, 2) (2, 5).
COST = [np.array([4, 2, 1]), np.array([6, 3, 2])]
LOSS = [np.array([0.0, 1, 4]), np.array([0.0, 2, 5])]


def test_by_hand() -> None:
    """Budget 7: A4 with B3 loses 2; the greedy hull goes to A2, B3 and loses 3; its bound is 5/3."""
    assert solve(Problem(LOSS, COST, {}, 7)) == [0, 1]
    assert dynamic(LOSS, COST, 7) == [0, 1]
    chosen, bound = greedy(LOSS, COST, 7)
    assert chosen == [1, 1]
    np.testing.assert_allclose(bound, 5 / 3)


@pytest.mark.parametrize("run", [lambda b: solve(Problem(LOSS, COST, {}, b)), lambda b: dynamic(LOSS, COST, b),
                                 lambda b: greedy(LOSS, COST, b)])  # fmt: skip
def test_a_budget_below_the_least_is_refused(run: object) -> None:
    with pytest.raises(BudgetError, match="no choice of widths costs at most 2"):
        run(2)  # type: ignore[operator]


options = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 40)), min_size=1, max_size=5)


def best(loss: list[Array], cost: list[Array], pairs: dict[tuple[int, int], Array], budget: float) -> float:
    """The least loss of all choices that fit; inf if none does."""
    problem = Problem(loss, cost, pairs, budget)
    choices = itertools.product(*(range(len(v)) for v in loss))
    return min((problem.loss_of(c) for c in choices if problem.cost_of(c) <= budget), default=np.inf)


@settings(max_examples=60, deadline=None)
@given(st.lists(options, min_size=1, max_size=4), st.integers(0, 90))
def test_all_ways_agree(groups: list[list[tuple[int, int]]], budget: int) -> None:
    loss = [np.array([float(v) for v, _ in g]) for g in groups]
    cost = [np.array([c for _, c in g]) for g in groups]
    least = best(loss, cost, {}, budget)
    if np.isinf(least):
        for run in (lambda: solve(Problem(loss, cost, {}, budget)), lambda: dynamic(loss, cost, budget)):
            with pytest.raises(BudgetError):
                run()
        return
    problem = Problem(loss, cost, {}, budget)
    for chosen in (solve(problem, gap=0), dynamic(loss, cost, budget)):
        assert problem.cost_of(chosen) <= budget + 1e-6
        np.testing.assert_allclose(problem.loss_of(chosen), least, atol=1e-6)
    chosen, bound = greedy(loss, cost, budget)
    assert problem.cost_of(chosen) <= budget + 1e-6
    assert bound - 1e-9 <= least <= problem.loss_of(chosen) + 1e-9


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 4), st.integers(1, 4), st.floats(0.1, 1.0), st.integers(0, 2**16))
def test_products_of_widths_are_exact(groups: int, levels: int, share: float, seed: int) -> None:
    """A chain of layers: each costs the product of its two widths."""
    rng = np.random.default_rng(seed)
    widths = [np.arange(1, levels + 1) * int(rng.integers(1, 9)) for _ in range(groups)]
    loss = [np.sort(rng.uniform(0, 5, levels))[::-1] for _ in widths]
    cost = [rng.uniform(0, 3, levels) for _ in widths]
    pairs = {(g, g + 1): np.outer(widths[g], widths[g + 1]).astype(float) for g in range(groups - 1)}
    top = Problem(loss, cost, pairs, 1).cost_of([levels - 1] * groups)
    least = best(loss, cost, pairs, share * top)
    if np.isinf(least):
        return
    problem = Problem(loss, cost, pairs, share * top)
    chosen = solve(problem, gap=0)
    assert problem.cost_of(chosen) <= problem.budget * (1 + 1e-6)
    np.testing.assert_allclose(problem.loss_of(chosen), least, atol=1e-6)


def test_more_budget_never_loses_more() -> None:
    lost = [Problem(LOSS, COST, {}, b).loss_of(solve(Problem(LOSS, COST, {}, b))) for b in range(3, 12)]
    assert lost == sorted(lost, reverse=True)
