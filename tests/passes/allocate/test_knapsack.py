"""The knapsack allocation against every pair of widths, for both of its losses."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from secateur.ir import Array, InputError
from secateur.passes.allocate import Knapsack
from secateur.passes.allocate.knapsack import lost
from secateur.passes.allocate.select import climb
from secateur.passes.coupling.couple import Couple
from secateur.passes.notes import Coupling, Importance, KeepMask
from support.network import Net

PRICES = (16 * (3 + 3), 16 * (3 + 5))  # multiply-accumulates of a channel in either branch of ``branches``


def kept_of(widths: tuple[int, int], loss: str, scores: list[Array]) -> list[Array]:
    """The scores that the allocation keeps in either of two independent branches, at half of their work."""
    net = Net(1, 3, 4, 4)
    left, right = (net.conv("x", w, 1) for w in widths)
    graph = Couple()(net.graph(net.conv(left, 3, 1), net.conv(right, 5, 1)))
    coupling = graph.note(Coupling)
    assert coupling is not None
    given_ = np.full(coupling.size, np.nan)
    units = [coupling.channels[name].units for name in (left, right)]
    for mine, values in zip(units, scores, strict=True):
        given_[mine] = values
    method = Knapsack(macs=0.5, round_to=1, floor=0.0, loss=loss)  # type: ignore[arg-type]
    mask = method(graph.with_note(Importance(given_, "drawn"))).note(KeepMask)
    assert mask is not None
    return [values[mask.mask[mine]] for mine, values in zip(units, scores, strict=True)]


def worth(kept: list[Array], scores: list[Array], loss: str) -> float:
    if loss == "sum":
        return float(sum(k.sum() for k in kept))
    return float(np.prod([k.sum() / s.sum() for k, s in zip(kept, scores, strict=True)]))


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 7), st.integers(2, 7), st.sampled_from(["share", "sum"]), st.integers(0, 2**16))
def test_no_other_widths_keep_more(one: int, other: int, loss: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = [np.sort(rng.uniform(0.1, scale, n))[::-1] for n, scale in ((one, 5), (other, 50))]
    kept = kept_of((one, other), loss, scores)
    budget = sum(p * n for p, n in zip(PRICES, (one, other), strict=True)) / 2
    choices = itertools.product(range(1, one + 1), range(1, other + 1))
    fitting = [c for c in choices if sum(p * n for p, n in zip(PRICES, c, strict=True)) <= budget]
    if not fitting:
        return
    best = max(worth([s[:n] for s, n in zip(scores, c, strict=True)], scores, loss) for c in fitting)
    assert sum(p * len(k) for p, k in zip(PRICES, kept, strict=True)) <= budget
    assert worth(kept, scores, loss) >= best * (1 - 1e-3)


def test_shares_need_no_common_unit_and_starve_no_layer() -> None:
    """Scores of one branch a thousand times as large: the sum takes the other away, the product does not."""
    scores = [np.linspace(1, 1.1, 10)[::-1], np.linspace(1000, 1100, 10)[::-1]]
    by_share, by_sum = (tuple(map(len, kept_of((10, 10), loss, scores))) for loss in ("share", "sum"))
    assert by_sum[0] == 1
    assert min(by_share) >= 4
    alike = [scores[0], scores[1] / 1000]
    assert tuple(map(len, kept_of((10, 10), "share", alike))) == by_share


def test_losses_by_hand() -> None:
    net = Net(1, 3, 4, 4)
    graph = Couple()(net.graph(net.conv(net.conv("x", 4, 1), 3, 1)))
    coupling = graph.note(Coupling)
    assert coupling is not None
    values = np.array([1.0, 4, 2, 1])
    units = coupling.channels[graph.nodes[0].name].units

    def losses(scores: Array, loss: str) -> Array:
        given_ = np.full(coupling.size, np.nan)
        given_[units] = scores
        ladder = climb(coupling, given_)
        return lost(ladder, int(ladder.orbit[ladder.rung[units[0]]]), np.arange(5), loss)

    np.testing.assert_allclose(losses(values, "sum"), [8, 4, 2, 1, 0])
    np.testing.assert_allclose(losses(values, "share"), [np.log(1e6), *-np.log(np.array([4, 6, 7, 8]) / 8)])
    np.testing.assert_array_equal(losses(values * 0, "share"), np.zeros(5))  # what nobody needs may go for nothing


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(InputError, match=r"knapsack\{loss=log\}: the loss is share or sum"):
        Knapsack(macs=0.5, loss="log")(Net(1, 3, 4, 4).graph("x"))  # type: ignore[arg-type]
