"""Optimal brain surgeon on channels: by hand, and each step against the direct least squares."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from secateur.ir import InputError
from secateur.passes import CRITERIA, Pipeline
from secateur.passes.context import Calibration, in_context
from secateur.passes.coupling.couple import Couple
from secateur.passes.notes import Coupling, Importance
from secateur.passes.score import obs_reader
from secateur.passes.score.obs import OBS
from secateur.passes.score.obs_reader import Reader, removal
from secateur.passes.sweep.gather import Gather
from support.least_squares import repaired
from support.network import Net

TINY = 1e-9  # a ridge that is there only so that the inverse exists


def test_of_two_inputs_that_say_the_same_one_is_worth_nothing() -> None:
    """x, x and an independent z, all read with weight 1: an x goes for nothing, then z costs 1 and the other x 4."""
    second = np.array([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]])
    order, added = removal(np.arange(3), [Reader.of(np.arange(3), second, np.ones((1, 3)), None, TINY)])
    assert order.tolist() == [0, 2, 1]
    np.testing.assert_allclose(added, [0, 1 / 5, 4 / 5], atol=1e-6)  # of <y, y> = 2^2 + 1


def test_a_bias_makes_up_for_means() -> None:
    """An input of mean 3 and variance 1 next to one of mean 0 and variance 2: with a bias the first is worth less."""
    second, means, weight = np.diag([10.0, 2.0]), np.array([3.0, 0.0]), np.ones((1, 2))
    without = removal(np.arange(2), [Reader.of(np.arange(2), second, weight, None, TINY)])
    spared = removal(np.arange(2), [Reader.of(np.arange(2), second, weight, means, TINY)])
    assert (without[0].tolist(), spared[0].tolist()) == ([1, 0], [0, 1])
    np.testing.assert_allclose(spared[1], [1 / 3, 2 / 3], rtol=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 6), st.integers(1, 3), st.integers(1, 4), st.integers(0, 2**16))
def test_every_step_is_the_cheapest_repair(width: int, taps: int, outputs: int, seed: int) -> None:
    """Also of windows, and of two readers: after each step the sum is what the set costs, solved anew."""
    rng = np.random.default_rng(seed)
    columns = np.repeat(np.arange(width), taps)
    readers, given_, ridge = [], [], 0.01
    for _ in range(2):
        u, weight = rng.standard_normal((40, len(columns))), rng.standard_normal((outputs, len(columns)))
        second = u.T @ u / 40
        readers.append(Reader.of(columns, second, weight, None, ridge))
        given_.append((second, weight, readers[-1].energy))

    def cost(gone: list[int]) -> float:
        t = np.isin(columns, gone)
        return sum(repaired(second, weight, t, ridge) / energy for second, weight, energy in given_)

    order, added = removal(np.arange(width), readers)
    assert sorted(order.tolist()) == list(range(width))
    for step in range(width):
        before = order[:step].tolist()
        costs = [cost([*before, j]) for j in set(range(width)) - set(before)]
        np.testing.assert_allclose(added[: step + 1].sum(), min(costs), rtol=1e-7)


def test_wide_domains_lose_several_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    u, weight = rng.standard_normal((200, 40)) * np.linspace(0.1, 2, 40), rng.standard_normal((8, 40))
    one = removal(np.arange(40), [Reader.of(np.arange(40), u.T @ u / 200, weight, None, 0.01)])
    monkeypatch.setattr(obs_reader, "STEPS", 10)
    some = removal(np.arange(40), [Reader.of(np.arange(40), u.T @ u / 200, weight, None, 0.01)])
    assert sorted(some[0].tolist()) == list(range(40))
    assert len(set(some[0][:20].tolist()) & set(one[0][:20].tolist())) >= 18


def test_groups_are_readers_of_their_own() -> None:
    """Channels 1 and 5, read with weight 0 by both groups and by nothing else, leave first."""
    net = Net(3, 3, 5, 5, seed=5)
    x = net.relu(net.bn(net.conv("x", 8)))
    y = net.conv(x, 6, groups=2)
    weight = str(net.nodes[-1].inputs[1])
    net.weights[weight][:, 1] = 0
    graph = Gather((OBS(),))(
        in_context(
            Couple()(net.graph(net.head(y))),
            calibration=Calibration([np.random.default_rng(0).standard_normal((3, 3, 5, 5)).astype(np.float32)]),
        )
    )
    importance = OBS()(graph).note(Importance)
    assert importance is not None
    known = importance.scores[~np.isnan(importance.scores)]
    assert set(np.argsort(known)[:2].tolist()) == {1, 5}


def test_costs_of_layers_compare_by_what_they_do_to_the_outputs() -> None:
    """Two layers of the same weights in branches, one of which counts a hundredth in the sum: so do its channels."""
    net = Net(8, 3, 5, 5, seed=5)
    branches = []
    for scale in (1.0, 0.01):
        net.weights[f"scale{scale}"] = np.full((1, 1, 1, 1), scale, np.float32)
        net.rng = np.random.default_rng(5)
        branches.append(net.node("mul", net.conv(net.relu(net.conv("x", 4)), 6), f"scale{scale}"))
    data = Calibration([np.random.default_rng(0).standard_normal((64, 3, 5, 5)).astype(np.float32)])
    graph = in_context(Couple()(net.graph(net.node("add", *branches))), calibration=data)
    coupling, totals = graph.note(Coupling), {}
    assert coupling is not None
    domain = coupling.domain
    for of in ("layers", "outputs"):
        importance = Pipeline((Gather((OBS(of=of),)), OBS(of=of)))(graph).note(Importance)
        assert importance is not None
        sums = [s for d in np.unique(domain) if (s := float(np.nansum(importance.scores[domain == d]))) > 0]
        totals[of] = sums[0] / sums[1]
    assert totals == {"layers": pytest.approx(1, rel=1e-3), "outputs": pytest.approx(1e4, rel=1e-3)}
    with pytest.raises(InputError, match="layers or outputs"):
        OBS(of="both")(graph)  # type: ignore[arg-type]


def test_the_ridge_is_a_number_above_zero() -> None:
    with pytest.raises(InputError, match="give a number above 0"):
        CRITERIA["obs"](ridge=0.0)(Couple()(Net(1, 3, 5, 5).graph("x")))  # type: ignore[call-arg]
