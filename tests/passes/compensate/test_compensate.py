"""Compensation: exact where it must be, never worse than nothing, and nothing where nothing was pruned."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from secateur.ir import Array, Graph, InputError, PassError
from secateur.ir.exporters.torch.module import evaluate
from secateur.passes import COMPENSATION
from secateur.passes.compensate import FoldConstants, ReestimateBN, Refit
from secateur.passes.compensate.sums import Sums
from secateur.passes.context import Calibration, in_context
from secateur.passes.coupling.couple import Couple
from secateur.passes.notes import Coupling, KeepMask
from secateur.passes.rewrite.slim import Slim
from support.network import Net, random_keep

SEEDS = st.integers(0, 2**16)


def coupling_of(graph: Graph) -> Coupling:
    found = graph.note(Coupling)
    assert found is not None
    return found


def cut(graph: Graph, keep: Array, data: list[Array] | None) -> Graph:
    coupled = Couple()(graph)
    noted = coupled if data is None else in_context(coupled, calibration=Calibration(data))
    return Slim()(noted.with_note(KeepMask(keep)))


def without(graph: Graph, node: str, channel: int, data: list[Array]) -> Graph:
    """The slim network without one output channel of a node."""
    coupling = coupling_of(Couple()(graph))
    keep = np.ones(coupling.size, bool)
    keep[coupling.channels[node].units[channel]] = False
    return cut(graph, keep, data)


def run(graph: Graph, x: Array) -> Array:
    return evaluate(graph, {"x": x})[0]


def dead(kernel: int, bias: bool) -> tuple[Graph, str]:
    """conv, batch norm with a scale of zero (a constant channel), relu, a reader, a batch norm, a classifier."""
    net = Net(2, 3, 5, 5, seed=4)
    norm = net.bn(net.conv("x", 6))
    net.weights[f"{norm}.weight"][2] = 0
    net.weights[f"{norm}.bias"][2] = 0.4
    name, width = "reader", net.shape(norm)[1]
    w = net.weight("reader.weight", 4, width, kernel, kernel)
    b = net.weight("reader.bias", 4) if bias else None
    y = net.node("conv", net.relu(norm), w, b, name=name, stride=(1, 1), dilation=(1, 1), pad=(0,) * 4, groups=1)
    return net.graph(net.head(net.relu(net.bn(y)))), norm


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("varying", [True, False])
def test_a_dead_channel_folds_exactly(kernel: int, bias: bool, varying: bool) -> None:
    """gamma = 0, beta = .4: into the reader's bias, or without one into the running mean after it."""
    graph, norm = dead(kernel, bias)
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 5)).astype(np.float32)
    slim = without(graph, norm, 2, [x])
    assert np.abs(run(slim, x) - run(graph, x)).max() > 1e-3
    folded = FoldConstants(varying=varying)(slim)
    fresh = np.random.default_rng(1).standard_normal((2, 3, 5, 5)).astype(np.float32)
    np.testing.assert_allclose(run(folded, fresh), run(graph, fresh), atol=1e-5)


def test_a_dead_channel_folds_into_a_linear_reader() -> None:
    net = Net(2, 3, seed=1)
    hidden = net.relu(net.linear("x", 5))
    graph = net.graph(net.linear(hidden, 4))
    first = graph.nodes[0]
    weight, bias = (graph.weights[str(n)].copy() for n in first.inputs[1:])
    weight[1], bias[1] = 0, 0.7
    names = [str(n) for n in first.inputs[1:]]
    graph = graph.rewrite(weights={**graph.weights, names[0]: weight, names[1]: bias})
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    folded = FoldConstants(varying=False)(without(graph, first.name, 1, [x]))
    np.testing.assert_allclose(run(folded, x * 3 + 1), run(graph, x * 3 + 1), atol=1e-5)


@pytest.mark.parametrize(("pad", "gain"), [(0, 3.6), (1, 2.5)])
def test_the_border_by_hand(pad: int, gain: float) -> None:
    """A 4x4 map of .4 under a 3x3 kernel of ones: 3.6 inside, 2.4 at edges, 1.6 in corners; their mean is 2.5."""
    net = Net(1, 1, 4, 4)
    x = net.conv("x", 2, 1)
    w, b = net.weight("w", 1, 2, 3, 3), net.weight("b", 1)
    y = net.node("conv", x, w, b, name="y", stride=(1, 1), dilation=(1, 1), pad=(pad,) * 4, groups=1)
    graph = net.graph(y)
    first = graph.nodes[0]
    graph = graph.rewrite(
        weights={
            str(first.inputs[1]): np.array([1, 0], np.float32).reshape(2, 1, 1, 1),
            str(first.inputs[2]): np.array([0, 0.4], np.float32),
            "w": np.concatenate([np.zeros((1, 1, 3, 3)), np.ones((1, 1, 3, 3))], 1).astype(np.float32),
            "b": np.zeros(1, np.float32),
        }
    )
    zero = np.zeros((1, 1, 4, 4), np.float32)
    seen = run(graph, zero)[0, 0]
    if pad:
        np.testing.assert_allclose([seen[1, 1], seen[0, 1], seen[0, 0]], [3.6, 2.4, 1.6], rtol=1e-6)
    folded = FoldConstants()(without(graph, first.name, 1, [zero]))
    np.testing.assert_allclose(folded.weights["b"], gain, rtol=1e-6)
    np.testing.assert_allclose(seen.mean(), gain, rtol=1e-6)


def blocks(batch: int = 4, seed: int = 0) -> Graph:
    """A residual block with batch norms, a grouped convolution, a classifier."""
    net = Net(batch, 3, 5, 5, seed=seed)
    stem = net.relu(net.bn(net.conv("x", 8, bias=False)))
    body = net.bn(net.conv(net.relu(net.bn(net.conv(stem, 8, bias=False))), 8, bias=False))
    joined = net.relu(net.node("add", stem, body))
    return net.graph(net.head(net.relu(net.conv(joined, 8, groups=2))))


def pictures(seed: int = 0, count: int = 4) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((4, 3, 5, 5)).astype(np.float32) for _ in range(count)]


@pytest.mark.parametrize("name", list(COMPENSATION))
def test_nothing_changes_where_nothing_was_pruned(name: str) -> None:
    graph = blocks()
    whole = cut(graph, np.ones(coupling_of(Couple()(graph)).size, bool), pictures())
    done = COMPENSATION[name]()(whole)
    for weight, value in graph.weights.items():
        np.testing.assert_allclose(done.weights[weight], value, rtol=1e-6, atol=1e-6)


@settings(max_examples=20)
@given(SEEDS, st.sampled_from([0.0, 1e-3, 1e-2, 1.0]), st.booleans(), st.integers(1, 30))
def test_refit_never_raises_the_error_of_a_layer(seed: int, ridge: float, with_bias: bool, rows: int) -> None:
    """With as few rows as one, where the Gram matrix is singular, too."""
    import torch

    rng = np.random.default_rng(seed)
    net = Net(1, 4)
    weight = rng.standard_normal((3, 4)).astype(np.float32)
    node = net.graph(net.linear("x", 3)).nodes[0]
    x = rng.standard_normal((rows, 4)).astype(np.float32)
    x[:, 3] = x[:, 2]  # two inputs that say the same
    target = (x @ rng.standard_normal((4, 3)) + rng.standard_normal(3)).astype(np.float32)
    bias = rng.standard_normal(3).astype(np.float32) if with_bias else None
    sums = Sums(node, weight, 64)
    sums.add(0, torch.from_numpy(x), torch.from_numpy(target), None, bias)
    change, shift = sums.change(ridge, with_bias)
    assert change is not None
    before = x @ weight.T.astype(float) + (0 if bias is None else bias) - target
    after = x @ (weight + change[0]).T + (0 if bias is None else bias + shift) - target
    assert np.isfinite(after).all()
    assert (after**2).sum() <= (before**2).sum() * (1 + 1e-6) + 1e-9


@settings(max_examples=10)
@given(SEEDS)
def test_mending_comes_nearer_to_the_original(seed: int) -> None:
    """On the data that it saw: refit alone, and after it batch norm statistics, with any legal mask."""
    rng = np.random.default_rng(seed)
    graph, data = blocks(seed=seed), pictures(seed)
    coupling = coupling_of(Couple()(graph))
    slim = cut(graph, random_keep(coupling, rng), data)

    def error(network: Graph) -> float:
        return sum(float(((run(network, x) - run(graph, x)) ** 2).sum()) for x in data)

    assert error(Refit(ridge=1e-4)(slim)) <= error(slim) * 1.001 + 1e-6
    for name in sorted(set(COMPENSATION) - {"distill"}):  # which has tests of its own
        done = COMPENSATION[name]()(slim)
        assert all(np.isfinite(w).all() for w in done.weights.values())


def test_statistics_are_those_of_the_slim_network() -> None:
    """Running statistics that fit the original's data fit the slim network's after re-estimation."""
    graph, data = blocks(), pictures(count=8)
    norms = [n for n in graph.nodes if n.op == "batch_norm"]

    def seen(network: Graph, name: str) -> Array:
        outs = [evaluate(network.rewrite(outputs=(name,)), {"x": x})[0].astype(float) for x in data]
        return np.concatenate(outs)

    for norm in norms:  # in order, so that the second sees what the mended first puts out
        x = seen(graph, str(norm.inputs[0]))
        mean, var = (x.mean((0, 2, 3)), x.var((0, 2, 3)))
        weights = {str(norm.inputs[3]): mean.astype(np.float32), str(norm.inputs[4]): var.astype(np.float32)}
        graph = graph.rewrite(weights={**graph.weights, **weights})
    slim = without(graph, norms[1].name, 0, data)
    done = ReestimateBN()(slim)
    for norm in (n for n in done.nodes if n.op == "batch_norm"):
        x = seen(done, str(norm.inputs[0]))
        np.testing.assert_allclose(done.weights[str(norm.inputs[3])], x.mean((0, 2, 3)), atol=1e-4)
        np.testing.assert_allclose(done.weights[str(norm.inputs[4])], x.var((0, 2, 3)), rtol=1e-3)


@pytest.mark.parametrize("name", list(COMPENSATION))
def test_without_data_or_an_original_the_reason_is_named(name: str) -> None:
    graph = blocks()
    if name == "fold_constants":  # before slim it is exact and needs neither
        assert COMPENSATION[name]()(graph) is not None
    else:
        with pytest.raises(PassError, match="put it after slim"):
            COMPENSATION[name]()(graph)
    with pytest.raises(InputError, match="needs calibration"):
        COMPENSATION[name]()(cut(graph, np.ones(coupling_of(Couple()(graph)).size, bool), None))
    with pytest.raises(InputError, match="no example"):
        COMPENSATION[name]()(cut(graph, np.ones(coupling_of(Couple()(graph)).size, bool), []))
    with pytest.raises(InputError, match="examples=0"):
        COMPENSATION[name](examples=0)(graph)


@pytest.mark.parametrize("name", list(COMPENSATION))
def test_what_overflows_inside_is_refused_by_its_place(name: str) -> None:
    """Inputs and weights are finite, what flows in between is not."""
    graph = blocks()
    first, second = [n for n in graph.nodes if n.op == "batch_norm"][:2]
    scale = str(first.inputs[1])
    graph = graph.rewrite(weights={**graph.weights, scale: graph.weights[scale] * np.float32(1e20)})
    slim = without(graph, second.name, 0, [x * np.float32(1e25) for x in pictures()])
    with pytest.raises(InputError, match=r"batch 0: what flows through '.*' holds NaN or infinity"):
        COMPENSATION[name]()(slim)


def test_statistics_are_the_same_whether_or_not_a_pass_before_moved_them() -> None:
    """What ``fold_constants`` takes from a running mean must not be taken twice."""
    graph = blocks()
    norm = [n for n in graph.nodes if n.op == "batch_norm"][1]
    slim = without(graph, norm.name, 0, pictures())
    alone = ReestimateBN()(slim)
    after = ReestimateBN()(FoldConstants()(slim))
    means = [n.inputs[3] for n in slim.nodes if n.op == "batch_norm"]
    assert means
    for name in means:
        np.testing.assert_allclose(alone.weights[name or ""], after.weights[name or ""], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("both", [(Refit(), FoldConstants()), (FoldConstants(), Refit())])
def test_refit_and_fold_constants_together_are_refused(both: tuple[Refit | FoldConstants, ...]) -> None:
    """Each hands a reader the mean of what it lost; where that goes to a batch norm, the other does not see it."""
    graph, node = dead(1, bias=False)
    first, second = both
    mended = first(without(graph, node, 2, pictures(0)))
    with pytest.raises(InputError, match=f"'{second.name}' after '{first.name}'.*twice"):
        second(mended)
