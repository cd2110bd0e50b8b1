"""Swaps after a greedy choice: by hand, and every pair against the least squares solved anew."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from secateur.ir import Array
from secateur.passes.score import obs_reader
from secateur.passes.score.obs_reader import Reader, moments, removal
from secateur.passes.score.obs_swaps import Read, exchanged, priced, swapped
from support.least_squares import repaired

RIDGE = 0.01


def read(columns: Array, second: Array, weight: Array, ridge: float = RIDGE) -> Read:
    damped, energy = moments(second, weight, None, ridge, np.float64)
    return Read(columns, damped, weight.T, energy)


def test_what_greedy_took_first_comes_back() -> None:
    """The output is 2a + 2b; the third input, a + b and a little, is read with weight 0 and goes first, for nothing.

    Of one that stays it is the best all the same: it says nearly all that a and b say.
    """
    basis = np.array([[1.0, 0, 0], [0, 1, 0], [1, 1, 0.1]])
    one = [read(np.arange(3), basis @ basis.T, np.array([[2.0, 2.0, 0.0]]), 1e-9)]
    kept, costs = swapped(np.arange(3), one, np.array([True, False, False]), np.zeros(3, np.int64))
    assert kept.tolist() == [False, False, True]
    left = 8 - (2 + 2) ** 2 / 2.01  # of <y, y> = 8 what the sum does not explain
    np.testing.assert_allclose(costs, [4 / 8, left / 8], rtol=1e-6)
    bound, _ = swapped(np.arange(3), one, np.array([True, False, False]), np.array([0, 0, 1]))
    assert bound.tolist() == [True, False, False]  # the third is of another set


@settings(max_examples=15, deadline=None)
@given(st.integers(3, 6), st.integers(1, 3), st.integers(1, 4), st.integers(0, 2**16))
def test_every_pair_is_priced_exactly_and_none_helps_in_the_end(width: int, taps: int, outs: int, seed: int) -> None:
    """Two readers, of which one does not read the last unit, and reads another with a window."""
    rng = np.random.default_rng(seed)
    reads, known = [], []
    for columns in (np.repeat(np.arange(width), taps), np.append(np.arange(width - 1), 0)):
        u, weight = rng.standard_normal((40, len(columns))), rng.standard_normal((outs, len(columns)))
        u += u @ rng.standard_normal((len(columns),) * 2)
        reads.append(read(columns, u.T @ u / 40, weight))
        known.append((columns, u.T @ u / 40, weight, reads[-1].energy))

    def cost(kept: Array) -> float:
        return sum(repaired(s, w, ~kept[c], RIDGE) / energy for c, s, w, energy in known)

    kept = np.arange(width) < width // 2
    gone, left = np.flatnonzero(~kept), np.flatnonzero(kept)
    total, change = priced(reads, gone, left, kept)
    np.testing.assert_allclose(total, cost(kept), rtol=1e-7)
    for i, back in enumerate(gone):
        for j, out in enumerate(left):
            np.testing.assert_allclose(
                total + change[i, j], cost(exchanged(kept, [(back, out)])), rtol=1e-6, atol=1e-12
            )
    found, costs = swapped(np.arange(width), reads, kept, np.zeros(width, np.int64))
    assert found.sum() == kept.sum()
    assert all(b < a for a, b in itertools.pairwise(costs))
    others = [cost(exchanged(found, [(i, j)])) for i in np.flatnonzero(~found) for j in np.flatnonzero(found)]
    assert min(others) >= costs[-1] * (1 - 2e-4)


def test_wide_layers_in_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order and the costs of the double precision, also where the inverse is written anew in between."""
    rng = np.random.default_rng(0)
    columns = np.repeat(np.arange(12), 3)
    u, weight = rng.standard_normal((90, 36)) * np.repeat(np.linspace(0.2, 2, 12), 3), rng.standard_normal((5, 36))
    second = u.T @ u / 90
    double = removal(np.arange(12), [Reader.of(columns, second, weight, None, RIDGE)])
    monkeypatch.setattr(obs_reader, "WIDE", 8)
    monkeypatch.setattr(obs_reader, "WAITING", 6)
    single = removal(np.arange(12), [Reader.of(columns, second, weight, None, RIDGE)])
    assert single[0].tolist() == double[0].tolist()
    np.testing.assert_allclose(single[1], double[1], rtol=1e-4)
