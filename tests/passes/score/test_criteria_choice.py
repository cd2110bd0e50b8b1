"""Criteria that choose channels together: LASSO, DCP and CCP by hand, and against slower ways to the same answer."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from secateur.ir import Array
from secateur.passes.score.ccp import removal
from secateur.passes.score.dcp import selection_order
from secateur.passes.score.lasso import grid_path, lasso_path, path_scores
from secateur.passes.score.positions import by_order
from secateur.passes.score.quadratic import project, relaxed, solve, swapped, value
from support.choices import exact, support_of

SEEDS = st.integers(0, 2**16)


def test_lasso_by_hand() -> None:
    """z1 = (2, 0), z2 = (0, 1), y = (2, 1): factors max(2 - l, 0) / 2 and max(.5 - l, 0) / .5, l of a mean over 2."""
    z = np.array([[2.0, 0], [0, 1]])
    y = np.array([2.0, 1])
    alphas, factors = lasso_path(z.T @ z, z.T @ y)
    np.testing.assert_allclose(alphas / 2, [2, 0.5, 0], atol=1e-8)
    for penalty, column in zip(alphas / 2, factors.T, strict=True):
        want = [max(2 - penalty, 0) / 2, max(0.5 - penalty, 0) / 0.5]
        np.testing.assert_allclose(column, want, atol=1e-8)
    assert factors[0, 1] == pytest.approx(0.75)  # where one channel alone is left for the last time
    assert support_of(z.T @ z, z.T @ y, 1).tolist() == [True, False]
    np.testing.assert_allclose(path_scores(z.T @ z, z.T @ y), [1, 0.25], rtol=1e-6)
    refitted = float(z[:, 0] @ y / (z[:, 0] @ z[:, 0]))
    assert refitted == 1  # the second step, on the support
    assert ((y - refitted * z[:, 0]) ** 2).sum() == 1


@settings(max_examples=25)
@given(st.integers(2, 6), SEEDS)
def test_the_gram_path_is_that_of_the_data(width: int, seed: int) -> None:
    from sklearn.linear_model import Lasso

    rng = np.random.default_rng(seed)
    z = rng.standard_normal((30, width)) * rng.uniform(0.3, 2, width)
    y = z.sum(1)
    alphas, factors = lasso_path(z.T @ z, z.T @ y)
    for share in (0.7, 0.3, 0.05):
        penalty = share * alphas[0]
        direct = Lasso(alpha=penalty / len(z), fit_intercept=False, tol=1e-12, max_iter=100_000).fit(z, y).coef_
        between = [np.interp(penalty, alphas[::-1], row[::-1]) for row in factors]
        np.testing.assert_allclose(between, direct, atol=1e-6)
    np.testing.assert_allclose(factors[:, -1], 1, rtol=1e-5)  # all channels, no penalty: nothing changes


@settings(max_examples=25)
@given(st.integers(1, 7), SEEDS)
def test_lasso_scores_follow_their_channels(width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((40, width))
    gram, order = z.T @ z, rng.permutation(width)
    found = path_scores(gram, gram.sum(1))
    assert np.all(np.isfinite(found))
    np.testing.assert_allclose(path_scores(gram[np.ix_(order, order)], gram.sum(1)[order]), found[order], atol=1e-6)
    np.testing.assert_allclose(path_scores(gram * 7, gram.sum(1) * 7), found, atol=1e-6)


def test_dcp_by_hand() -> None:
    """Contributions 2 (1, 1) and (1, -1): channel 0 first; what is left of the loss is 1, 1/5, 0."""
    a = np.array([[2.0, 1], [2, -1]])
    gram = a.T @ a
    order, gain = selection_order(gram, gram.sum(1), np.zeros(2), float(gram.sum()))
    assert order.tolist() == [0, 1]
    np.testing.assert_allclose(gain, [0.8, 0.2], rtol=1e-6)
    np.testing.assert_allclose(gain.sum(), 1, rtol=1e-6)
    turned, _ = selection_order(gram, gram.sum(1), np.array([0.0, 1]), float(gram.sum()))
    assert turned.tolist() == [1, 0]  # the network's own loss may say otherwise


@settings(max_examples=30)
@given(st.integers(1, 7), st.integers(2, 9), SEEDS)
def test_dcp_solves_for_all_that_joined(width: int, samples: int, seed: int) -> None:
    """The loss after each round is that of the least squares on the chosen set, and never rises."""
    a = np.random.default_rng(seed).standard_normal((samples, width))
    gram, y = a.T @ a, a.sum(1)
    order, gain = selection_order(gram, gram.sum(1), np.zeros(width), float(y @ y))
    assert sorted(order.tolist()) == list(range(width))
    assert np.all(gain >= 0)
    for size in range(1, width + 1):
        chosen = a[:, order[:size]]
        left = y - chosen @ np.linalg.lstsq(chosen, y, rcond=None)[0]
        np.testing.assert_allclose(1 - gain[:size].sum(), left @ left / (y @ y), atol=1e-5)


# Derivatives of two examples by three gates: u = (0, 0, .5).
A = np.array([[1, -1, 0.5], [-1, 1, 0.5]])


def test_ccp_by_hand() -> None:
    """The best single channel is the third; the best pair is the other two."""
    u, s = A.mean(0), A.T @ A / 4
    np.testing.assert_allclose(u, [0, 0, 0.5])
    np.testing.assert_allclose(s, [[0.5, -0.5, 0], [-0.5, 0.5, 0], [0, 0, 0.125]])
    singles = [value(u, s, d) for d in np.eye(3)]
    np.testing.assert_allclose(singles, [0.5, 0.5, -0.375])
    pairs = {p: value(u, s, np.isin(np.arange(3), p).astype(float)) for p in itertools.combinations(range(3), 2)}
    assert pairs == pytest.approx({(0, 1): 0, (0, 2): 0.125, (1, 2): 0.125})
    assert solve(u, s, 1).tolist() == [False, False, True]
    assert solve(u, s, 2).tolist() == [True, True, False]
    assert exact(u, s, 2)[0].tolist() == [True, True, False]
    scores = by_order(*removal(u, s, solve(u, s, 2)))
    assert np.argmax(scores) == 2
    assert value(u, s, np.zeros(3)) == 0


def drawn(width: int, seed: int) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((int(rng.integers(1, 12)), width)) * rng.uniform(0, 2, width)
    return a, a.mean(0), a.T @ a / (2 * len(a))


@settings(max_examples=12)
@given(st.integers(2, 7), st.data(), SEEDS)
def test_ccp_bounds_enclose_the_best_choice(width: int, data: st.DataObject, seed: int) -> None:
    k = data.draw(st.integers(1, width - 1))
    a, u, s = drawn(width, seed)
    best = min(value(u, s, np.isin(np.arange(width), p).astype(float)) for p in itertools.combinations(range(width), k))
    proven, least = exact(u, s, k)
    assert proven.sum() == k
    assert least == pytest.approx(best, abs=1e-7)
    d, bound = relaxed(u, s, k)
    assert bound <= best + 1e-9
    rounded = np.isin(np.arange(width), np.argsort(-d, kind="stable")[:k])
    after = swapped(u, s, rounded)
    assert after.sum() == solve(u, s, k).sum() == k
    assert best - 1e-9 <= value(u, s, after.astype(float)) <= value(u, s, rounded.astype(float)) + 1e-12
    chosen = proven.astype(float)
    np.testing.assert_allclose(value(u, s, chosen), ((a @ chosen - 1) ** 2).mean() / 2 - 0.5, atol=1e-9)


@settings(max_examples=12)
@given(st.integers(2, 7), st.data(), SEEDS)
def test_ccp_without_cross_terms_sorts(width: int, data: st.DataObject, seed: int) -> None:
    k = data.draw(st.integers(1, width - 1))
    rng = np.random.default_rng(seed)
    u, diagonal = rng.standard_normal(width), rng.uniform(0, 2, width)
    want = np.zeros(width, bool)
    want[np.argsort(diagonal - u)[:k]] = True
    assert np.array_equal(solve(u, np.diag(diagonal), k), want)
    assert np.array_equal(exact(u, np.diag(diagonal), k)[0], want)


@settings(max_examples=25)
@given(st.integers(1, 8), st.data(), SEEDS)
def test_the_removal_order_begins_with_the_chosen_set(width: int, data: st.DataObject, seed: int) -> None:
    k = data.draw(st.integers(0, width))
    _, u, s = drawn(width, seed)
    removed = solve(u, s, k)
    order, _ = removal(u, s, removed)
    assert sorted(order.tolist()) == list(range(width))
    assert set(order[:k].tolist()) == set(np.flatnonzero(removed).tolist())
    scores = by_order(*removal(u, s, removed))
    assert np.array_equal(np.argsort(scores, kind="stable"), order)


@settings(max_examples=25)
@given(st.integers(1, 8), st.data(), SEEDS)
def test_projection_hits_the_sum(width: int, data: st.DataObject, seed: int) -> None:
    k = data.draw(st.integers(0, width))
    found = project(np.random.default_rng(seed).standard_normal(width), k, np.zeros(width), np.ones(width))
    assert found.sum() == pytest.approx(k, abs=1e-9)
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.parametrize("width", [1, 2, 5])
def test_a_matrix_without_information_gives_finite_scores(width: int) -> None:
    """Zero and rank one (all channels alike): ties go by the index, no number is NaN."""
    for gram in (np.zeros((width, width)), np.ones((width, width))):
        target, bonus = gram.sum(1), np.zeros(width)
        order, gain = selection_order(gram, target, bonus, float(gram.sum()))
        for scores in (
            path_scores(gram, target),
            by_order(order[::-1], gain[::-1]),
            by_order(*removal(np.zeros(width), gram, solve(np.zeros(width), gram, width // 2))),
        ):
            assert np.all(np.isfinite(scores))


def test_the_grid_of_penalties_ranks_as_the_exact_path_does() -> None:
    """Rank correlation of the scores of 60 channels, with both ways of following the path."""
    rng = np.random.default_rng(0)
    parts = rng.standard_normal((300, 60)) @ np.where(rng.random((60, 60)) < 0.1, rng.standard_normal((60, 60)), 0)
    parts += rng.standard_normal((300, 60))
    gram = parts.T @ parts
    penalties, factors = grid_path(gram, gram.sum(1))
    assert (np.diff(penalties) < 0).all()
    assert not factors[:, 0].any()
    exact, knots = lasso_path(gram, gram.sum(1))
    ranks = []
    for steps, path in ((penalties, factors), (exact, knots)):
        entered = np.where((path != 0).any(1), (path != 0).argmax(1), len(steps) - 1)
        ranks.append(np.argsort(np.argsort(-steps[entered], kind="stable")))
    assert np.corrcoef(ranks)[0, 1] > 0.99


def test_a_grid_without_information_is_empty() -> None:
    penalties, factors = grid_path(np.zeros((5, 5)), np.zeros(5))
    assert penalties.tolist() == [0.0]
    assert not factors.any()
