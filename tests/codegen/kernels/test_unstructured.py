"""Kernels for zeros that make no blocks: lists by hand, layers against the torch executor, when they are taken."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from secateur.codegen.assembly import show_plan
from secateur.codegen.kernels.block_sparse.lists import pack_lists
from secateur.codegen.kernels.block_sparse.packing import PIECES, piece
from secateur.codegen.kernels.block_sparse.spec import UnstructuredSpec
from secateur.codegen.plan.strides import Strides
from secateur.codegen.records import workload_of
from secateur.codegen.targets import TARGETS, native
from secateur.ir import Graph
from secateur.passes.sparsify import Sparsify
from support.alternatives import always
from support.kernels import check, conv, outputs
from support.network import Net


def scattered(net: Net, keep: float) -> None:
    """Zero single weights at random, in all layers that are wide."""
    rng = np.random.default_rng(0)
    for name, w in net.weights.items():
        if w.ndim > 1 and min(w.shape[:2]) > 8:
            net.weights[name] = w * (rng.random(w.shape) < keep)


# --- packing --------------------------------------------------------------------------------------------------------


def test_lists_are_packed_by_hand() -> None:
    """Four outputs, two at a time: those that keep two weights, then those that keep one and none."""
    weight = np.float32([[0, 5, 0], [1, 0, 2], [0, 0, 0], [0, 3, 4]])[:, :, None, None]
    packed = pack_lists(weight, 2, 2, 1)
    np.testing.assert_array_equal(packed.outputs, [1, 3, 0, 2])
    np.testing.assert_array_equal(packed.starts, [0, 2, 3])
    np.testing.assert_array_equal(packed.weight, [[1, 3], [2, 4], [5, 0]])
    np.testing.assert_array_equal(packed.channel, [[0, 1], [2, 2], [1, 1]])  # output 2 reads with output 0, times 0
    np.testing.assert_array_equal(packed.shares, [0, 2])
    np.testing.assert_array_equal(pack_lists(weight, 2, 2, 1, 2).outputs, [1, 0, 3, 2])  # a worker has two outputs


@given(st.integers(1, 5), st.integers(1, 60), st.sampled_from([1, 3]), st.floats(0, 1),
       st.sampled_from([1, 2, 4, PIECES]), st.integers(1, 4), st.sampled_from([2, 4]))  # fmt: skip
def test_lists_compute_the_product(blocks: int, inputs: int, kernel: int, keep: float, parts: int, workers: int,
                                   rows: int) -> None:  # fmt: skip
    """As the kernel reads them; each part reads inputs of its own alone, each worker writes its own outputs."""
    rng, lanes = np.random.default_rng(inputs), 8
    weight = rng.integers(1, 9, (lanes * blocks, inputs, kernel, kernel)).astype(np.float32)
    weight *= rng.random(weight.shape) < keep
    places = rng.permutation(inputs + 3)[:inputs]  # channels stand anywhere among the lanes
    packed = pack_lists(weight, lanes, rows, parts, workers, places, inputs + 3)
    groups = len(weight) // rows
    outputs = packed.outputs.reshape(parts, groups, rows)
    x, y = rng.integers(-9, 9, (inputs, kernel * kernel)), np.zeros(len(weight))
    for part in range(parts):
        np.testing.assert_array_equal(np.sort(outputs[part].ravel()), np.arange(len(weight)))
        for group in range(groups):
            start, end = packed.starts[part * groups + group :][:2]
            channel, tap = packed.channel[start:end], packed.tap[start:end]
            assert np.all(places[channel] // (piece(inputs + 3, lanes) * (PIECES // parts)) == part)
            np.add.at(y, outputs[part, group], (packed.weight[start:end] * x[channel, tap]).sum(0))
        for first, end in zip(packed.shares, packed.shares[1:], strict=False):
            mine = outputs[part].ravel()[first * lanes : end * lanes]
            assert set(mine) == set(range(first * lanes, end * lanes))
    np.testing.assert_array_equal(y, np.einsum("oit,it->o", weight.reshape(len(weight), inputs, -1), x))
    assert np.count_nonzero(packed.weight) == np.count_nonzero(weight)


# --- layers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "dilation", "threads", "which"),
    [(1, 1, 1, 0), (1, 1, 1, -1), (1, 1, 2, -1), (3, 2, 1, 0), (3, 2, 2, -1)],
)
def test_inputs_in_parts(kernel: int, dilation: int, threads: int, which: int) -> None:
    """More channels than the first cache holds of a tile: sums wait for the next part, whichever output they are of."""
    net = Net(2, 264, 5, 19)
    y = conv(net, "x", 24, (kernel, kernel), dilation=(dilation,) * 2, pad=(kernel // 2 * dilation,) * 4)
    scattered(net, 0.15)
    with always(UnstructuredSpec, which) as taken:
        check(outputs(net, y), threads=threads)
    assert taken[0].parts > 1
    assert taken[0].outer == ("strips" if threads == 1 else "blocks")


def test_outputs_without_weights() -> None:
    """Some outputs, whole blocks of them, and then all but one have nothing but their bias."""
    for rows in (slice(0, 3), slice(8, 24), slice(1, None)):
        net = Net(1, 16, 4, 9)
        y = conv(net, "x", 32, (1, 1))
        scattered(net, 0.4)
        net.weights["w0"][rows] = 0
        with always(UnstructuredSpec) as taken:
            check(outputs(net, y))
        assert taken


@pytest.mark.parametrize("block", ["irregular", "darb", "bmwm", "1:4", "4x4"])
def test_patterns_without_blocks_of_a_vector(block: str) -> None:
    """Whoever made the zeros: each pattern is taken, in a convolution and in a linear layer of several rows."""
    net = Net(16, 128)
    flat = net.node("linear", "x", net.weight("w", 64, 128), None, transposed=False)
    linear = outputs(net, flat)
    net = Net(1, 64, 12, 12)
    for graph in (linear, outputs(net, conv(net, "x", 128, (1, 1)))):
        made = Sparsify(0.75 if block == "1:4" else 0.85, block)(graph)
        assert "block_sparse.unstructured" in show_plan(made)
        assert check(made).metadata.kernels["block_sparse"] == 1


# --- when they are taken --------------------------------------------------------------------------------------------


def layer(keep: float, kernel: int = 1) -> Graph:
    net = Net(1, 3, 28, 28)
    y = conv(net, conv(net, "x", 256, (1, 1)), 256, (kernel, kernel), pad=(kernel // 2,) * 4)
    scattered(net, keep)
    return outputs(net, y)


def test_a_layer_that_would_gain_nothing_stays_dense() -> None:
    assert "unstructured" in show_plan(layer(0.3))
    assert "unstructured" in show_plan(layer(0.05, 3))
    for dense in (layer(1), layer(0.7), layer(0.3, 3)):  # Winograd's kernel is faster at 30 % of 3x3
        assert "block_sparse" not in show_plan(dense)
    narrow = Net(1, 256, 28, 28)  # one output of a block, whose others are no zeros of the network's
    assert "block_sparse" not in show_plan(outputs(narrow, conv(narrow, "x", 1, (1, 1))))


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_blocks_of_a_vector_keep_their_kernel(target: object) -> None:
    """Where zeros make blocks, single weights are no fewer, and on every target zeros without blocks are worth it."""
    net = Net(1, 256, 28, 28)
    graph = outputs(net, conv(net, "x", 256, (1, 1)))
    lanes = target.lanes  # type: ignore[attr-defined]
    assert "unstructured" not in show_plan(Sparsify(0.8, "auto", lanes=lanes)(graph), target)  # type: ignore[arg-type]
    assert "unstructured" in show_plan(Sparsify(0.8, "irregular")(graph), target)  # type: ignore[arg-type]


def test_records_know_the_share_of_weights() -> None:
    plane = Strides(0, 0, 8, 8)
    made = [UnstructuredSpec(8, 1, 8, 8, 1, 49, (1, 1), (1, 1), plane, plane, False, share) for share in (35, 35, 40)]
    assert workload_of(made[0]) == workload_of(made[1]) != workload_of(made[2])
    assert made[0].macs < made[2].macs
    assert made[0].estimate(native()) < made[2].estimate(native())
