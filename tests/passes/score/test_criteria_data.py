"""Criteria that look at activations and gradients: examples worked by hand, and their invariants."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from secateur.ir import Array, Graph
from secateur.ir.exporters.torch.module import evaluate
from secateur.passes import CRITERIA
from secateur.passes.context import Calibration, in_context
from secateur.passes.coupling.couple import Couple
from secateur.passes.notes import Coupling, Importance
from secateur.passes.score import subspace
from secateur.passes.score.apoz import margin
from secateur.passes.score.entropy import entropies
from secateur.passes.score.nisp import inf_fs, propagate
from secateur.passes.score.positions import over_norm
from secateur.passes.score.subspace import NEAREST, fold, map_scores, representatives, self_expression
from secateur.passes.sweep import Gates
from secateur.passes.sweep.accumulate import accumulator
from secateur.passes.sweep.gather import Gather
from secateur.passes.sweep.needs import GateSums
from secateur.passes.sweep.read_sites import read_sites, units_at
from secateur.passes.sweep.watch import Gate
from support.network import Net

SEEDS = st.integers(0, 2**16)


def coupling_of(graph: Graph) -> Coupling:
    found = graph.note(Coupling)
    assert found is not None
    return found


def scored(graph: Graph, name: str, x: Array, **options: object) -> Array:
    """Scores of the channels that the first convolution produces."""
    criterion = CRITERIA[name](**options)
    coupled = Couple()(graph)
    note = criterion(Gather((criterion,))(in_context(coupled, calibration=Calibration([x])))).note(Importance)
    assert note is not None
    first = next(n for n in graph.nodes if n.op == "conv")
    return note.scores[coupling_of(coupled).channels[first.name].units]


def rectified(channels: int = 4, size: int = 2) -> Graph:
    """A 1x1 convolution that hands its input on, a ReLU, and a classifier."""
    net = Net(2, channels, size, size)
    graph = net.graph(net.head(net.relu(net.conv("x", channels, 1, bias=False)), 3))
    weight = str(graph.nodes[0].inputs[1])
    return graph.rewrite(weights={**graph.weights, weight: np.eye(channels, dtype=np.float32)[:, :, None, None]})


def test_apoz_by_hand() -> None:
    """8 values a channel of which 8, 2, 4, 2 are zero: mean .5, deviation .30619, so channel 0 alone goes."""
    x = np.ones((2, 4, 4), np.float32)
    for channel, zeros in enumerate([8, 2, 4, 2]):
        flat = np.ones(8, np.float32)
        flat[:zeros] = -1
        x[:, channel] = flat.reshape(2, 4)
    found = scored(rectified(), "apoz", x.reshape(2, 4, 2, 2))
    shares = np.array([1, 0.25, 0.5, 0.25])
    np.testing.assert_allclose(found, (0.80619 - shares) / 0.30619, rtol=1e-4)
    assert (found < 0).tolist() == [True, False, False, False]


@settings(max_examples=15)
@given(SEEDS)
def test_apoz_ignores_positive_scales(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph, x = rectified(), rng.standard_normal((6, 4, 2, 2)).astype(np.float32)
    weight = str(graph.nodes[0].inputs[1])
    grown = graph.weights[weight] * rng.uniform(0.1, 10, (4, 1, 1, 1)).astype(np.float32)
    other = graph.rewrite(weights={**graph.weights, weight: grown})
    np.testing.assert_allclose(scored(other, "apoz", x), scored(graph, "apoz", x))


def test_equal_shares_of_zeros_remove_nothing() -> None:
    assert np.array_equal(margin(np.full(3, 0.1)), np.ones(3))  # their deviation is not 0 in floating point


def test_entropy_by_hand() -> None:
    pooled = np.array([[0, 0, 0.3], [0, 0, 0.3], [0, 1, 0.3], [1, 1, 0.3]])
    np.testing.assert_allclose(entropies(pooled, 2), [0.562335, 0.693147, 0], atol=1e-6)
    assert np.argsort(entropies(pooled, 2)).tolist() == [2, 0, 1]
    near = np.array([[0.0, 1.0], [0.0, 1.001], [1.0, 1.0], [1.0, 1.001]])
    assert entropies(near, 2)[1] == pytest.approx(np.log(2))
    assert entropies(near, 2, shared=True)[1] == 0  # between the layer's extremes it hardly moves


@settings(max_examples=40)
@given(st.integers(2, 30), st.integers(2, 12), st.integers(0, 9), SEEDS)
def test_entropy_has_its_range_and_ignores_order_and_units(examples: int, bins: int, power: int, seed: int) -> None:
    """Whole numbers and factors that are powers of two keep bin edges where they were."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 9, (examples, 3)).astype(float)
    found = entropies(x, bins)
    assert np.all(found >= 0)
    assert np.all(found <= np.log(min(bins, examples)) + 1e-12)
    np.testing.assert_allclose(entropies(x[rng.permutation(examples)], bins), found)
    np.testing.assert_allclose(entropies(x * 2.0**power + 5, bins), found)
    assert entropies(np.full((examples, 1), 0.3), bins)[0] == 0


def test_hrank_by_hand() -> None:
    """After the ReLU: a map of zeros, one of rank 1, one of rank 2 in one of two pictures, one of rank 2 in both."""
    none, one, two = -np.ones((2, 2)), np.ones((2, 2)), np.eye(2)
    x = np.array([[none, one, two, two], [none, one, none, two]], np.float32)
    np.testing.assert_allclose(scored(rectified(), "hrank", x), [0, 0.5, 0.5, 1])


def test_subspace_by_hand() -> None:
    """X1 = 2 X0, X2 apart; the reader [1, 3, 5] becomes [7, 5] on channels 0 and 2, and its output stays."""
    x = np.array([[1.0, 2, 0], [0, 0, 3], [2, 4, 0]])
    gram = x.T @ x
    labels = np.array([0, 0, 1])
    kept = np.array([0, 2])
    assert representatives(gram, labels).tolist() in ([0, 2], [1, 2])  # either of two parallel maps
    a, error = fold(gram, kept, np.array([1]))
    np.testing.assert_allclose(a, [[2, 0]], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(error, 0, atol=1e-9)
    reader = np.array([1.0, 3, 5])
    folded = reader[kept] + reader[[1]] @ a
    np.testing.assert_allclose(folded, [7, 5], rtol=1e-5)
    np.testing.assert_allclose(x[:, kept] @ folded, [7, 15, 14], rtol=1e-5)
    found = map_scores(gram, 2 / 3, 0.1, 0)
    assert sorted(found > 0.5) == [False, True, True]
    assert found[2] > 1  # nothing else explains it


@settings(max_examples=25)
@given(st.integers(1, 3), st.integers(1, 4), SEEDS)
def test_a_fold_is_exact_where_the_kept_maps_span(kept: int, removed: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((40, kept))
    x = np.concatenate([base, base @ rng.standard_normal((kept, removed))], axis=1)
    a, error = fold(x.T @ x, np.arange(kept), np.arange(kept, kept + removed))
    rest = x[:, kept:] - base @ a.T
    assert np.abs(rest).max() <= 1e-3 * np.abs(x).max()
    np.testing.assert_allclose(error, (rest**2).sum(0), atol=1e-6 * (x**2).sum())
    free = rng.standard_normal((40, kept + removed))
    _, error = fold(free.T @ free, np.arange(kept), np.arange(kept, kept + removed))
    assert np.all(error <= (free[:, kept:] ** 2).sum(0) * (1 + 1e-9))  # never worse than dropping


def test_maps_express_themselves_by_their_own_subspace() -> None:
    rng = np.random.default_rng(0)
    one, two = np.zeros((60, 3)), np.zeros((60, 3))
    one[:30] = rng.standard_normal((30, 2)) @ rng.standard_normal((2, 3))
    two[30:] = rng.standard_normal((30, 2)) @ rng.standard_normal((2, 3))
    x = np.concatenate([one, two], axis=1)
    x = x / np.linalg.norm(x, axis=0)
    z = self_expression(x.T @ x, 0.05)
    assert np.abs(z[:3, 3:]).max() == np.abs(z[3:, :3]).max() == 0
    assert np.all(np.diagonal(z) == 0)
    assert np.linalg.norm(x - x @ z) < 0.3 * np.linalg.norm(x)


def test_taylor_by_hand() -> None:
    """z = (1, 2) with g = (1, -1), and (2, 0) with (.5, 3): abs of each example's mean is 0.5 on average.

    Averaging over the batch first would cancel to 0, absolute values of single elements give 1.0.
    """
    net = Net(2, 1, 1, 2)
    graph = Couple()(net.graph(net.head(net.conv("x", 2, 1), 2)))  # a second channel, always zero
    (site,) = read_sites(graph, coupling_of(graph))
    z = np.array([[1.0, 2, 0, 0], [2, 0, 0, 0]], np.float32)
    g = np.array([[1.0, -1, 7, 7], [0.5, 3, 7, 7]], np.float32)
    flat = graph.value(graph.producer[site.node].inputs[0] or "").shape
    values, gradients = (torch.from_numpy(a.reshape(flat)) for a in (z, g))
    axis, units = units_at(graph, coupling_of(graph), site)
    gate = torch.ones(2, len(units), requires_grad=True)
    Gate.apply(values, gate, axis).backward(gradients)
    sums = accumulator(Gates(), graph, coupling_of(graph), 0)
    sums.add(0, 2, {site: gate.grad})
    found = sums.result([a for _, a in sums.state()])
    assert isinstance(found, GateSums)
    (channel, zero) = coupling_of(graph).channels[graph.nodes[0].name].units
    assert found.absolute[channel] / found.examples / 2 == 0.5
    assert found.total[channel] == 0.0  # -1 and +1
    assert np.abs(z * g)[:, :2].mean() == 1.0
    assert found.squares[channel] / found.examples == 1.0  # the gate form
    assert found.absolute[zero] == 0


def test_taylor_divides_by_the_norm_of_the_layer() -> None:
    net = Net(1, 3, 2, 2)
    graph = Couple()(net.graph(net.head(net.conv("x", 2))))
    coupling = coupling_of(graph)
    np.testing.assert_allclose(over_norm(coupling, np.array([3.0, 4])), [0.6, 0.8])
    np.testing.assert_array_equal(over_norm(coupling, np.zeros(2)), np.zeros(2))


def test_taylor_of_a_loss_that_is_linear_is_the_ablation() -> None:
    """Half the mean square has the slope y: with one output value, the gate's derivative is y times its share of y."""
    net = Net(3, 2, 1, 1)
    y = net.conv(net.conv("x", 4, 1, bias=False), 1, 1, bias=False)
    graph = net.graph(y)
    x = np.random.default_rng(0).standard_normal((3, 2, 1, 1)).astype(np.float32)
    hidden, out = (graph.rewrite(outputs=(n.name,)) for n in graph.nodes)
    reader = graph.weights[str(graph.nodes[1].inputs[1])].reshape(-1)
    share = evaluate(hidden, {"x": x})[0].reshape(3, 4) * reader
    slope = share * evaluate(out, {"x": x})[0].reshape(3, 1)
    np.testing.assert_allclose(scored(graph, "taylor", x, form="gate"), np.square(slope).mean(0), rtol=1e-4)
    second = np.square(slope.mean(0) - np.square(slope).mean(0) / 2)  # of a step from 1 to 0
    np.testing.assert_allclose(scored(graph, "taylor", x, form="second"), second, rtol=1e-4, atol=1e-9)


def linear_stack(*weights: Array) -> Graph:
    net = Net(1, weights[0].shape[1])
    x, names = "x", []
    for w in weights:
        names.append(net.weight(f"w{len(names)}", *w.shape))
        x = str(net.node("relu", net.node("linear", x, names[-1], None, transposed=False)))
    made = {n: w.astype(np.float32) for n, w in zip(names, weights, strict=True)}
    return Couple()(net.graph(x).rewrite(weights=made))


def test_nisp_by_hand() -> None:
    """s = (1, 2) through [[1, -2, 0], [.5, 1, -1]] is (2, 4, 2)."""
    graph = linear_stack(np.ones((3, 2)), np.array([[1, -2, 0], [0.5, 1, -1]]), np.ones((2, 2)))
    middle, last, _ = (n.name for n in graph.nodes if n.op == "linear")
    reached = propagate(graph, coupling_of(graph), {last: np.array([1.0, 2])})
    np.testing.assert_allclose(reached[middle], [2, 4, 2])


def line(kernel: int, length: int, pad: int, channels: int = 1) -> Graph:
    net = Net(1, 2, 1, length)
    x = net.conv("x", channels, 1)
    w = net.weight("k", 2, channels, 1, kernel)
    y = net.node("conv", x, w, None, name="y", stride=(1, 1), dilation=(1, 1), pad=(0, pad, 0, pad), groups=1)
    return net.graph(net.conv(y, 2, 1))


def test_nisp_kernel_by_hand() -> None:
    """[1, -3] without padding, two outputs of score 1: (1, 4, 3) by position, together 8 = (1 + 3) * 2."""
    graph = line(2, 3, 0, channels=2)
    kernel = np.array([1.0, -3])
    np.testing.assert_allclose(np.convolve([1, 1], np.abs(kernel)), [1, 4, 3])
    w = np.zeros((2, 2, 1, 2), np.float32)
    w[0, 0, 0] = kernel
    graph = Couple()(graph.rewrite(weights={**graph.weights, "k": w}))
    first = graph.nodes[0].name
    reached = propagate(graph, coupling_of(graph), {"y": np.array([2.0, 0])})
    np.testing.assert_allclose(reached[first], [8, 0])


@settings(max_examples=20)
@given(st.integers(1, 3), st.integers(0, 1), SEEDS)
def test_nisp_is_the_gradient_of_the_absolute_network(kernel: int, pad: int, seed: int) -> None:
    """Without padding equal, with padding an upper bound; linear in the scores it starts from."""
    rng = np.random.default_rng(seed)
    graph = line(kernel, 5, pad, channels=3)
    w = rng.standard_normal((2, 3, 1, kernel)).astype(np.float32)
    graph = Couple()(graph.rewrite(weights={**graph.weights, "k": w}))
    start = rng.uniform(0, 1, (2, 2))
    first = graph.nodes[0].name
    found = [propagate(graph, coupling_of(graph), {"y": s})[first] for s in start]
    x = torch.ones(1, 3, 1, 5, requires_grad=True)
    y = torch.nn.functional.conv2d(x, torch.from_numpy(np.abs(w)), padding=(0, pad))
    places = y.shape[-1]
    (y.double() * torch.from_numpy(start[0]).reshape(1, 2, 1, 1) / places).sum().backward()
    assert x.grad is not None
    by_position = x.grad.sum((0, 2, 3)).numpy()
    if pad == 0 or kernel == 1:
        np.testing.assert_allclose(found[0] if pad == 0 else by_position, by_position, rtol=1e-4)
    assert np.all(found[0] >= by_position * (1 - 1e-5))
    both = propagate(graph, coupling_of(graph), {"y": start[0] + 2 * start[1]})[first]
    np.testing.assert_allclose(both, found[0] + 2 * found[1], rtol=1e-9)


def test_nisp_goes_through_batch_norm_pools_and_branches() -> None:
    """Against the gradient of the network with absolute weights: two branches that are added, an average pool."""
    net = Net(1, 2, 4, 4, seed=2)
    stem = net.conv("x", 3, 1, bias=False)
    body = net.bn(net.conv(stem, 3, 1, bias=False))
    joined = net.node("add", body, stem)
    pooled = net.node("avg_pool", joined, kernel=(2, 2), stride=(2, 2), pad=(0,) * 4, ceil=False, include_pad=False)
    read = net.node("reduce_mean", pooled, axes=(2, 3), keepdims=False)
    graph = Couple()(net.graph(net.linear(read, 2)))
    scores = np.array([1.0, 3, 2])
    reached = propagate(graph, coupling_of(graph), {read: scores})
    w = np.abs(graph.weights[str(graph.nodes[1].inputs[1])]).reshape(3, 3)
    norm = graph.producer[body]
    gamma, var = (graph.weights[str(norm.inputs[i])].astype(float) for i in (1, 4))
    through = w.T @ (scores * np.abs(gamma) / np.sqrt(var + 1e-5))
    np.testing.assert_allclose(reached[stem], scores + through, rtol=1e-5)


@settings(max_examples=20)
@given(st.integers(3, 8), st.integers(2, 5), SEEDS)
def test_inf_fs_follows_its_columns(examples: int, features: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = np.maximum(rng.standard_normal((examples, features)), 0)
    order = rng.permutation(features)
    found = inf_fs(x)
    assert np.all(np.isfinite(found))
    np.testing.assert_allclose(inf_fs(x[:, order]), found[order], rtol=1e-6)
    np.testing.assert_allclose(inf_fs(x[rng.permutation(examples)]), found, rtol=1e-6)  # equal zeros have no order


def test_many_maps_look_at_their_nearest_and_find_the_same_sums() -> None:
    """Every map is the sum of two of 40 directions: 64 neighbours are more than a sparse sum needs."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, 40))[:, rng.integers(0, 40, (150, 2))].sum(2) + 0.01 * rng.standard_normal((100, 150))
    x /= np.linalg.norm(x, axis=0)
    unit = x.T @ x
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subspace, "MANY", 100)
        patch.setattr(subspace, "BLOCK", 64)
        near = self_expression(unit, 0.1)
    assert not np.diagonal(near).any()
    assert ((near != 0).sum(0) <= NEAREST).all()
    mu = 0.1 * np.abs(unit - np.diag(np.diagonal(unit))).max(0)
    losses = [0.5 * ((x - x @ z) ** 2).sum(0) + mu * np.abs(z).sum(0) for z in (near, np.zeros_like(near))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subspace, "MANY", 1000)
        full = self_expression(unit, 0.1, rounds=2000)
    best = 0.5 * ((x - x @ full) ** 2).sum(0) + mu * np.abs(full).sum(0)
    assert losses[0].sum() < best.sum() + 0.05 * (losses[1].sum() - best.sum())
