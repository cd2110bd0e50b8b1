"""Strassen's matrix product: its sums by hand, its kernels against the torch executor, and when it is taken."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from secateur.codegen.build import workloads
from secateur.codegen.cpu_backend import CPU
from secateur.codegen.kernels.conv.spec import ConvSpec
from secateur.codegen.kernels.strassen import sums as strassen
from secateur.codegen.kernels.strassen.spec import StrassenSpec
from secateur.codegen.kernels.strassen.template import space
from secateur.codegen.plan.lower import lower
from secateur.codegen.plan.strides import Strides
from secateur.codegen.records import Records, record_of
from secateur.codegen.targets import TARGETS, Target, native
from secateur.codegen.tune.tuner import Tuner, candidates
from secateur.deploy import build
from secateur.ir import Graph
from secateur.ir.exporters.torch.module import evaluate
from support import alternatives
from support.alternatives import kernels
from support.kernels import ACTIVATIONS, CONTINUOUS, DRAWN, check, conv, outputs, runnable, widths
from support.network import Net

NARROW = TARGETS["x86-avx2"]


always = partial(alternatives.always, StrassenSpec)


def layer(inputs: int, width: int, size: int, **attrs: Any) -> Graph:
    """A 1x1 convolution after a cheap one."""
    net = Net(1, 3, size, size)
    return outputs(net, conv(net, conv(net, "x", inputs, (1, 1)), width, (1, 1), **attrs))


# --- the mathematics ------------------------------------------------------------------------------------------------


def test_sums_of_weights_by_hand() -> None:
    """Outputs by inputs: B11 = 1, B21 = 2, B12 = 3, B22 = 5, so T1 = 2, T2 = 3, T3 = 2, -T4 = -1."""
    b11, b21, t2, t3, minus_t4, t1, b22 = (float(b[0, 0]) for b in strassen.weight_sums(np.float32([[1, 2], [3, 5]])))
    assert (b11, b21, t2, t3, minus_t4, t1, b22) == (1, 2, 3, 2, -1, 2, 5)


def test_the_products_make_the_matrix_product() -> None:
    """For every unit matrix on both sides, so for all: in whole numbers nothing is rounded."""
    for i, j, k, m in np.ndindex(2, 2, 2, 2):
        a, b = np.zeros((2, 2)), np.zeros((2, 2), np.float32)
        a[i, j] = b[k, m] = 1  # b [output, input]
        b11, b21, t2, t3, minus_t4, t1, b22 = (float(x[0, 0]) for x in strassen.weight_sums(b))
        s1 = a[1, 0] + a[1, 1]
        s2, s3 = s1 - a[0, 0], a[0, 0] - a[1, 0]
        s4 = a[0, 1] - s2
        m1, m5 = a[0, 0] * b11, s1 * t1
        u2 = m1 + s2 * t2
        u3 = u2 + s3 * t3
        found = [[m1 + a[0, 1] * b21, u2 + m5 + s4 * b22], [u3 + a[1, 1] * minus_t4, u3 + m5]]
        np.testing.assert_array_equal(found, a @ b.T)


def test_float32_stays_within_the_limit() -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((64, 512), np.float32)
    assert 1e-8 < strassen.error(weight) < strassen.LIMIT / 4
    weight[:32] *= 1e5  # the others drown in the sums
    assert strassen.error(weight) > strassen.LIMIT


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2), st.integers(1, 2), st.integers(1, 3),
       st.integers(0, 99))  # fmt: skip
def test_strips_hold_every_pixel(h: int, w: int, halo: int, stride: int, threads: int, which: int) -> None:
    """Pixels are halved where they lie as in one row, else rows."""
    if h * w < 2:
        return
    row = (w + 2 * halo) * stride**2 * 16
    plane = Strides(h * row, h * row, row, stride * 16)
    spec = StrassenSpec(16, 1, 8, 8, h, w, plane, plane, False, threads=threads)
    assert spec.flat == (h == 1 or (halo, stride) == (0, 1))
    choices = list(space(spec, TARGETS["x86-avx512"]))
    found = strassen.strip(spec, choices[which % len(choices)])
    extent = h * w if spec.flat else h
    held: set[int] = set()
    for i in range(found.count):
        first = min(i * 2 * found.size, found.last)
        held |= {first + gap + p for gap in (0, found.gap) for p in range(found.size)}
    assert held == set(range(extent))


# --- the kernels ----------------------------------------------------------------------------------------------------


@DRAWN
@given(
    st.integers(1, 4), st.integers(1, 3), st.integers(1, 6), st.tuples(st.integers(1, 11), st.integers(2, 17)),
    st.integers(0, 2), st.integers(1, 2), st.sampled_from(CONTINUOUS), st.integers(1, 3), st.integers(0, 63),
    st.booleans(), st.booleans(),
)  # fmt: skip
def test_any_shape(n: int, ci: int, co: int, size: tuple[int, int], pad: int, stride: int, activation: str,
                   threads: int, which: int, narrow: bool, after: bool) -> None:  # fmt: skip
    """Widths that fill an even number of blocks, images and halos of any size, one ``after`` the layer too."""
    target = NARROW if narrow else native()
    lanes = 2 * target.lanes
    net = Net(n, 5, *size)
    y = conv(net, conv(net, "x", lanes * ci, (1, 1)), lanes * co, (1, 1), pad=(pad,) * 4, stride=(stride,) * 2)
    y = net.node(activation, y, **ACTIVATIONS[activation])
    y = conv(net, y, 9, (3, 3), pad=(1, 1, 1, 1)) if after else y
    with always(which) as taken:
        check(outputs(net, y), target, threads=threads)
    assert len(taken) == (math.prod(net.shape(y)[2:]) > 1)


@pytest.mark.parametrize("target", widths(), ids=lambda t: t.name)
def test_all_widths_of_vector(target: Target) -> None:
    net = Net(2, 3, 7, 5)
    graph = outputs(net, net.node("relu", conv(net, conv(net, "x", 64, (1, 1)), 96, (1, 1))))
    for which in (0, -1):
        with always(which) as taken:
            if target in runnable():
                check(graph, target)
            else:
                CPU.assemble(lower(graph, target, 1, Tuner(target, 1, Records()).choose, CPU), graph, target)
        assert len(taken) == 1


@pytest.mark.parametrize("which", [0, -1])
def test_operands_of_every_kind_are_fused(which: int) -> None:
    net = Net(2, 6, 7, 9)
    x = conv(net, "x", 64, (1, 1))
    vector = net.node("reduce_max", x, axes=(2, 3), keepdims=True)
    y = conv(net, x, 64, (1, 1))
    y = net.node("sub", x, y)
    y = net.node("mul", y, net.weight("scale", 64, 1, 1))
    y = net.node("div", y, net.node("exp", vector))
    y = net.node("prelu", y, net.weight("slope", 64))
    with always(which) as taken:
        lib = check(outputs(net, net.node("add", y, net.weight("one"))))
    assert len(taken) == lib.metadata.kernels.get("strassen", 0) == 1
    assert not lib.metadata.notes


@DRAWN
@given(st.permutations(range(4)), st.integers(0, 2**16), st.integers(1, 2))
def test_blocks_that_lie_anywhere(order: list[int], which: int, threads: int) -> None:
    """Concat and split before it move nothing."""
    net = Net(1, 4, 6, 5)
    parts = [conv(net, "x", 32, (1, 1)) for _ in order]
    x = net.node("concat", *(parts[i] for i in order), axis=1)
    a, b = net.node("split", x, axis=1, sizes=(32, 96), outs=2)
    with always(which) as taken:
        lib = check(outputs(net, conv(net, a, 32, (1, 1)), conv(net, b, 64, (1, 1))), threads=threads)
    assert len(taken) == 2
    assert not lib.metadata.notes


def test_several_images_do_not_share_a_sum() -> None:
    """Batches whose images follow each other are one long row; with a halo they are not."""
    for pad in (0, 1):
        net = Net(3, 3, 5, 5)
        x = net.node("relu", conv(net, "x", 64, (1, 1)))
        y = conv(net, net.node("relu", conv(net, x, 64, (1, 1))), 8, (3, 3), pad=(pad,) * 4)
        with always() as taken:
            check(outputs(net, y), threads=2)
        assert len(taken) == 1


# --- when it is taken -----------------------------------------------------------------------------------------------


def test_what_the_default_takes() -> None:
    assert kernels(layer(512, 256, 14))[1] is StrassenSpec
    assert kernels(layer(64, 64, 14))[1] is ConvSpec, "what sums cost is more than what products gain"
    assert kernels(layer(512, 256, 1))[1] is ConvSpec, "one pixel has no halves"
    assert kernels(layer(512, 256, 32, stride=(2, 2)))[1] is StrassenSpec
    assert kernels(layer(512, 256, 14, stride=(2, 2)))[1] is ConvSpec, "of seven rows one is in both halves"
    assert kernels(layer(512, 512, 14, groups=2))[1:] == [StrassenSpec] * 2, "groups are layers of their own"
    assert kernels(layer(512, 15 * native().lanes, 14))[1] is ConvSpec, "15 blocks of outputs have no halves"
    assert kernels(layer(500, 256, 14))[1] is ConvSpec, "and the last of these inputs is not full"


def test_pixels_are_halved_where_rows_could_not_be() -> None:
    """Seven rows: without a halo of the inputs they are 49 pixels, though the outputs have one."""
    for pad, kind in (((0, 0), StrassenSpec), ((1, 1), ConvSpec)):
        net = Net(1, 3, 7, 7)
        x = conv(net, "x", 2048, (1, 1))
        y = conv(net, x, 1024, (1, 1))
        z = conv(net, x, 8, (3, 3), pad=pad + pad)  # a halo of x only if this one has it
        graph = outputs(net, conv(net, y, 8, (3, 3), pad=(1, 1, 1, 1)), z)
        assert kernels(graph)[1] is kind


def test_measured_seconds_decide_where_there_are_both() -> None:
    graph, target = layer(256, 256, 14), native()
    specs = {type(s): s for s in workloads(graph, target, 1) if s.ci == 256}
    assert set(specs) == {ConvSpec, StrassenSpec}, "the tuner must measure both"

    def taken(**seconds: float) -> type:
        records = Records()
        for spec in specs.values():
            if type(spec).__name__ in seconds:
                best = candidates(spec, target)[-1]
                records.add(record_of(target.name, spec, best, seconds[type(spec).__name__]))
        return kernels(graph, Tuner(target, 1, records).choose)[1]

    assert taken(ConvSpec=2.0, StrassenSpec=1.0) is StrassenSpec
    assert taken(ConvSpec=1.0, StrassenSpec=2.0) is ConvSpec
    assert taken(ConvSpec=1.0) is StrassenSpec, "one time alone compares with nothing"


def test_weights_that_drown_or_overflow_are_computed_directly() -> None:
    graph = layer(512, 256, 14)
    (name,) = (n for n, w in graph.weights.items() if w.shape == (256, 512, 1, 1))
    for factor in (1e5, 1e38):
        weight = graph.weights[name].copy()
        weight[:128] *= np.float32(factor)
        assert kernels(graph.rewrite(weights={**graph.weights, name: weight}))[1] is ConvSpec


def test_a_library_that_strays_is_built_again_without(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, exact = layer(256, 256, 14), strassen.weight_sums
    assert build(graph).metadata.kernels.get("strassen", 0) == 1
    monkeypatch.setattr("secateur.codegen.kernels.strassen.plan.LIMIT", 1.0)
    monkeypatch.setattr(
        "secateur.codegen.kernels.strassen.packing.weight_sums",
        lambda w: [s + np.float32(1e-2 * np.abs(w).max()) for s in exact(w)],
    )
    lib = build(graph)
    assert lib.metadata.kernels.get("strassen", 0) == 0
    x = np.ones((1, 3, 14, 14), np.float32)
    assert np.abs(lib(x) - evaluate(graph, {"x": x})[0]).max() < 1e-5 * np.abs(lib(x)).max()
