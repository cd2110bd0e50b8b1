"""The knapsack solvers against each other, against all choices, and by hand."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from secateur.ir import Array, BudgetError
from secateur.passes.allocate.solver.branch import FITS
from secateur.passes.allocate.solver.choice import answer, programme
from secateur.passes.allocate.solver.elimination import Elimination, buckets
from secateur.passes.allocate.solver.polish import polish
from secateur.passes.allocate.solver.problem import Problem
from support.choices import dynamic, greedy

# (cost, loss): A (4, 0) (2, 1) (1, 4); B (6, 0) (3, 2) (2, 5).
COST = [np.array([4, 2, 1]), np.array([6, 3, 2])]
LOSS = [np.array([0.0, 1, 4]), np.array([0.0, 2, 5])]


def solve(problem: Problem, gap: float = 1e-4) -> list[int]:
    return answer(problem, gap).chosen


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
    for chosen in (solve(problem, gap=0), programme(problem, 0, 10).chosen, dynamic(loss, cost, budget)):
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
    # A choice that misses the budget by a rounding error may count as within it.
    loosely = best(loss, cost, pairs, problem.budget * (1 + 1e-9))
    for chosen in (solve(problem, gap=0), programme(problem, 0, 10).chosen):
        assert problem.cost_of(chosen) <= problem.budget * (1 + 1e-6)
        assert loosely - 1e-6 <= problem.loss_of(chosen) <= least + 1e-6


def drawn(rng: np.random.Generator, groups: int, share: float) -> Problem:
    """Any pairs at all, odd sizes, losses that do not fall with cost."""
    sizes = rng.integers(1, 5, groups)
    every = itertools.combinations(range(groups), 2)
    pairs = {(a, b): rng.uniform(0, 9, (sizes[a], sizes[b])) for a, b in every if rng.random() < 0.6}
    loss = [rng.uniform(0, 5, n) for n in sizes]
    problem = Problem(loss, [rng.uniform(0, 3, n) for n in sizes], pairs, 1)
    return Problem(loss, problem.cost, pairs, share * max(problem.cost_of(c) for c in _choices(problem)))


def _choices(problem: Problem) -> itertools.product[tuple[int, ...]]:
    return itertools.product(*(range(len(v)) for v in problem.loss))


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 6), st.floats(0.2, 1.0), st.integers(0, 2**16))
def test_any_pairs_of_groups(groups: int, share: float, seed: int) -> None:
    problem = drawn(np.random.default_rng(seed), groups, share)
    fitting = (c for c in _choices(problem) if problem.cost_of(c) <= problem.budget * FITS)
    least = min(map(problem.loss_of, fitting), default=None)
    if least is None:
        with pytest.raises(BudgetError, match="no choice of widths"):
            solve(problem)
        return
    chosen = solve(problem, gap=0)
    assert problem.cost_of(chosen) <= problem.budget * (1 + 1e-9)
    np.testing.assert_allclose(problem.loss_of(chosen), least, rtol=1e-9, atol=1e-9)
    assert problem.loss_of(solve(problem, gap=0.1)) <= least / 0.9 + 1e-9


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.floats(0, 3), st.integers(0, 2**16))
def test_elimination_is_the_minimum_over_all_choices(groups: int, price: float, seed: int) -> None:
    """Its value, its choice, and for every option the least of all choices that have it."""
    rng = np.random.default_rng(seed)
    problem = drawn(rng, groups, 0.5)
    domains = [np.sort(rng.choice(len(v), rng.integers(1, len(v) + 1), replace=False)) for v in problem.loss]
    turns = buckets([len(v) for v in problem.loss], problem.pairs)
    assert turns is not None
    part = Elimination(problem, turns, domains)
    value = {
        c: problem.loss_of(c) + price * problem.cost_of(c) for c in itertools.product(*map(np.ndarray.tolist, domains))
    }
    found = part.least(price)
    np.testing.assert_allclose([found.value, value[found.chosen]], min(value.values()))
    np.testing.assert_allclose([found.loss, found.cost], [problem.loss_of(found.chosen), problem.cost_of(found.chosen)])
    for g, marginals in enumerate(part.marginals(price)):
        wanted = [min(v for c, v in value.items() if c[g] == k) for k in domains[g]]
        np.testing.assert_allclose(marginals, wanted)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(0, 2**16))
def test_polishing_never_loses_more_and_still_fits(groups: int, seed: int) -> None:
    problem = drawn(np.random.default_rng(seed), groups, 0.6)
    cheapest = min(_choices(problem), key=problem.cost_of)
    if problem.cost_of(cheapest) <= problem.budget:
        chosen = polish(problem, cheapest)
        assert problem.cost_of(chosen) <= problem.budget * (1 + 1e-9)
        assert problem.loss_of(chosen) <= problem.loss_of(cheapest)


def test_tables_that_would_be_large_are_left_to_the_programme() -> None:
    """A clique of five groups needs a table over all of them."""
    every = list(itertools.combinations(range(5), 2))
    assert buckets([10] * 5, every, most=9_999) is None
    turns = buckets([10] * 5, every, most=100_000)
    assert turns is not None
    assert sorted(len(t.scope) for t in turns) == [0, 1, 2, 3, 4]


def test_more_budget_never_loses_more() -> None:
    lost = [Problem(LOSS, COST, {}, b).loss_of(solve(Problem(LOSS, COST, {}, b))) for b in range(3, 12)]
    assert lost == sorted(lost, reverse=True)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_the_scale_of_scores_does_not_matter(scale: float) -> None:
    problem = drawn(np.random.default_rng(3), 6, 0.8)
    other = Problem([v * scale for v in problem.loss], problem.cost, problem.pairs, problem.budget)
    assert solve(other, gap=0) == solve(problem, gap=0)


def test_the_gap_is_nought_where_the_answer_is_proven() -> None:
    for gap in (0.0, 1e-4):
        found = answer(Problem(LOSS, COST, {}, 7), gap)
        assert found.chosen == [0, 1]
        assert found.gap <= gap


def test_an_answer_whose_time_is_over_states_what_may_be_left() -> None:
    """No time for more than the first node: the gap encloses the least loss."""
    rng = np.random.default_rng(5)
    loss = [np.sort(rng.random(12))[::-1] for _ in range(8)]
    cost = [np.sort(rng.integers(1, 1000, 12)).astype(float) for _ in range(8)]
    pairs = {(a, a + 1): np.outer(cost[a], cost[a + 1]) / 500 for a in range(7)}
    problem = Problem(loss, cost, pairs, 0.3 * (sum(c[-1] for c in cost) + sum(m[-1, -1] for m in pairs.values())))
    least = problem.loss_of(answer(problem, 0.0, 60.0).chosen)
    hurried = answer(problem, 0.0, 0.0)
    lost = problem.loss_of(hurried.chosen)
    assert hurried.gap > 0
    assert lost * (1 - hurried.gap) <= least + 1e-9 <= lost + 2e-9
