"""Modularity: the paper's algorithm on graphs whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.ir import Graph, InputError
from secateur.passes.analysis.modularity import Clusters, Modularity, edges, joined, ncut, shuffle
from support.nets import residual
from support.network import Net


def clusters(graph: Graph, **options: object) -> Clusters:
    note = Modularity(**options)(graph).note(Clusters)  # type: ignore[arg-type]
    assert note is not None
    return note


def layered(*weights: np.ndarray) -> Graph:
    """Linear layers with these weights [O, I] and ReLU between."""
    net = Net(1, weights[0].shape[1])
    x = "x"
    for weight in weights:
        x = net.linear(x, weight.shape[0])
        net.weights[str(net.nodes[-1].inputs[1])] = weight.astype(np.float32)
        x = net.relu(x)
    return net.graph(x)


def blocks(rng: np.random.Generator, k: int, size: int) -> np.ndarray:
    """Block-diagonal, no zeros inside."""
    return np.kron(np.eye(k), np.ones((size, size))) * rng.uniform(0.5, 1.5, (k * size, k * size))


def test_by_hand() -> None:
    """Inputs a, b and outputs c, d; |W|: ac=3, ad=1, bd=4."""
    graph = layered(np.array([[3.0, 0.0], [-1.0, 4.0]]))
    (layer,) = edges(graph)
    adjacency = joined([layer])
    a, b = layer.inputs[0]
    c, d = layer.outputs
    assert adjacency[a, d] == 1
    assert adjacency[c, b] == 0

    def cut(*second: int) -> float:
        return ncut(adjacency, np.isin(np.arange(4), second).astype(int))

    assert cut(b, d) == pytest.approx(1 / 7 + 1 / 9)
    assert cut(b, c) == pytest.approx(7 / 9 + 7 / 7)
    assert cut(c, d) == pytest.approx(2)
    degrees = np.asarray(adjacency.sum(1)).ravel()
    laplacian = np.eye(4) - adjacency.toarray() / np.sqrt(np.outer(degrees, degrees))
    np.testing.assert_allclose(np.linalg.eigvalsh(laplacian), [0, 0.225403, 1.774597, 2], atol=1e-6)
    found = clusters(graph, k=2)
    assert found.labels[a] == found.labels[c] != found.labels[b] == found.labels[d]
    assert found.ncut == pytest.approx(0.253968, abs=1e-6)


@given(st.integers(2, 4), st.integers(2, 4), st.integers(0, 99))
@settings(max_examples=15)
def test_blocks_are_found_and_cost_nothing(k: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = clusters(layered(blocks(rng, k, size), blocks(rng, k, size)), k=k)
    assert found.ncut == pytest.approx(0, abs=1e-6)
    vertices = [*found.layers[0].inputs[:1], *(layer.outputs for layer in found.layers)]
    vertices[0] = found.layers[0].inputs[0]
    for vertex in vertices:
        labels = found.labels[vertex].reshape(k, size)
        assert (labels == labels[:, :1]).all()
        assert len(np.unique(labels[:, 0])) == k


@given(st.integers(0, 99), st.floats(0.01, 100))
@settings(max_examples=15)
def test_scale_and_signs_do_not_matter(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    one, two = rng.standard_normal((6, 5)), rng.standard_normal((4, 6))
    plain = clusters(layered(one, two), k=2).ncut
    assert clusters(layered(-scale * one, scale * two), k=2).ncut == pytest.approx(plain, rel=1e-3)


def test_a_modular_network_beats_its_shuffles_and_a_random_one_does_not() -> None:
    rng = np.random.default_rng(0)
    modular = clusters(layered(blocks(rng, 2, 8), blocks(rng, 2, 8)), k=2, shuffles=19, null="layer")
    assert modular.p == pytest.approx(1 / 20)
    assert modular.ncut < modular.null.min()
    weights = [rng.standard_normal((16, 16)) for _ in range(2)]
    assert clusters(layered(*weights), k=2, shuffles=19).p > 1 / 20


def test_null_models_keep_what_they_say() -> None:
    rng = np.random.default_rng(0)
    layers = edges(layered(blocks(rng, 2, 4)))
    moved, topology = (shuffle(layers, null, rng)[0].weights for null in ("layer", "layer_nonzero"))
    for weights in (moved, topology):
        np.testing.assert_array_equal(np.sort(weights, None), np.sort(layers[0].weights, None))
    assert ((topology != 0) == (layers[0].weights != 0)).all()
    assert ((moved != 0) != (layers[0].weights != 0)).any()


def test_tied_channels_are_one_vertex_and_groups_have_no_edges_between() -> None:
    graph = residual()
    layers = {layer.name: layer for layer in edges(graph)}
    np.testing.assert_array_equal(layers["a"].outputs, layers["c"].outputs)
    np.testing.assert_array_equal(layers["b"].inputs[0], layers["a"].outputs)
    assert layers["g"].weights.shape == (32, 4)
    assert not np.intersect1d(layers["g"].inputs[0], layers["g"].inputs[-1]).size
    text = str(Modularity(k=2)(graph))
    assert "modularity: n-cut " in text


def test_dead_channels_are_left_out() -> None:
    """A unit that was pruned away would be a cluster of its own, with n-cut 0."""
    rng = np.random.default_rng(0)
    one, two = rng.standard_normal((6, 5)), rng.standard_normal((4, 6))
    one[2], two[:, 2] = 0, 0
    found = clusters(layered(one, two), k=2)
    assert found.labels[found.layers[0].outputs[2]] == -1
    assert (found.labels == -1).sum() == 1


def test_mistakes_are_named() -> None:
    with pytest.raises(InputError, match="give one of layer, layer_nonzero"):
        Modularity(null="kde")(residual())
    with pytest.raises(InputError, match="2 clusters or more"):
        Modularity(k=1)(residual())
