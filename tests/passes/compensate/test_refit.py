"""What ``refit`` may be told: where intercepts go, whose sum a branch makes up for, and a ridge that data choose."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from secateur.ir import Array, Graph, InputError, Node, Value
from secateur.ir.exporters.torch.module import evaluate
from secateur.passes.compensate import Refit
from secateur.passes.compensate.layers import Join
from secateur.passes.compensate.sums import RIDGES, Sums, chosen
from secateur.passes.context import Calibration, in_context
from secateur.passes.coupling.couple import Couple
from secateur.passes.notes import Coupling, KeepMask
from secateur.passes.rewrite.slim import Slim
from support.network import Net

RNG = np.random.default_rng(0)
X = (RNG.standard_normal((64, 2, 1, 1)) + 1).astype(np.float32)  # two independent inputs of mean 1


def without_second(graph: Graph, node: str) -> Graph:
    """The slim network without channel 1 of a node."""
    graph = Couple()(in_context(graph, calibration=Calibration([X])))
    coupling = graph.note(Coupling)
    assert coupling is not None
    keep = np.ones(coupling.size, bool)
    keep[coupling.channels[node].units[1]] = False
    return Slim()(graph.with_note(KeepMask(keep)))


def run(graph: Graph) -> Array:
    return evaluate(graph, {"x": X})[0]


def conv(net: Net, x: str, weight: list[list[float]], name: str) -> str:
    """A 1x1 convolution without bias."""
    net.weights[f"{name}.weight"] = np.array(weight, np.float32)[:, :, None, None]
    return str(net.node("conv", x, f"{name}.weight", None, name=name,
                        stride=(1, 1), dilation=(1, 1), pad=(0,) * 4, groups=1))  # fmt: skip


def test_an_intercept_goes_into_the_mean_of_a_batch_norm() -> None:
    """x0 + x1 without x1: what is lost is 1 on average, which a batch norm after the layer can give back."""
    net = Net(64, 2, 1, 1)
    hidden = conv(net, "x", [[1, 0], [0, 1]], "hidden")
    normed = net.bn(conv(net, hidden, [[1, 1]], "reader"))
    graph = net.graph(normed)
    mean = f"{normed}.running_mean"
    slim, lost = without_second(graph, hidden), X[:, 1].mean()
    with_it, bare = Refit(ridge=1e6)(slim), Refit(ridge=1e6, intercepts=False)(slim)  # weights hardly move
    np.testing.assert_allclose(with_it.weights[mean], graph.weights[mean] - lost, rtol=1e-4)
    assert bare.weights[mean] == graph.weights[mean]
    np.testing.assert_allclose(run(with_it).mean(), run(graph).mean(), rtol=1e-4)
    assert {mean, "reader.weight"} <= Refit.may_change(slim)


@pytest.mark.parametrize("norm", [False, True])
def test_a_branch_makes_up_for_what_the_other_lost(norm: bool) -> None:
    """x0 + x1 by way of a layer that loses x1, plus 2 x0 + 3 x1 from the inputs themselves: these take 4 x1 instead."""
    net = Net(64, 2, 1, 1)
    hidden = conv(net, "x", [[1, 0], [0, 1]], "hidden")
    short = conv(net, hidden, [[1, 1]], "short")
    branch = conv(net, "x", [[2, 3]], "branch")
    branch = net.bn(branch) if norm else branch
    graph = net.graph(net.node("add", short, branch))
    slim = without_second(graph, hidden)
    plain, residual = Refit(ridge=0.0)(slim), Refit(ridge=0.0, residual=True)(slim)
    assert plain.weights["branch.weight"].ravel().tolist() == [2, 3]
    factor = 1.0
    if norm:
        gamma, variance = (float(graph.weights[f"{branch}.{n}"][0]) for n in ("weight", "running_var"))
        factor = gamma / np.sqrt(variance + 1e-5)
    assert residual.weights["branch.weight"].ravel()[1] == pytest.approx(3 + 1 / factor, rel=1e-2)
    assert np.abs(run(plain) - run(graph)).max() > 0.5
    np.testing.assert_allclose(run(residual), run(graph), atol=1e-3)


def test_the_ridge_with_the_least_error_on_other_examples_is_taken() -> None:
    """Errors in Gram form are those of the outputs; few examples take a large ridge, many a small one, noise none."""
    rng = np.random.default_rng(0)
    node = (net := Net(1, 12)).graph(net.linear("x", 3)).nodes[0]
    weight, off = rng.standard_normal((3, 12)).astype(np.float32), rng.standard_normal((3, 12)) * 0.2
    bias = rng.standard_normal(3).astype(np.float32)

    def seen(rows: int, noise: float, seed: int) -> tuple[Sums, Array, Array]:
        draw = np.random.default_rng(seed)
        x = draw.standard_normal((rows, 12)).astype(np.float32)
        y = (x @ (weight + off).T + bias + 1 + noise * draw.standard_normal((rows, 3))).astype(np.float32)
        sums = Sums(node, weight, 64)
        sums.add(0, torch.from_numpy(x), torch.from_numpy(y), None, bias)
        return sums, x, y

    picked: list[float | None] = []
    for rows, noise in ((14, 4.0), (30, 1.0), (2000, 0.01)):
        fit, judge = seen(rows, noise, 1)[0], seen(50, noise, 2)
        errors = []
        for ridge in RIDGES:
            change, shift = fit.change(ridge, True)
            assert change is not None
            gap = judge[1] @ (weight + change[0]).T + bias + shift - judge[2]
            errors.append(float((gap**2).sum()))
            assert judge[0].error(change, shift) == pytest.approx(errors[-1], rel=1e-5)
        now = np.zeros_like(fit.weight)
        picked.append(chosen(judge[0], now, lambda ridge, fit=fit: fit.change(ridge, True)))  # type: ignore[misc]
        assert picked[-1] == (RIDGES[int(np.argmin(errors))] if min(errors) < judge[0].gap else None)
    assert picked[0] is None
    assert (picked[1] or 0) > 10 * (picked[2] or 0) > 0


def test_a_batch_norm_that_nearly_drops_a_channel_asks_nothing_of_it() -> None:
    """Scales 2, 1e-4 and -1 at a variance of 4: a unit of the sum is 1, nothing, and -2 of the layer's output."""
    norm = Node("batch_norm", ("x", "g", "b", "m", "v"), (Value("y", (1, 3, 1, 1)),), {"eps": 0.0})
    weights = {"g": np.float32([2, 1e-4, -1]), "v": np.float32([4, 4, 4])}
    np.testing.assert_allclose(Join("other", norm).scale(weights), [1, 0, -2])


def test_an_automatic_ridge_repairs() -> None:
    net = Net(64, 2, 1, 1)
    hidden = conv(net, "x", [[1, 0], [0, 1]], "hidden")
    graph = net.graph(conv(net, hidden, [[1, 1]], "reader"))
    slim = without_second(graph, hidden)
    done = Refit(ridge="auto")(slim)
    share = float((X[:, 0] * X[:, 1]).sum() / (X[:, 0] ** 2).sum())  # of x1 that x0 explains, both of mean 1
    assert done.weights["reader.weight"].ravel()[0] == pytest.approx(1 + share, rel=0.1)
    given = [Refit(ridge=ridge)(slim).weights["reader.weight"] for ridge in RIDGES]
    same = [np.array_equal(done.weights["reader.weight"], weight) for weight in given]
    assert same.count(True) == 1  # the ridge that held-out examples chose is then used on all of them
    with pytest.raises(InputError, match="a number, or auto"):
        Refit(ridge="best")
