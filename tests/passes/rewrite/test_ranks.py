"""``low_rank{macs=}``: ranks of all layers together, under a budget."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.ir import Graph, InputError
from secateur.ir.exporters.torch.module import evaluate
from secateur.passes.analysis.cost import cost
from secateur.passes.context import Calibration, in_context
from secateur.passes.rewrite.layers import Rewritten
from secateur.passes.rewrite.low_rank import LowRank
from secateur.passes.rewrite.ranks import Spectrum, ranks_within, spectra_of
from support.network import Net

LOSSES = st.lists(st.floats(0.01, 10), min_size=2, max_size=5)


def spectrum(energies: list[float], whole: int, each: int) -> Spectrum:
    return Spectrum(whole, each, np.append(np.sort(energies).cumsum()[::-1], 0.0))


@given(st.lists(st.tuples(LOSSES, st.integers(2, 30), st.integers(1, 6)), min_size=1, max_size=3), st.floats(0, 1))
@settings(max_examples=120, deadline=None)
def test_ranks_meet_the_budget_and_are_near_the_best(drawn: list[tuple[list[float], int, int]], share: float) -> None:
    """By brute force: no more is given up than the best of all ranks does with one step of the hull less."""
    spectra = {str(i): spectrum(*one) for i, one in enumerate(drawn)}
    choices = [
        [(s.whole, 0.0), *((s.each * r, s.lost[r]) for r in range(1, len(s.lost)) if s.each * r < s.whole)]
        for s in spectra.values()
    ]
    least, most = (sum(f(c for c, _ in options) for options in choices) for f in (min, max))
    limit = int(least + share * (most - least))
    found = ranks_within(spectra, limit, 1)
    spent = sum(spectra[n].each * found[n] if n in found else s.whole for n, s in spectra.items())
    lost = sum(float(spectra[n].lost[r]) for n, r in found.items())
    assert spent <= limit
    for n, rank in found.items():  # nothing more fits
        s = spectra[n]
        assert rank + 1 >= len(s.lost) or s.each * (rank + 1) >= s.whole or spent + s.each > limit
    step = max(s.whole for s in spectra.values())
    fits = [c for c in itertools.product(*choices) if sum(p for p, _ in c) <= limit - step]
    assert not fits or lost <= min(sum(g for _, g in c) for c in fits) + 1e-9


def test_ranks_by_hand() -> None:
    """a gives up 0, 1, 2 at costs of 7, 6, 3: 2 for 4 saved, where b gives up 2.4; with 6 left rank 2 fits."""
    a, b = spectrum([1, 1, 1], 7, 3), spectrum([3, 2.4], 10, 6)
    assert a.hull(1) == [(0.5, 3, 1)]
    assert ranks_within({"a": a, "b": b}, 13, 1) == {"a": 1}
    assert ranks_within({"a": a}, 6, 1) == {"a": 2}
    assert ranks_within({"a": a}, 7, 1) == {}


def test_a_budget_below_the_least_ranks_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"macs=10%.*: the least ranks leave 13.9% of the multiply-accumulates; ask fo"
    ):
        LowRank(macs=0.1)(two()[0])
    with pytest.raises(InputError, match="macs is the share that remains"):
        LowRank(macs=1.5)(two()[0])
    with pytest.raises(InputError, match="2 ranks for 1 layers"):
        LowRank(ranks=(1, 2))(two()[0])
    with pytest.raises(InputError, match=r"low_rank\{rank=2,macs=50%\}: rank, ranks and macs each say"):
        LowRank(rank=2, macs=0.5)(two()[0])


def test_ranks_go_by_patterns_as_layers_do() -> None:
    graph, first, _ = two()
    after = LowRank(layers=("*", first), ranks=(2, 3))(graph)
    assert [n.out.shape[1] for n in after.nodes if n.op == "conv"] == [3, 8, 2, 8]


def test_examples_that_fill_a_fixed_batch_up_count_for_nothing() -> None:
    """Nine examples in batches of eight: the last batch holds one that counts."""
    net = Net(8, 6, 5, 5)
    layer = net.conv("x", 5, 1)
    graph = net.graph(layer)
    x = np.random.default_rng(0).standard_normal((9, 6, 5, 5)).astype(np.float32)
    x[8] *= 10
    found = spectra_of(in_context(graph, calibration=Calibration([x])), graph.nodes, {layer: (10, 1)})[layer].lost
    y = np.concatenate([evaluate(graph, {"x": x[:8]})[0], evaluate(graph, {"x": x[1:]})[0][-1:]])
    variances = y.transpose(1, 0, 2, 3).reshape(5, -1).var(1).sum()
    padded = np.concatenate([y, *[y[-1:]] * 7]).transpose(1, 0, 2, 3).reshape(5, -1).var(1).sum()
    assert abs(found[0] * (y**2).mean() * 5 / variances - 1) < 0.5 < padded / variances - 1


def two() -> tuple[Graph, str, str]:
    """Of two alike layers the second hardly moves the output."""
    net = Net(32, 8, 6, 6)
    first, second = net.conv("x", 8), net.conv("x", 8)
    scale = net.weight("scale", 1)
    net.weights["scale"] = np.array([0.01], np.float32)
    return net.graph(net.node("add", first, net.node("mul", second, scale))), first, second


def test_with_data_a_layer_that_reaches_the_outputs_keeps_more() -> None:
    """Without data both give up alike, with data the one that is scaled down goes to the least rank."""
    graph, first, second = two()
    x = np.random.default_rng(0).standard_normal((32, 8, 6, 6)).astype(np.float32)
    blind = spectra_of(graph, graph.nodes[:2], {first: (10, 1), second: (10, 1)})
    assert blind[first].lost[0] == pytest.approx(blind[second].lost[0]) == pytest.approx(1)
    seeing = spectra_of(in_context(graph, calibration=Calibration([x])), graph.nodes[:2], dict.fromkeys(blind, (10, 1)))
    assert seeing[first].lost[0] > 1000 * seeing[second].lost[0]
    after = LowRank(macs=0.6)(in_context(graph, calibration=Calibration([x])))
    assert cost(after).macs <= 0.6 * cost(graph).macs
    note = after.note(Rewritten)
    assert note is not None
    assert [(r.layer, r.reason) for r in note.rows] == [(first, "the budget leaves it whole"), (second, None)]
    assert note.rows[-1].spec.startswith("low_rank{layers=[")
    assert np.abs(evaluate(after, {"x": x})[0] - evaluate(graph, {"x": x})[0]).max() < 0.1


def test_the_budget_is_of_the_whole_network() -> None:
    """70 % of two alike layers, of which one may change: 40 % of that one."""
    graph, first, _ = two()
    after = LowRank(macs=0.7, layers=(first,))(graph)
    assert 0.6 * cost(graph).macs < cost(after).macs <= 0.7 * cost(graph).macs


def test_what_a_rank_gives_up_is_what_its_responses_lack() -> None:
    """Oracle: with the output itself as the response every channel reaches alike, and the tail is of its covariance."""
    net = Net(64, 6, 5, 5)
    layer = net.conv("x", 5, 1)
    graph = net.graph(layer)
    x = np.random.default_rng(0).standard_normal((64, 6, 5, 5)).astype(np.float32)
    held = in_context(graph, calibration=Calibration([x]))
    found = spectra_of(held, graph.nodes, {layer: (10, 1)})[layer].lost
    y = evaluate(graph, {"x": x})[0].transpose(0, 2, 3, 1).reshape(-1, 5)
    tail = np.append(np.linalg.eigvalsh(np.cov(y.T)).cumsum()[::-1], 0)
    np.testing.assert_allclose(found / found[0], tail / tail[0], rtol=0.3, atol=0.01)
    assert np.all(np.diff(found) <= 0)


def test_ranks_are_multiples_where_that_is_asked_for() -> None:
    net = Net(1, 16, 6, 6)
    graph = net.graph(net.relu(net.conv(net.relu(net.conv("x", 16)), 16)))
    note = LowRank(macs=0.5, round_to=4)(graph).note(Rewritten)
    assert note is not None
    ranks = [int(part) for part in note.rows[-1].spec.partition("ranks=[")[2].partition("]")[0].split(",")]
    assert ranks
    assert all(rank % 4 == 0 for rank in ranks)
