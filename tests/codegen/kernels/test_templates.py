"""Every template against the torch executor, over drawn shapes."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from secateur.codegen.targets import Target
from support.kernels import ACTIVATIONS, CONTINUOUS, DRAWN, STEPS, check, conv, halves, outputs, runnable
from support.network import Net

pair = st.tuples(st.integers(1, 3), st.integers(1, 3))


@DRAWN
@given(
    st.integers(1, 2), st.integers(1, 40), st.integers(1, 70), st.tuples(st.integers(1, 19), st.integers(1, 33)), pair,
    st.tuples(st.integers(1, 2), st.integers(1, 3)), st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.tuples(*[st.integers(0, 3)] * 4), st.sampled_from(CONTINUOUS),
)  # fmt: skip
def test_conv_of_any_shape(n: int, ci: int, co: int, size: tuple[int, int], kernel: tuple[int, int],
                           stride: tuple[int, int], dilation: tuple[int, int], pad: tuple[int, int, int, int],
                           activation: str) -> None:  # fmt: skip
    size = tuple(max(s, d * (k - 1) + 1) for s, k, d in zip(size, kernel, dilation, strict=True))  # type: ignore[assignment]
    net = Net(n, ci, *size)
    y = conv(net, "x", co, kernel, 1, stride, dilation, pad)
    y = net.node(activation, y, **ACTIVATIONS[activation])
    check(outputs(net, conv(net, y, 9, (1, 1))))


@DRAWN
@given(st.integers(1, 2), st.integers(1, 6), st.sampled_from([1, 2, 3, 4, 5, 8, 16, 20]), st.integers(1, 2),
       st.integers(1, 2), st.integers(3, 12))  # fmt: skip
def test_grouped_conv(n: int, groups: int, width: int, factor: int, stride: int, size: int) -> None:
    net = Net(n, 7, size, size)
    x = conv(net, "x", groups * width, (1, 1))
    y = conv(net, x, groups * width * factor, (3, 3), groups, (stride, stride), pad=(1, 1, 1, 1))
    check(outputs(net, net.node("relu", y)))


@DRAWN
@given(st.integers(1, 2), st.integers(1, 40), st.sampled_from([3, 5, 7]), st.integers(1, 2), st.integers(1, 2),
       st.integers(4, 17))  # fmt: skip
def test_depthwise_conv(n: int, width: int, kernel: int, stride: int, dilation: int, size: int) -> None:
    net = Net(n, 5, size, size + 3)
    x = conv(net, "x", width, (1, 1))
    pad = (kernel - 1) * dilation // 2
    y = conv(net, x, width, (kernel, kernel), width, (stride, stride), (dilation, dilation), (pad,) * 4)
    check(outputs(net, net.node("clip", y, min=0.0, max=6.0)))


@DRAWN
@given(st.integers(1, 2), st.integers(1, 40), st.sampled_from(["max_pool", "avg_pool"]), st.integers(2, 3),
       st.integers(1, 3), st.integers(0, 1), st.booleans(), st.booleans(), st.integers(4, 15))  # fmt: skip
def test_pools(n: int, width: int, op: str, kernel: int, stride: int, pad: int, ceil: bool, include: bool,
               size: int) -> None:  # fmt: skip
    net = Net(n, 5, size, size + 1)
    x = conv(net, "x", width, (1, 1))
    shared = {"kernel": (kernel, kernel), "stride": (stride, stride), "pad": (pad,) * 4, "ceil": ceil}
    more: dict[str, Any] = {"dilation": (1, 1)} if op == "max_pool" else {"include_pad": include}
    check(outputs(net, net.node(op, x, **shared, **more)))


@pytest.mark.parametrize("target", runnable(), ids=lambda t: t.name)
def test_all_widths_of_vector(target: Target) -> None:
    net = Net(1, 3, 17, 17)
    x = conv(net, "x", 36, (3, 3), stride=(2, 2), pad=(1, 1, 1, 1))
    y = conv(net, x, 36, (3, 3), 36, pad=(1, 1, 1, 1))
    s = net.node("sigmoid", conv(net, net.node("reduce_mean", y, axes=(2, 3), keepdims=True), 36, (1, 1)))
    z = net.node("relu", net.node("add", net.node("mul", y, s), x))
    window: dict[str, Any] = {"kernel": (3, 3), "stride": (2, 2), "dilation": (1, 1), "pad": (0,) * 4, "ceil": False}
    check(outputs(net, z, net.node("max_pool", z, **window)),
          target)  # fmt: skip


@DRAWN
@given(st.lists(st.integers(1, 23), min_size=2, max_size=4), st.integers(0, 2**16))
def test_concat_split_and_shuffle_move_nothing(widths: list[int], seed: int) -> None:
    net = Net(1, 4, 6, 5)
    parts = [conv(net, "x", w, (1, 1)) for w in widths]
    x = net.node("concat", *parts, axis=1)
    total = sum(widths)
    if total % 2 == 0:
        shape = (0, 2, total // 2, 6, 5)
        x = net.node("transpose", net.node("reshape", x, shape=shape), perm=(0, 2, 1, 3, 4))
        x = net.node("reshape", x, shape=(0, total, 6, 5))
    cut = seed % (total - 1) + 1
    a, b = net.node("split", x, axis=1, sizes=(cut, total - cut), outs=2)
    deep = conv(net, a, 8, (3, 3), pad=(1, 1, 1, 1))
    wide = conv(net, b, total - cut, (3, 3), total - cut, pad=(1, 1, 1, 1))
    graph = outputs(net, deep, net.node("add", wide, b), net.node("concat", b, deep, axis=1))
    lib = check(graph)
    assert not lib.metadata.notes, "something was left to TVM's library"


def test_operands_of_every_kind_are_fused() -> None:
    net = Net(2, 6, 7, 7)
    x = conv(net, "x", 20, (3, 3), pad=(1, 1, 1, 1))
    other = conv(net, "x", 20, (1, 1))
    vector = net.node("reduce_max", x, axes=(2, 3), keepdims=True)
    y = conv(net, x, 20, (1, 1))
    y = net.node("sub", other, y)
    y = net.node("mul", y, net.weight("scale", 20, 1, 1))
    y = net.node("div", y, net.node("exp", vector))
    y = net.node("prelu", y, net.weight("slope", 20))
    norm = [net.weight(f"n{i}", 20, scale=0.1, shift=1.0) for i in range(4)]
    y = net.node("batch_norm", y, *norm, eps=1e-5, momentum=0.1)
    lib = check(outputs(net, net.node("add", y, net.weight("one"))))
    assert not lib.metadata.notes


def test_values_of_one_row() -> None:
    net = Net(3, 37)
    net.weights.update(w=np.random.default_rng(0).standard_normal((50, 37)).astype(np.float32),
                       v=np.random.default_rng(1).standard_normal((50, 9)).astype(np.float32))  # fmt: skip
    y = net.node("relu", net.node("linear", "x", "w", net.weight("b", 50), transposed=False))
    check(outputs(net, net.node("softmax", net.node("linear", y, "v", transposed=True), axis=1)))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(("kernel", "groups"), [((1, 1), 1), ((3, 2), 1), ((3, 3), 20), ((3, 3), 5)])
def test_steps(step: str, kernel: tuple[int, int], groups: int) -> None:
    net = Net(2, 20, 7, 9)
    y = conv(net, net.node("floor", "x"), 20, kernel, groups=groups)
    halves(net)
    check(outputs(net, net.node(step, y)))
