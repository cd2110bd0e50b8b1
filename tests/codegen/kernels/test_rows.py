"""Rows of channels against the torch executor: linear layers, products, softmax and norms of values of any rank."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from secateur.codegen.backends import backend_for
from secateur.codegen.emit.assemble import kernel
from secateur.codegen.kernels.families import FAMILIES
from secateur.codegen.kernels.templates import templates
from secateur.codegen.plan.lower import lower
from secateur.codegen.records import Records
from secateur.codegen.targets import TARGETS, Target
from secateur.codegen.tune.tuner import Tuner
from support.kernels import ACTIVATIONS, CONTINUOUS, DRAWN, STEPS, check, conv, halves, outputs, runnable
from support.network import Net

targets = st.sampled_from(runnable())
lead = st.lists(st.integers(1, 4), min_size=0, max_size=4)


def linear(net: Net, x: str, out: int, transposed: bool = False) -> str:
    """A linear layer with a bias."""
    return net.linear(x, out, transposed)


@DRAWN
@given(targets, lead, st.integers(1, 40), st.integers(1, 40), st.booleans(), st.sampled_from(CONTINUOUS))
def test_linear_of_any_rank(target: Target, shape: list[int], ci: int, co: int, transposed: bool,
                            activation: str) -> None:  # fmt: skip
    net = Net(*shape, 3, ci)
    y = net.node(activation, linear(net, "x", co, transposed), **ACTIVATIONS[activation])
    lib = check(outputs(net, net.node("add", linear(net, y, ci), "x")), target)
    assert not lib.metadata.notes


@pytest.mark.parametrize("step", STEPS)
def test_steps(step: str) -> None:
    net = Net(3, 4, 21)
    y = linear(net, net.node("floor", "x"), 19)
    halves(net)
    assert not check(outputs(net, net.node(step, y))).metadata.notes


@DRAWN
@given(targets, st.integers(1, 4), st.integers(1, 3), st.integers(1, 20), st.integers(1, 40), st.integers(1, 40),
       st.sampled_from(["", "left", "right"]), st.integers(1, 2))  # fmt: skip
def test_products_of_computed_tensors(target: Target, n: int, heads: int, rows: int, inner: int, columns: int,
                                      shared: str, threads: int) -> None:  # fmt: skip
    net = Net(n, heads, rows, inner)
    w = net.weight("w", inner, columns, scale=0.3)
    right = net.node("matmul", net.node("transpose", "x", perm=(0, 1, 3, 2)), net.weight("v", rows, columns))
    left = "x"
    if shared == "left":
        left = net.node("slice", "x", axes=(1,), starts=(0,), ends=(1,), steps=(1,))
    if shared == "right":
        right = net.node("slice", right, axes=(0,), starts=(0,), ends=(1,), steps=(1,))
    y = net.node("mul", net.node("matmul", left, right), net.weight("s"))
    lib = check(outputs(net, net.node("add", y, net.node("matmul", "x", w))), target, threads=threads)
    assert not lib.metadata.notes


@pytest.mark.parametrize("shapes", [((5, 7), (7, 20)), ((2, 5, 7), (7, 20)), ((5, 7), (3, 7, 20))], ids=str)
def test_products_of_matrices(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    net = Net(*shapes[0])
    right = net.node("add", net.node("reshape", "x", shape=(-1,)), net.weight("zero"))
    size = 1
    for d in shapes[1]:
        size *= d
    right = net.node("matmul", net.node("reshape", right, shape=(1, -1)), net.weight("m", net.shape(right)[0], size))
    right = net.node("reshape", right, shape=shapes[1])
    lib = check(outputs(net, net.node("relu", net.node("matmul", "x", right))))
    assert not lib.metadata.notes


@DRAWN
@given(targets, st.sampled_from(["softmax", "log_softmax"]), lead, st.integers(1, 70), st.integers(0, 4))
def test_softmax_over_any_axis(target: Target, op: str, shape: list[int], width: int, axis: int) -> None:
    net = Net(*shape, 3, width)
    axis %= len(shape) + 2
    y = net.node(op, linear(net, "x", width), axis=axis)
    lib = check(outputs(net, net.node("sub", y, linear(net, y, width))), target)
    assert not lib.metadata.notes


@DRAWN
@given(targets, st.sampled_from(["layer_norm", "rms_norm"]), lead, st.integers(1, 70), st.booleans(), st.booleans())
def test_norms_of_rows(target: Target, op: str, shape: list[int], width: int, weight: bool, bias: bool) -> None:
    net = Net(*shape, 3, width)
    weights: list[str | None] = [net.weight("g", width) if weight else None]
    weights += [net.weight("b", width) if bias else None] if op == "layer_norm" else []
    y = net.node(op, "x", *weights, dims=1, eps=1e-5)
    lib = check(outputs(net, net.node("gelu", linear(net, y, 9), approximate="none")), target)
    assert not lib.metadata.notes


def test_a_norm_of_rows_far_from_zero() -> None:
    net = Net(2, 5, 48)
    net.weights["far"] = net.rng.standard_normal(48).astype("float32") + 1000
    y = net.node("layer_norm", net.node("add", "x", "far"), None, None, dims=1, eps=1e-5)
    check(outputs(net, y), tolerance=2e-3)


@DRAWN
@given(targets, st.integers(1, 4), st.integers(1, 8), st.integers(1, 6),
       st.tuples(st.integers(1, 9), st.integers(2, 9)), st.booleans(),
       st.sampled_from(["group_norm", "instance_norm"]))  # fmt: skip
def test_group_norm(target: Target, n: int, groups: int, per: int, size: tuple[int, int], weight: bool,
                    op: str) -> None:  # fmt: skip
    net = Net(n, 3, *size)
    x = conv(net, "x", groups * per, (1, 1))
    affine = [net.weight("g", groups * per), net.weight("b", groups * per)] if weight else [None, None]
    attrs = {"groups": groups} if op == "group_norm" else {}
    y = net.node("relu", net.node("add", net.node(op, x, *affine, eps=1e-3, **attrs), x))
    lib = check(outputs(net, conv(net, y, 4, (1, 1))), target)
    assert not lib.metadata.notes


@DRAWN
@given(targets, st.sampled_from(["reduce_mean", "reduce_sum", "reduce_max"]), st.integers(1, 3), st.integers(1, 40),
       st.booleans(), st.sampled_from([(1,), (2,), (1, 2)]))  # fmt: skip
def test_reductions_of_rows(target: Target, op: str, n: int, width: int, keep: bool, over: tuple[int, ...]) -> None:
    net = Net(n, 6, width)
    y = net.node(op, linear(net, "x", width), axes=over, keepdims=keep)
    check(outputs(net, net.node("neg", y)), target)


@DRAWN
@given(targets, st.integers(1, 3), st.integers(1, 40), st.integers(1, 9))
def test_gates_of_pixels_and_channels(target: Target, n: int, width: int, size: int) -> None:
    net = Net(n, 5, size, 6)
    x = conv(net, "x", width, (3, 3), pad=(1, 1, 1, 1))
    pixel = net.node("sigmoid", conv(net, net.node("reduce_max", x, axes=(1,), keepdims=True), 1, (1, 1)))
    row = net.node("reduce_mean", x, axes=(3,), keepdims=True)
    y = net.node("mul", net.node("add", net.node("mul", x, pixel), net.weight("p", 1, 1, size, 6)), row)
    check(outputs(net, net.node("add", y, net.weight("q", width, size, 1))), target)


def test_written_out_activations_are_part_of_the_kernel() -> None:
    net = Net(1, 8, 7, 7)
    for name, value in (("three", 3.0), ("six", 6.0), ("half", 0.5), ("one", 1.0), ("root", 2**0.5)):
        net.weights[name] = net.rng.standard_normal(()).astype("float32") * 0 + value
    x = conv(net, "x", 20, (1, 1))
    hard = net.node("mul", x, net.node("clip", net.node("add", x, "three"), min=0.0, max=6.0))
    y = conv(net, net.node("div", hard, "six"), 20, (1, 1))
    swish = net.node("mul", y, net.node("sigmoid", y))
    z = conv(net, swish, 20, (1, 1))
    gelu = net.node("mul", z, net.node("add", net.node("erf", net.node("div", z, "root")), "one"))
    lib = check(outputs(net, net.node("mul", gelu, "half")))
    assert not lib.metadata.notes


def test_attention_has_no_operator_left() -> None:
    net = Net(2, 24, 5, 6)
    lib = check(outputs(net, net.layer_norm(net.attention("x", 3))))
    assert not lib.metadata.notes


def test_kernels_grow_with_their_maxima_and_no_faster() -> None:
    """A maximum is written with its operands several times: nested by name, eight of them held TVM for a minute."""
    longest, avx2 = [], TARGETS["x86-avx2"]
    for count in (4, 8):
        net = Net(1, 8, 3, 6)
        y = conv(net, "x", 8, (1, 1))
        for i in range(count):
            y = net.node("maximum", y, net.weight(f"m{i}", 8, 1, 1))
        calls = lower(outputs(net, y), avx2, 1, Tuner(avx2, 1, Records()).choose, backend_for(avx2)).calls
        longest.append(max(len(str(kernel(c.spec, c.choice, avx2, templates(FAMILIES)))) for c in calls))
    assert longest[1] < 2 * longest[0]
