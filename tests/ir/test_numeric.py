"""Judging two runs: small channels count, roundings do not, and half precision is compared in single."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import secateur
from secateur.ir import Graph
from secateur.ir.exporters.onnx.session import Session
from secateur.ir.exporters.torch.module import evaluate
from secateur.ir.frontends.onnx.load import load
from secateur.ir.numeric import difference, doubtful, moved, random_inputs, relative_error, worst_slice
from secateur.ir.precision import coarsest, tolerance, widened, widened_feed
from secateur.passes.coupling.couple import couple
from secateur.passes.law import check, failure
from secateur.passes.recipe import Recipe
from secateur.passes.rewrite.slim import slim
from support.network import Net

TOLERANCE = 1e-4


def uneven(faint: float = 1e-5) -> Graph:
    """A network whose last channel is small."""
    net = Net(1, 3, 6, 6)
    y = net.conv(net.relu(net.conv("x", 8)), 4, bias=False)
    graph = net.graph(y)
    weights = dict(graph.weights)
    last = graph.nodes[-1].inputs[1]
    assert last is not None
    weights[last] = weights[last] * np.array([1, 1, 1, faint], np.float32)[:, None, None, None]
    return graph.rewrite(weights=weights)


def test_a_small_channel_that_is_wrong_is_found() -> None:
    graph, feed = uneven(), random_inputs(uneven(), 0)
    (want,), (noise,) = evaluate(graph, feed), evaluate(*moved(graph, feed))
    have = want.copy()
    have[:, 3] *= -1
    assert relative_error(want, have) < TOLERANCE and doubtful([want], [have], TOLERANCE)
    found = worst_slice(want, have, TOLERANCE, noise)
    assert found is not None and (found.axis, found.index) == (1, 3) and found.error == pytest.approx(2, rel=1e-3)


def test_what_cancels_holds_rounding_and_is_no_error() -> None:
    """A channel that is a sum minus itself, in another order: nothing but the rounding of large terms."""
    graph = uneven()
    last = str(graph.nodes[-1].inputs[1])
    weights = {n: w.copy() for n, w in graph.weights.items()}
    weights[last][3] = weights[last][0] - weights[last][1]
    first = str(graph.nodes[0].inputs[1])
    weights[first][:] = weights[first][:1]
    weights[str(graph.nodes[0].inputs[2])][:] = 0.5
    weights[last][3, 1::2] = -weights[last][3, 0::2]  # equal inputs with opposite weights
    graph = graph.rewrite(weights=weights)
    feed = random_inputs(graph, 0)
    (want,), (noise,) = evaluate(graph, feed), evaluate(*moved(graph, feed))
    order = weights[last].copy()
    have = want + 3e-6 * np.abs(want).max() * np.sign(np.random.default_rng(0).standard_normal(want.shape))
    assert order.shape == weights[last].shape and np.abs(want[:, 3]).max() < 1e-4 * np.abs(want).max()
    assert worst_slice(want, have, TOLERANCE) is not None, "without knowing the noise it looks wrong"
    assert worst_slice(want, have, TOLERANCE, noise) is None


def test_infinities_in_the_same_places_are_the_same() -> None:
    a = np.array([np.inf, np.nan, 1.0])
    assert difference(a, a) == 0 and difference(a, np.array([-np.inf, np.nan, 1])) == np.inf
    assert difference(np.array(["a"], object), np.array(["b"], object)) == np.inf


def halved(graph: Graph) -> Graph:
    nodes = [
        dataclasses.replace(n, outputs=tuple(dataclasses.replace(v, dtype="f16") for v in n.outputs))
        for n in graph.nodes
    ]
    weights = {n: w.astype(np.float16) for n, w in graph.weights.items()}
    return graph.rewrite(
        inputs=[dataclasses.replace(v, dtype="f16") for v in graph.inputs], nodes=nodes, weights=weights
    )


def test_half_precision_has_a_tolerance_of_its_own_and_a_wider_twin() -> None:
    graph = halved(uneven(1.0))
    wide = widened(graph)
    assert wide is not None and coarsest(graph) == "f16" and coarsest(wide) == "f32"
    assert tolerance(graph) > 9.8e-4 > tolerance(wide) == TOLERANCE
    feed = random_inputs(graph, 0)
    error = relative_error(evaluate(wide, widened_feed(feed))[0], evaluate(graph, feed)[0])
    assert TOLERANCE < error < tolerance(graph)


def test_a_wrong_channel_is_found_in_half_precision() -> None:
    """Sabotage: two channels change places, which half precision alone would forgive for small ones."""
    graph = halved(uneven(3e-3))
    coupling = couple(graph)
    keep = np.ones(coupling.size, bool)
    keep[np.flatnonzero(~coupling.frozen)[:3]] = False
    small = slim(graph.with_note(coupling), keep)
    recipe = small.note(Recipe)
    assert recipe is not None and check(graph, small, recipe, run=evaluate).passed
    last = str(small.nodes[-1].inputs[1])
    weights = {n: w.copy() for n, w in small.weights.items()}
    weights[last][3] = np.roll(weights[last][3], 1, axis=0)
    found = check(graph, small.rewrite(weights=weights), recipe, run=evaluate)
    assert not found.passed and TOLERANCE < found.max_rel_err < tolerance(graph)
    assert "This is a fault in secateur" in str(failure("net", found))


def test_a_network_that_blows_up_noise_is_called_unstable() -> None:
    """Forty doublings of the distance to a fixed point, then a step."""
    net = Net(1, 3, 4, 4)
    y = net.conv("x", 4)
    for _ in range(24):
        y = str(net.node("sin", str(net.node("mul", y, net.weight("four", 1, scale=0, shift=4.0)))))
    graph = net.graph(y)
    coupling = couple(graph)
    small = slim(graph.with_note(coupling), np.ones(coupling.size, bool))
    recipe = small.note(Recipe)
    assert recipe is not None
    weights = {n: (w * np.float32(1 + 1e-6)) if w.ndim == 4 else w for n, w in small.weights.items()}
    found = check(graph, small.rewrite(weights=weights), recipe, run=evaluate)
    assert not found.passed and str(failure("net", found)).startswith(
        "'net' cannot be checked: it is unstable: 1e-06 of noise"
    )


def test_small_probabilities_may_be_off_by_the_rounding_of_their_range() -> None:
    """Runtimes compute a sigmoid to 1e-7 of its range, which is much of a probability of 1e-4."""
    net = Net(1, 3, 4, 4)
    net.weights["low"] = np.full(1, -9, np.float32)
    graph = net.graph(str(net.node("sigmoid", str(net.node("add", net.conv("x", 4), "low")))))
    feed = random_inputs(graph, 0)
    (want,), (noise,) = evaluate(graph, feed), evaluate(*moved(graph, feed))
    have = want + np.float32(1e-7)
    assert difference(want, have) > 1e-5 and difference(want, noise) > difference(want, have) / 10
    assert worst_slice(want, have, TOLERANCE, noise) is None
    assert difference(want, noise) < difference(want, 2 * want) / 10


def test_noise_is_no_other_shape() -> None:
    """Positions are counted in floats, as detectors do: a step that is a millionth less would count one more."""
    held = {"one": np.int64(1), "start": np.float32(0), "step": np.float32(1), "w": np.float32([[1.5]])}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "one"], ["n"]),
        helper.make_node("Cast", ["n"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Range", ["start", "f", "step"], ["r"]),
        helper.make_node("Flatten", ["y"], ["z"]),
        helper.make_node("Add", ["z", "r"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes, "positions",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, "n", 1])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in held.items()],
    )  # fmt: skip
    read = load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    assert any(node.op == "opaque" for node in read.nodes)
    for seed in range(4):
        feed = random_inputs(read, seed)
        (want,) = Session(read).run(feed)
        changed, fed = moved(read, feed, seed)
        (noisy,) = Session(changed).run(fed)
        assert noisy.shape == want.shape and 0 < np.abs(noisy - want).max() < 1e-3


def test_a_network_that_overflows_is_called_so() -> None:
    net = Net(1, 3, 6, 6)
    graph = net.graph(net.head(net.relu(net.conv(net.relu(net.conv("x", 8)), 8))))
    huge = {n: w * np.float32(1e20) if w.ndim == 4 else w for n, w in graph.weights.items()}
    with pytest.raises(secateur.InputError, match="cannot be checked: it overflows"):
        secateur.compile(dataclasses.replace(graph, weights=huge), "l1", macs=0.6)
