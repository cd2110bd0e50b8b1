"""Patterns of zeros, worked by hand, and what holds of all of them."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from secateur.ir import InputError
from secateur.passes.sparsify.balanced import Balanced, Kernels
from secateur.passes.sparsify.blocks import pattern_of
from secateur.passes.sparsify.bmwm import BMWM, block_max
from secateur.passes.sparsify.darb import DARB, masks, sizes
from secateur.passes.sparsify.irregular import Irregular
from secateur.passes.sparsify.n_of_m import NOfM
from secateur.passes.sparsify.pattern import Pattern
from secateur.passes.sparsify.rectangles import Rectangles

ROW = np.array([[0.9, 0.8, 0.1, 0.0, 0.7, 0.05, 0.2, 0.6]])
PATTERNS: tuple[Pattern, ...] = (Irregular(), Balanced(4), Balanced(4, 3), BMWM(), DARB(), Rectangles(3, 2))


def kept(mask: np.ndarray) -> list[int]:
    return np.flatnonzero(mask[0]).tolist()


def test_block_max_by_hand() -> None:
    """Four neighbours keep 0.9 and 0.7: 5.9 % less than the two largest. Two keep 2.3, the four largest are 3.0."""
    assert kept(block_max(ROW, 4)) == [0, 4]
    assert kept(block_max(ROW, 2)) == [0, 2, 4, 7]
    top = np.sort(ROW[0])[::-1]
    assert 1 - ROW[block_max(ROW, 4)].sum() / top[:2].sum() == pytest.approx(0.059, abs=5e-4)
    assert 1 - ROW[block_max(ROW, 2)].sum() / top[:4].sum() == pytest.approx(0.233, abs=5e-4)


@pytest.mark.parametrize(("size", "loss"), [(2, 0.114), (4, 0.127), (8, 0.117), (16, 0.104)])
def test_block_max_of_exponential_weights_loses_what_theory_says(size: int, loss: float) -> None:
    """The mean of the largest of B is H_B; of the share 1/B of largest ones it is 1 + ln B."""
    harmonic = sum(1 / i for i in range(1, size + 1))
    assert 1 - harmonic / (1 + np.log(size)) == pytest.approx(loss, abs=6e-4)
    weights = np.random.default_rng(0).exponential(size=(1, 1 << 17))
    mine = weights[block_max(weights, size)].mean()
    best = weights[Irregular().mask(weights, 1 - 1 / size)].mean()
    assert 1 - mine / best == pytest.approx(loss, abs=0.01)


def test_a_row_that_blocks_do_not_fill_keeps_one_more() -> None:
    assert block_max(np.ones((1, 9)), 4).sum() == 3
    assert block_max(np.zeros((2, 3)), 4).sum() == 2
    assert block_max(np.zeros((2, 0)), 4).shape == (2, 0)


def test_bmwm_keeps_as_many_as_are_asked_for() -> None:
    """Three of eight stay: the largest of blocks that begin at 0, 2 and 5. On the way each block loses its least."""
    assert kept(BMWM().mask(ROW, 5 / 8)) == [0, 4, 7]
    assert kept(BMWM().mask(ROW, 0.6)) == [0, 4, 7]
    assert kept(BMWM().toward(ROW, 0.4, 5 / 8)) == [0, 1, 2, 4, 6, 7]
    np.testing.assert_array_equal(BMWM().mask(ROW, 0.75), block_max(ROW, 4))


def test_n_of_m_by_hand() -> None:
    assert kept(NOfM(2, 4).mask(ROW, 0.5)) == [0, 1, 4, 7]
    assert kept(NOfM(1, 3).mask(ROW, 2 / 3)) == [0, 4, 7]
    assert kept(NOfM(1, 4).toward(ROW, 0.5, 0.75)) == [0, 1, 4, 7]
    with pytest.raises(InputError, match=r"2 of 4 stay, which is 50\.00%"):
        NOfM(2, 4).mask(ROW, 0.7)


def test_rectangles_by_hand() -> None:
    """Blocks of 2 x 2: their sums are 3, 2 / 1, 4; half of them stay."""
    importance = np.array([[1.0, 1, 2, 0], [1, 0, 0, 0], [0, 1, 1, 1], [0, 0, 1, 1]])
    found = Rectangles(2, 2).mask(importance, 0.5)
    np.testing.assert_array_equal(found, np.kron([[1, 0], [0, 1]], np.ones((2, 2), bool)))


def test_balanced_by_hand() -> None:
    """Two rows of blocks of two outputs; each keeps one input of three, whatever the other has."""
    importance = np.array([[1.0, 2, 3], [1, 4, 0], [9, 9, 9], [9, 9, 10]])
    found = Balanced(2).mask(importance, 0.6)
    np.testing.assert_array_equal(found, [[0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]])


def test_blocks_begin_anew_with_each_gate() -> None:
    """Two gates of three rows: blocks of two rows, then of one, which is in no block of the next gate."""
    importance = np.array([[1.0, 0], [1, 0], [0, 1], [0, 1], [0, 1], [1, 0]])
    found = Balanced(2).of(1, 2, 3).mask(importance, 0.5)
    np.testing.assert_array_equal(found, importance > 0)
    assert not np.array_equal(Balanced(2).mask(importance, 0.5), found)


def test_whole_kernels_by_hand() -> None:
    """Kernels of two taps, eight of them: sums are 3, 4, 5 .. in one row of blocks, the reverse in the other."""
    first = np.repeat(np.arange(1.0, 9), 2)[None] + np.array([[0.5], [0.5]])
    importance = np.concatenate([first, first[:, ::-1]])
    found = Kernels(2).of(2, 16, 4).mask(importance, 0.7)
    np.testing.assert_array_equal(found[:2], np.tile(np.repeat(np.arange(8) >= 6, 2), (2, 1)))
    np.testing.assert_array_equal(found[2:], found[:2, ::-1])
    assert Kernels(2).of(9, 27, 4) == Balanced(2, 1, 4)  # three kernels: a share of them is too coarse


def test_darb_gives_dense_rows_smaller_blocks() -> None:
    """One row has its weight in one number, the other in all: with half of 16 the other stays nearly whole."""
    importance = np.array([[16.0, 0, 0, 0, 0, 0, 0, 0], [2.0] * 8])
    found = DARB().mask(importance, 0.4375)
    assert found.sum(1).tolist() == [1, 8]


@given(st.integers(0, 99), st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=60)
def test_sizes_are_at_most_a_step_from_the_best(seed: int, rows: int, options: int) -> None:
    """Next to all combinations: never over the budget, and no worse than the best of a budget less the widest step."""
    rng = np.random.default_rng(seed)
    counts = np.sort(rng.integers(1, 9, (rows, options)), 1)[:, ::-1].copy()
    losses = np.sort(rng.random((rows, options)), 1)
    allowed = int(rng.integers(counts[:, -1].sum(), counts[:, 0].sum() + 1))
    chosen = sizes(losses, counts, allowed)
    every = np.stack(np.meshgrid(*[np.arange(options)] * rows, indexing="ij"), -1).reshape(-1, rows)
    cost, loss = (t[np.arange(rows), every].sum(1) for t in (counts, losses))
    mine = np.arange(rows), chosen
    assert counts[mine].sum() <= allowed
    less = allowed - int(counts.max() - counts.min())
    if np.any(cost <= less):
        assert losses[mine].sum() <= loss[cost <= less].min() + 1e-9


def test_darb_across_layers_takes_from_the_layer_that_needs_less() -> None:
    one, other = np.eye(4, 8) + 1e-3, np.ones((4, 8))
    alone = [DARB().mask(x, 0.5) for x in (one, other)]
    both = masks([one, other], 0.5)
    assert sum(m.sum() for m in both) <= 32
    assert both[1].sum() > alone[1].sum()


# --- what holds of all ----------------------------------------------------------------------------------------------


@given(st.sampled_from(PATTERNS), st.integers(1, 20), st.integers(1, 80), st.integers(0, 900), st.integers(0, 99))
@settings(max_examples=150)
def test_at_least_the_share_goes_and_scale_does_not_matter(
    pattern: Pattern, rows: int, columns: int, permille: int, seed: int
) -> None:
    columns *= pattern.columns if isinstance(pattern, Balanced) else 1  # the taps of each input
    importance, sparsity = np.random.default_rng(seed).exponential(size=(rows, columns)), permille / 1000
    try:
        found = pattern.mask(importance, sparsity)
    except InputError:  # no block is wide enough for such short rows
        assert isinstance(pattern, DARB | BMWM)
        return
    assert found.shape == importance.shape
    np.testing.assert_array_equal(found, pattern.mask(importance * 8, sparsity))
    assert 1 - found.mean() >= sparsity - 1e-9
    if isinstance(pattern, Irregular):
        assert found.sum() == found.size * (1000 - permille) // 1000


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda p: p.name)
def test_rows_and_layers_of_zeros(pattern: Pattern) -> None:
    importance = np.zeros((8, 32))
    assert pattern.mask(importance, 0.75).sum() <= 64
    importance[:4] = 1
    assert pattern.mask(importance, 0.75).shape == (8, 32)


def test_how_patterns_are_spelled() -> None:
    assert pattern_of("auto", 16) == Balanced(16)
    assert pattern_of("kernels", 16) == Kernels(16)
    assert pattern_of("2:4", 8) == NOfM(2, 4)
    assert pattern_of("8x1", 8) == Rectangles(8, 1)
    for wrong in ("", "4", "x", "2:", "0x4", "4:2", "0:3", "balanced", "99999x1"):
        with pytest.raises(InputError, match="--block"):
            pattern_of(wrong, 8)


def test_shares_that_no_block_expresses_are_refused() -> None:
    with pytest.raises(InputError, match=r"98\.44%"):
        BMWM().mask(np.ones((4, 640)), 0.99)
    with pytest.raises(InputError, match="at most here"):
        DARB().mask(np.ones((4, 4)), 0.9)
