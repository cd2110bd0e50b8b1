"""Winograd's convolution: its matrices by hand, its kernels against the torch executor, and when it is taken."""

from __future__ import annotations

from functools import partial
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given

from secateur.codegen.backends import backend_for
from secateur.codegen.build import workloads
from secateur.codegen.cpu_backend import CPU
from secateur.codegen.kernels.conv.spec import ConvSpec
from secateur.codegen.kernels.winograd import transform as winograd
from secateur.codegen.kernels.winograd.spec import WinogradChoice, WinogradSpec
from secateur.codegen.plan.lower import lower
from secateur.codegen.records import Records, record_of
from secateur.codegen.targets import Target, native
from secateur.codegen.tune.tuner import Tuner, candidates
from secateur.deploy import build
from secateur.ir import Graph
from secateur.ir.exporters.torch.module import evaluate
from support import alternatives
from support.alternatives import kernels
from support.kernels import ACTIVATIONS, CONTINUOUS, DRAWN, STEPS, check, conv, halves, outputs, runnable, widths
from support.network import Net

PAD = (1, 1, 1, 1)


always = partial(alternatives.always, WinogradSpec)


# --- the mathematics ------------------------------------------------------------------------------------------------


def test_weights_of_f2_by_hand() -> None:
    """The filter (1, 2, 3) is 1 + 2x + 3x^2: 1 at 0, 6 at 1, 2 at -1, 3 at infinity; over -1, 2, 2, 1."""
    values = np.array([-1.0, 3.0, 1.0, 3.0])
    weight = np.outer([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])[None, None]
    np.testing.assert_array_equal(winograd.transform(weight, (1.0,))[:, 0, 0], np.outer(values, values).reshape(-1))


def test_weights_of_f4_by_hand() -> None:
    """The polynomial that is 0 at the other points is x^4 - 45/16 x^2 + 81/64 at 0, and so on for each point."""
    b, g = winograd.input_matrix((0.75, 1.5)), winograd.weight_matrix((0.75, 1.5))
    np.testing.assert_array_equal(b[0], [81 / 64, 0, -45 / 16, 0, 1, 0])
    np.testing.assert_array_equal(b[1], [0, -27 / 16, -9 / 4, 3 / 4, 1, 0])  # x (x + 3/4) (x^2 - 9/4)
    np.testing.assert_array_equal(b[4], [0, 27 / 32, -9 / 16, -3 / 2, 1, 0])  # x (x - 3/2) (x^2 - 9/16)
    np.testing.assert_allclose(g[0], [64 / 81, 0, 0], rtol=1e-15)
    np.testing.assert_allclose(g[1], np.array([1, 3 / 4, 9 / 16]) / (-243 / 128), rtol=1e-15)
    assert winograd.output_matrix((0.75, 1.5))[3].tolist() == [0, 27 / 64, -27 / 64, 27 / 8, -27 / 8, 1]


@pytest.mark.parametrize("pairs", [*winograd.PAIRS.values(), (0.5, 1.0, 2.0)], ids=str)
def test_the_matrices_convolve(pairs: tuple[float, ...]) -> None:
    """For every unit filter and unit input, so for all."""
    a, b, g = winograd.output_matrix(pairs), winograd.input_matrix(pairs), winograd.weight_matrix(pairs)
    for tap in range(3):
        found = a @ (g[:, tap][:, None] * b)  # a column for each unit input
        np.testing.assert_allclose(found, np.eye(len(a), len(b), tap), atol=1e-13)


@pytest.mark.parametrize("pairs", winograd.PAIRS.values(), ids=str)
def test_float32_stays_within_the_limit(pairs: tuple[float, ...]) -> None:
    weight = np.random.default_rng(0).standard_normal((16, 256, 3, 3), np.float32)
    assert 1e-8 < winograd.error(weight, pairs) < winograd.LIMIT / 2


# --- the kernels ----------------------------------------------------------------------------------------------------


@DRAWN
@given(
    st.integers(1, 4), st.integers(1, 40), st.integers(1, 70), st.tuples(st.integers(1, 19), st.integers(1, 23)),
    st.tuples(*[st.integers(0, 2)] * 4), st.sampled_from(CONTINUOUS), st.integers(1, 3), st.integers(0, 63),
)  # fmt: skip
@example(4, 36, 13, (6, 21), (2, 1, 0, 2), "mish", 3, 54)  # minutes, when TVM's simplifier looked through every name
def test_any_shape(n: int, ci: int, co: int, size: tuple[int, int], pad: tuple[int, int, int, int], activation: str,
                   threads: int, which: int) -> None:  # fmt: skip
    h, w = (max(s, 3 - before - after) for s, before, after in zip(size, pad[:2], pad[2:], strict=True))
    net = Net(n, 5, h, w)
    y = conv(net, conv(net, "x", ci, (1, 1)), co, (3, 3), pad=pad)
    y = net.node(activation, y, **ACTIVATIONS[activation])
    with always(which) as taken:
        check(outputs(net, conv(net, y, 9, (1, 1))), threads=threads)
    assert len(taken) == 1


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("which", [0, -1])
def test_steps(step: str, which: int) -> None:
    net = Net(1, 20, 9, 13)
    y = conv(net, net.node("floor", "x"), 21, (3, 3), pad=PAD)
    halves(net)
    with always(which) as taken:
        check(outputs(net, net.node(step, y)))
    assert len(taken) == 1


@pytest.mark.parametrize("target", widths(), ids=lambda t: t.name)
def test_all_widths_of_vector(target: Target) -> None:
    net = Net(2, 3, 10, 13)
    graph = outputs(net, net.node("relu", conv(net, conv(net, "x", 20, (1, 1)), 20, (3, 3), pad=PAD)))
    for which in (0, -1):
        with always(which) as taken:
            if target in runnable():
                check(graph, target)
            else:
                CPU.assemble(lower(graph, target, 1, Tuner(target, 1, Records()).choose, CPU), graph, target)
        assert len(taken) == 1


def test_operands_of_every_kind_are_fused() -> None:
    net = Net(2, 6, 7, 9)
    x = conv(net, "x", 20, (1, 1))
    vector = net.node("reduce_max", x, axes=(2, 3), keepdims=True)
    y = conv(net, x, 20, (3, 3), pad=PAD)
    y = net.node("sub", x, y)
    y = net.node("mul", y, net.weight("scale", 20, 1, 1))
    y = net.node("div", y, net.node("exp", vector))
    y = net.node("prelu", y, net.weight("slope", 20))
    norm = [net.weight(f"n{i}", 20, scale=0.1, shift=1.0) for i in range(4)]
    y = net.node("batch_norm", y, *norm, eps=1e-5, momentum=0.1)
    with always() as taken:
        lib = check(outputs(net, net.node("add", y, net.weight("one"))))
    assert len(taken) == 1
    assert lib.metadata.kernels.get("winograd", 0) == 1
    assert not lib.metadata.notes


@DRAWN
@given(st.lists(st.integers(1, 40), min_size=2, max_size=4), st.integers(0, 2**16), st.integers(1, 2))
def test_blocks_that_lie_anywhere(widths: list[int], seed: int, threads: int) -> None:
    """Concat, shuffle and split before it move nothing, and lanes between the parts count as nothing."""
    net = Net(1, 4, 6, 5)
    x = net.node("concat", *(conv(net, "x", w, (1, 1)) for w in widths), axis=1)
    total = sum(widths)
    if total % 2 == 0:
        x = net.node("transpose", net.node("reshape", x, shape=(0, 2, total // 2, 6, 5)), perm=(0, 2, 1, 3, 4))
        x = net.node("reshape", x, shape=(0, total, 6, 5))
    cut = seed % (total - 1) + 1
    a, b = net.node("split", x, axis=1, sizes=(cut, total - cut), outs=2)
    with always(seed) as taken:
        lib = check(outputs(net, conv(net, a, 8, (3, 3), pad=PAD), conv(net, b, 17, (3, 3), pad=PAD)), threads=threads)
    assert len(taken) == 2
    assert not lib.metadata.notes


def test_lanes_that_hold_nothing_may_hold_anything() -> None:
    """20 channels fill a block and a quarter; a quotient of two zeros lies in the rest."""
    net = Net(1, 4, 6, 6)
    x = net.node("div", conv(net, "x", 20, (1, 1)), net.weight("by", 20, 1, 1, shift=3.0))
    with always() as taken:
        check(outputs(net, conv(net, x, 20, (3, 3), pad=PAD)))
    assert len(taken) == 1


def test_groups_that_fill_blocks() -> None:
    net = Net(1, 4, 9, 9)
    y = conv(net, conv(net, "x", 96, (1, 1)), 64, (3, 3), groups=2, pad=PAD)
    with always() as taken:
        check(outputs(net, y))
    assert len(taken) == 2


# --- when it is taken -----------------------------------------------------------------------------------------------


def layer(width: int, size: int, kernel: tuple[int, int] = (3, 3), **attrs: Any) -> Graph:
    """A convolution between two cheap ones."""
    net = Net(1, 3, size, size)
    return outputs(net, conv(net, conv(net, "x", width, (1, 1)), width, kernel, **attrs))


def test_what_the_default_takes() -> None:
    assert kernels(layer(64, 56, pad=PAD))[1] is WinogradSpec
    assert kernels(layer(512, 7, pad=PAD))[1] is WinogradSpec
    assert kernels(layer(64, 3))[1] is ConvSpec, "one pixel pays no transform"
    assert kernels(layer(64, 56, pad=PAD, stride=(2, 2)))[1] is ConvSpec
    assert kernels(layer(64, 56, pad=(2, 2, 2, 2), dilation=(2, 2)))[1] is ConvSpec
    assert kernels(layer(64, 56, (5, 5)))[1] is ConvSpec
    assert kernels(layer(64, 56), lambda spec, *_: Tuner(native(), 1, Records()).choose(spec))[1] is ConvSpec


def test_the_size_of_tile_follows_the_image() -> None:
    """Large tiles have fewer products; small ones fewer weights, and hang less over a small image."""
    target = native()
    choose = Tuner(target, 1, Records()).choose
    for size, m in ((7, 2), (28, 4)):
        calls = lower(layer(512, size, pad=PAD), target, 1, choose, backend_for(target)).calls
        assert [c.choice.m for c in calls if isinstance(c.choice, WinogradChoice)] == [m]


def test_measured_seconds_decide_where_there_are_both() -> None:
    graph, target = layer(64, 20, pad=PAD), native()
    specs = {type(s): s for s in workloads(graph, target, 1) if s.kernel == (3, 3)}
    assert set(specs) == {ConvSpec, WinogradSpec}, "the tuner must measure both"

    def taken(**seconds: float) -> type:
        records = Records()
        for spec in specs.values():
            if type(spec).__name__ in seconds:
                best = candidates(spec, target)[-1]
                records.add(record_of(target.name, spec, best, seconds[type(spec).__name__]))
        return kernels(graph, Tuner(target, 1, records).choose)[1]

    assert taken(ConvSpec=2.0, WinogradSpec=1.0) is WinogradSpec
    assert taken(ConvSpec=1.0, WinogradSpec=2.0) is ConvSpec
    assert taken(ConvSpec=1.0) is WinogradSpec, "one time alone compares with nothing"


def test_weights_that_overflow_are_computed_directly() -> None:
    graph = layer(64, 12, pad=PAD)
    assert kernels(graph)[1] is WinogradSpec
    (name,) = (n for n, w in graph.weights.items() if w.shape == (64, 64, 3, 3))
    weights = {**graph.weights, name: graph.weights[name] * np.float32(1e37)}
    assert kernels(graph.rewrite(weights=weights))[1] is ConvSpec


def test_a_library_that_strays_is_built_again_without(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, exact = layer(64, 12, pad=PAD), winograd.weight_matrix
    assert build(graph).metadata.kernels.get("winograd", 0) == 1
    monkeypatch.setattr("secateur.codegen.kernels.winograd.plan.LIMIT", 1.0)
    monkeypatch.setattr(winograd, "weight_matrix", lambda pairs: exact(pairs) + 1e-4)
    lib = build(graph)
    assert lib.metadata.kernels.get("winograd", 0) == 0
    x = np.ones((1, 3, 12, 12), np.float32)
    assert np.abs(lib(x) - evaluate(graph, {"x": x})[0]).max() < 1e-5 * np.abs(lib(x)).max()
