"""Criteria that read weights: examples worked by hand, and what their scores must not depend on."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from secateur.ir import Array, Graph, InputError
from secateur.passes import ALLOCATORS, CRITERIA
from secateur.passes.coupling.couple import Couple
from secateur.passes.notes import Coupling, Importance, KeepMask
from secateur.passes.score.clusters import gaussian_affinity, spectral_clusters, spectral_embedding
from secateur.passes.score.l2 import euclidean
from secateur.passes.score.lamp import shares_of_rest
from secateur.passes.score.scsp import cluster_scores
from secateur.passes.score.slots import position_norms
from secateur.passes.score.whc import weighted_differences
from support.network import Net
from support.selection import connection_sensitivity, top_connections

SEEDS = st.integers(0, 2**16)


def two_layers(first: Array, second: Array) -> Graph:
    """1x1 convolutions with these weights, then a classifier."""
    net = Net(1, first.shape[1], 2, 2)
    x = net.conv("x", len(first), 1, bias=False)
    y = net.conv(x, len(second), 1, bias=False)
    graph = net.graph(net.head(y, 2))
    names = [str(n.inputs[1]) for n in graph.nodes if n.op == "conv"]
    weights = dict(zip(names, (first[:, :, None, None], second[:, :, None, None]), strict=True))
    return Couple()(graph.rewrite(weights={**graph.weights, **{n: w.astype(np.float32) for n, w in weights.items()}}))


def test_lamp_by_hand() -> None:
    """Filters (2, 0), (0, 1), (2, 2) have the squares 4, 1, 8: the rest after them in rising order is 12, 13 and 8."""
    graph = two_layers(np.array([[2.0, 0], [0, 1], [2, 2]]), np.eye(3))
    np.testing.assert_allclose(scores(graph, "lamp")[:3], [4 / 12, 1 / 13, 1], rtol=1e-6)
    assert shares_of_rest(np.zeros(3)).tolist() == [0, 0, 0]
    assert shares_of_rest(np.array([2.0, 2.0])).tolist() == [0.5, 1]


@settings(max_examples=20)
@given(SEEDS)
def test_lamp_does_not_depend_on_how_large_a_layer_is(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.standard_normal((5, 3)), rng.standard_normal((4, 5))
    found = scores(two_layers(first, second), "lamp")
    np.testing.assert_allclose(scores(two_layers(first * 3, second / 7), "lamp"), found, rtol=1e-5)
    assert (found[:9] <= 1).all()


def test_whc_by_hand() -> None:
    """(3, 0) and (-1, 0) lie on one line; (0, 2) is at right angles to both: 3*2, 1*2 and 2*3 + 2*1."""
    found = weighted_differences(np.array([[3.0, 0], [-1, 0], [0, 2]]))
    assert found.tolist() == [6, 2, 8]
    graph = two_layers(np.array([[3.0, 0], [-1, 0], [0, 2]]), np.eye(3))
    np.testing.assert_allclose(scores(graph, "whc")[:3], np.array([6, 2, 8]) / (16 / 3), rtol=1e-6)


def scores(graph: Graph, spec: str, **options: object) -> Array:
    note = CRITERIA[spec](**options)(graph).note(Importance)
    assert note is not None
    return note.scores


def of_layer(graph: Graph, number: int, spec: str, **options: object) -> Array:
    """Scores of the channels that convolution ``number`` produces."""
    coupling = graph.note(Coupling)
    assert coupling is not None
    node = [n for n in graph.nodes if n.op == "conv"][number]
    return scores(graph, spec, **options)[coupling.channels[node.name].units]


def test_l1_by_hand() -> None:
    """Sums 3.5, 0.4, 4.0: filter 1 goes first."""
    weight = np.array([[[[1, -2]], [[0, 0.5]]], [[[0.1, 0]], [[-0.1, 0.2]]], [[[3, 0]], [[0, -1]]]], np.float32)
    net = Net(1, 2, 3, 4)
    name = net.weight("w", *weight.shape)
    y = net.node("conv", "x", name, None, stride=(1, 1), dilation=(1, 1), pad=(0, 0, 0, 0), groups=1)
    graph = net.graph(net.head(y))
    graph = Couple()(graph.rewrite(weights={**graph.weights, name: weight}))
    np.testing.assert_allclose(
        of_layer(graph, 0, "l1"), np.array([3.5, 0.4, 4.0]) / np.mean([3.5, 0.4, 4.0]), rtol=1e-6
    )


def test_l1_greedy_turns_the_order_by_hand() -> None:
    """Channel 0 of the first layer is the smaller: without its column [7, 4] becomes [2, 4]."""
    graph = two_layers(np.array([[1.0, 0], [3, 3]]), np.array([[5.0, 1, 1], [0, 2, 2]])[:, :2])
    np.testing.assert_allclose(of_layer(graph, 1, "l1"), np.array([6, 2]) / 4)
    np.testing.assert_allclose(of_layer(graph, 1, "l1", greedy=0.5), np.array([1, 2]) / 1.5)
    wide = two_layers(np.array([[1.0, 0], [3, 3], [3, 3]]), np.array([[5.0, 1, 1], [0, 2, 2]]))
    np.testing.assert_allclose(of_layer(wide, 1, "l1"), np.array([7, 4]) / 5.5)
    np.testing.assert_allclose(of_layer(wide, 1, "l1", greedy=0.34), np.array([2, 4]) / 3)


@settings(max_examples=20)
@given(SEEDS)
def test_l1_ignores_signs_and_the_order_of_inputs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.standard_normal((4, 3)), rng.standard_normal((5, 4))
    one = two_layers(first, second)
    signs = rng.choice([-1, 1], second.shape)
    order = rng.permutation(4)
    other = two_layers(first[order], (second * signs)[:, order])
    np.testing.assert_allclose(of_layer(other, 1, "l1"), of_layer(one, 1, "l1"), rtol=1e-5)
    np.testing.assert_allclose(of_layer(other, 0, "l1"), of_layer(one, 0, "l1")[order], rtol=1e-5)
    share = 0.25
    alone, greedy = of_layer(one, 1, "l1"), of_layer(one, 1, "l1", greedy=share)
    gone = np.abs(first).sum(1).argmin()
    left = np.delete(np.abs(second), gone, axis=1).sum(1)
    np.testing.assert_allclose(greedy, left / left.mean(), rtol=1e-5)
    assert np.all(left <= np.abs(second).sum(1))
    np.testing.assert_allclose(of_layer(one, 1, "l1", greedy=0.1), alone, rtol=1e-5)  # a tenth of 4 is none


def test_group_norms_by_hand() -> None:
    """Filters 5 and 10, channels 5 and 10; filter norms of the first layer and channel norms of the second add up."""
    weight = np.zeros((2, 2, 1, 2), np.float32)
    weight[0, 0, 0], weight[1, 1, 0] = [3, 4], [6, 8]
    coupling = two_layers(np.array([[3.0, 4, 0, 0], [0, 0, 6, 8]]), np.array([[3.0, 0], [4, 0]]))
    np.testing.assert_allclose(euclidean(weight.reshape(2, -1)), [5, 10])
    np.testing.assert_allclose(of_layer(coupling, 0, "group_lasso", groups="filter"), np.array([5, 10]) / 7.5)
    np.testing.assert_allclose(of_layer(coupling, 0, "group_lasso", groups="channel"), np.array([5, 0]) / 2.5)
    np.testing.assert_allclose(of_layer(coupling, 0, "group_lasso"), np.array([5, 10]) / 7.5 + np.array([5, 0]) / 2.5)
    from secateur.passes.notes import Slot

    by_channel = position_norms(weight, Slot("w", 1, np.arange(2), "in", "n"), euclidean)
    np.testing.assert_allclose(by_channel, [5, 10])


def slimmable() -> Graph:
    """Two batch norms with scales .9, .01, .5 and .02, .7."""
    net = Net(1, 3, 4, 4)
    x = net.relu(net.bn(net.conv("x", 3, 1)))
    y = net.relu(net.bn(net.conv(x, 2, 1)))
    graph = net.graph(net.head(y, 2))
    scales = [str(n.inputs[1]) for n in graph.nodes if n.op == "batch_norm"]
    values = (np.array([0.9, -0.01, 0.5], np.float32), np.array([0.02, 0.7], np.float32))
    return Couple()(graph.rewrite(weights={**graph.weights, **dict(zip(scales, values, strict=True))}))


def test_slimming_takes_exactly_its_share_by_rank() -> None:
    """40 % of 5 channels are the two smallest: the reference code's threshold would take .5 too."""
    scored = CRITERIA["slimming"]()(slimmable())
    kept = ALLOCATORS["global"](channels=0.6, round_to=1, floor=0.0)(scored).note(KeepMask)
    coupling = scored.note(Coupling)
    assert kept is not None
    assert coupling is not None
    first, second = (coupling.channels[n.name].units for n in scored.nodes if n.op == "batch_norm")
    assert kept.mask[first].tolist() == [True, False, True]
    assert kept.mask[second].tolist() == [False, True]


def test_scsp_by_hand() -> None:
    """Two pairs that have nothing to do with each other; the pair of small norms goes."""
    v = np.array([[1, 0], [0.9, 0], [0, 0.1], [0, 0.2]])
    affinity = gaussian_affinity(v, sigma=0.2)
    np.testing.assert_allclose([affinity[0, 1], affinity[2, 3]], 0.882497, rtol=1e-5)
    assert affinity[:2, 2:].max() < 3.6e-5
    _, values = spectral_embedding(affinity, 2)
    np.testing.assert_allclose(values, [0, 7.4e-5], atol=2e-6)
    labels = spectral_clusters(affinity, 2)
    assert labels[0] == labels[1] != labels[2] == labels[3]
    norms = euclidean(v)
    found = cluster_scores(norms, labels, representatives=False)
    np.testing.assert_allclose(found, [0.95, 0.95, 0.15, 0.15], atol=1e-5)
    assert np.argsort(found).tolist() == [2, 3, 1, 0]
    keeping = cluster_scores(norms, labels, representatives=True)
    assert set(np.argsort(keeping)[2:].tolist()) == {0, 3}


@settings(max_examples=25)
@given(st.lists(st.integers(2, 5), min_size=2, max_size=4), SEEDS)
def test_components_are_recovered(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    affinity = np.where(truth[:, None] == truth[None, :], rng.uniform(0.2, 1, (len(truth),) * 2), 0.0)
    affinity = (affinity + affinity.T) / 2
    np.fill_diagonal(affinity, 0)
    labels = spectral_clusters(affinity, len(sizes))
    assert np.array_equal(labels[:, None] == labels[None, :], truth[:, None] == truth[None, :])


@settings(max_examples=25)
@given(st.integers(3, 6), SEEDS)
def test_duplicate_filters_share_a_cluster(distinct: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    which = np.concatenate([np.arange(distinct), rng.integers(0, distinct, 4)])
    labels = spectral_clusters(gaussian_affinity(rng.standard_normal((distinct, 6))[which]), max(2, distinct // 2))
    for a, b in np.argwhere(which[:, None] == which[None, :]):
        assert labels[a] == labels[b]


def test_snip_by_hand() -> None:
    """w = (1, -2, .5), x = (1, 1, 2), y = -1: dL/dw = (w.x - y) x = (1, 1, 2), products (1, -2, 1)."""
    found = connection_sensitivity(np.array([1, -2, 0.5]), np.array([1.0, 1, 2]))
    np.testing.assert_allclose(found, [0.25, 0.5, 0.25])
    assert top_connections(found, 2).tolist() == [True, True, False]  # among equals the first


@settings(max_examples=25)
@given(st.integers(1, 12), st.floats(0.1, 100), SEEDS)
def test_snip_adds_up_and_its_masks_are_nested(size: int, factor: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    w, g = rng.integers(-3, 4, size).astype(float), rng.integers(-3, 4, size).astype(float)
    found = connection_sensitivity(w, g)
    np.testing.assert_allclose(found.sum(), 1)
    np.testing.assert_allclose(connection_sensitivity(w, g * factor), found)
    masks = [top_connections(found, k) for k in range(size + 1)]
    for k, mask in enumerate(masks):
        assert mask.sum() == k
        assert k == 0 or np.all(mask >= masks[k - 1])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("l1", {"greedy": 1.0}, "share removed"),
        ("group_lasso", {"groups": "rows"}, "filter, channel, both"),
        ("scsp", {"mode": "all"}, "drop_group or"),
        ("scsp", {"clusters": 0.0}, "a share above 0"),
    ],
)
def test_senseless_options_are_refused(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CRITERIA[name](**options)(slimmable())
