"""Winograd's convolution without the kernels that are zero: packing by hand, against the torch executor, when taken."""

from __future__ import annotations

from functools import partial

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from secateur.codegen.assembly import show_plan
from secateur.codegen.cpu_backend import CPU
from secateur.codegen.kernels.sparse_winograd.packing import head, pack_kernels
from secateur.codegen.kernels.sparse_winograd.spec import SparseWinogradChoice, SparseWinogradSpec
from secateur.codegen.kernels.winograd.spec import WinogradSpec
from secateur.codegen.kernels.winograd.transform import PAIRS, transform
from secateur.codegen.plan.lower import lower
from secateur.codegen.plan.strides import Strides
from secateur.codegen.targets import TARGETS, Target
from secateur.codegen.tune.timing import arguments, compiled
from secateur.codegen.tune.tuner import candidates
from secateur.ir import Graph
from support import alternatives
from support.kernels import ACTIVATIONS, CONTINUOUS, DRAWN, check, conv, outputs, runnable, widths
from support.network import Net

PAD = (1, 1, 1, 1)
always = partial(alternatives.always, SparseWinogradSpec)


def thin(net: Net, lanes: int, keep: float, seed: int = 0, taps: bool = False) -> None:
    """Zero all taps of inputs, at random for each ``lanes`` outputs, of 3x3 kernels; or ``taps`` one by one."""
    rng = np.random.default_rng(seed)
    for name, w in net.weights.items():
        if w.ndim == 4 and w.shape[2] == 3:
            mask = rng.random((-(-len(w) // lanes), w.shape[1], *(w.shape[2:] if taps else (1, 1)))) < keep
            net.weights[name] = w * np.repeat(mask, lanes, 0)[: len(w)]


def test_kernels_are_packed_by_hand() -> None:
    """Two output blocks of two lanes, three inputs: the first keeps inputs 0 and 2, the second none, the third 1."""
    weight = np.zeros((6, 3, 3, 3), np.float32)
    weight[0, 0, 1, 1], weight[1, 2, 0, 2], weight[5, 1, 2, 2] = 2, 3, 5
    packed = pack_kernels(weight, 2, 2)
    np.testing.assert_array_equal(packed.starts, [0, 2, 2, 3])
    np.testing.assert_array_equal(packed.channel, [0, 2, 1])
    points = transform(weight, PAIRS[2])
    first = packed.weight[: 16 * 2 * 2].reshape(16, 2, 2)
    np.testing.assert_array_equal(first[:, 0], points[:, 0, :2])
    np.testing.assert_array_equal(first[:, 1], points[:, 2, :2])
    np.testing.assert_array_equal(packed.weight[16 * 2 * 2 :].reshape(16, 2), points[:, 1, 4:])
    table = packed.table(np.array([10, 11, 12]), 2)
    np.testing.assert_array_equal(table[: head(3, 2)], [0, 2, 2, 3, 0, 1, 3])  # two kernels, then one
    np.testing.assert_array_equal(table[head(3, 2) :], [10, 12, 11])


@DRAWN
@given(
    st.integers(1, 3), st.integers(1, 40), st.integers(1, 40), st.tuples(st.integers(1, 15), st.integers(1, 15)),
    st.sampled_from((0.0, 0.1, 0.5)), st.sampled_from(CONTINUOUS), st.integers(1, 3), st.integers(0, 63),
)  # fmt: skip
def test_any_shape(n: int, ci: int, co: int, size: tuple[int, int], keep: float, activation: str, threads: int,
                   which: int) -> None:  # fmt: skip
    net = Net(n, 5, *size)
    y = conv(net, conv(net, "x", ci, (1, 1)), co, (3, 3), pad=PAD)
    thin(net, 8, keep)
    with always(which) as taken:
        check(outputs(net, conv(net, net.node(activation, y, **ACTIVATIONS[activation]), 9, (1, 1))), threads=threads)
    assert [type(choice) for choice in taken] == [SparseWinogradChoice]


@pytest.mark.parametrize("target", widths(), ids=lambda t: t.name)
def test_all_widths_of_vector(target: Target) -> None:
    """Scattered channels: half of a wider value, so that blocks are looked up."""
    net = Net(2, 3, 10, 13)
    x = conv(net, "x", 40, (1, 1))
    part = net.node("slice", x, axes=(1,), starts=(7,), ends=(31,), steps=(1,))
    graph_of = partial(outputs, net, net.node("relu", conv(net, part, 20, (3, 3), pad=PAD)))
    thin(net, target.lanes, 0.4)
    graph = graph_of()
    for which in (0, -1):
        with always(which) as taken:
            if target in runnable():
                check(graph, target)
            else:
                show_plan(graph, target)
        assert [type(choice) for choice in taken] == [SparseWinogradChoice]


def test_threads_share_output_blocks_by_what_these_keep() -> None:
    """Of eight blocks the first keeps as much as all others together."""
    net = Net(1, 16, 7, 7)
    y = conv(net, conv(net, "x", 16, (1, 1)), 64, (3, 3), pad=PAD)
    weight = next(name for name, w in net.weights.items() if w.shape == (64, 16, 3, 3))
    net.weights[weight][8:, 2:] = 0
    graph = outputs(net, net.node("relu", y))
    outer = set()
    for which in range(4):
        with always(which) as taken:
            check(graph, threads=2)
        outer.add(taken[0].outer)
    assert outer == {"blocks", "strips"}


def offered(graph: Graph) -> set[type]:
    """The kinds of kernel that compete for a graph's convolutions."""
    target = TARGETS["x86-avx2"]
    return {type(spec) for late in lower(graph, target, 1, None, CPU).open for spec in late.specs}


def layer(keep: float, taps: bool = False) -> Graph:
    net = Net(1, 64, 28, 28)
    y = conv(net, "x", 128, (3, 3), pad=PAD)
    z = conv(net, y, 128, (3, 3), pad=PAD)
    thin(net, 8, keep, taps=taps)
    return outputs(net, z)


def test_it_is_taken_where_whole_kernels_are_zero() -> None:
    """At the same share of zeros in single taps nothing is zero after the transform, and the plan knows."""
    assert "sparse_winograd" in show_plan(layer(0.4), "x86-avx2")
    assert "sparse_winograd" not in show_plan(layer(0.4, taps=True), "x86-avx2")
    assert SparseWinogradSpec in offered(layer(0.7))
    assert SparseWinogradSpec not in offered(layer(0.97))


def test_estimates_fall_with_what_is_kept_and_never_below_the_transforms() -> None:
    plane = Strides(0, 8 * 30 * 30, 8 * 30, 8)
    shape = (8, 1, 128, 16, 16, 28, 28, plane, plane, False)
    target = TARGETS["x86-avx2"]
    times = [SparseWinogradSpec(*shape, percent=p).estimate(target) for p in (5, 20, 50, 90)]
    assert times == sorted(times)
    dense = WinogradSpec(*shape).estimate(target)
    assert times[0] > dense / 7  # the transforms
    assert times[1] < dense / 1.8
    assert SparseWinogradSpec(*shape, percent=100).estimate(target) > dense


@pytest.mark.parametrize("threads", [1, 2])
def test_kernels_are_timed_on_tables_of_their_own(threads: int) -> None:
    """Each choice runs on the arrays that the tuner draws for it, whose places lie inside of its scratch memory."""
    plane = Strides(8 * 9 * 9 * 2, 8 * 9 * 9, 8 * 9, 8)
    spec = SparseWinogradSpec(8, 1, 13, 2, 4, 7, 7, plane, plane, True, threads=threads, percent=40)
    target = next(t for t in runnable() if t.lanes == 8)
    for choice in candidates(spec, target)[:2]:
        assert compiled(spec, choice, target) is not None
        assert arguments(spec, target) is not None
