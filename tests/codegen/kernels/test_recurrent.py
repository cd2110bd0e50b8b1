"""LSTM and GRU compared with ONNX Runtime: states computed, constant or left out, and outputs that nobody names."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur import codegen
from secateur.capture import load
from secateur.codegen.backends import backend_for
from secateur.codegen.kernels.recurrent.packing import Kept, keep, keep_blocks
from secateur.codegen.kernels.recurrent.spec import RecurrentSpec
from secateur.codegen.kernels.row_sparse.packing import Rows, keep_rows
from secateur.codegen.plan.lower import lower
from secateur.codegen.targets import Target
from secateur.codegen.tune.tuner import default_choice
from secateur.ir import Graph
from secateur.passes.sparsify import Sparsify
from support.kernels import check
from support.network import Net
from support.recurrent import by_runtime, layer


@pytest.mark.parametrize("ways", [1, 2])
@pytest.mark.parametrize(
    ("op", "outputs", "states"),
    [
        ("LSTM", ["y", "h", "c"], ["constant", "constant"]), ("LSTM", ["y"], []), ("LSTM", ["y", "h"], []),
        ("LSTM", ["y", "", "c"], ["given", ""]), ("LSTM", ["y", "h", "c"], ["given", "constant"]),
        ("GRU", ["y", "h"], ["constant"]), ("GRU", ["y"], ["given"]),
    ],
)  # fmt: skip
def test_a_library_agrees_with_onnx_runtime(
    op: str, outputs: list[str], states: list[str], ways: int, tmp_path: Path
) -> None:
    model = layer(op, outputs, states, ways)
    onnx.save(model, tmp_path / "m.onnx")
    library = codegen.build(load(tmp_path / "m.onnx"))
    rng = np.random.default_rng(1)
    feed = {p.name: rng.standard_normal(p.shape).astype(np.float32) for p in library.metadata.inputs}
    found = library(**feed)
    for got, want in zip(found if isinstance(found, tuple) else (found,), by_runtime(model, feed), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-6)


def recurrent_net(op: str, hidden: int, batch: int, direction: str) -> Graph:
    """A recurrent layer with a bias on five steps, and a linear layer after it."""
    net, gates, ways = Net(5, batch, 12), {"lstm": 4, "gru": 3}[op], 1 + (direction == "bidirectional")
    w, r = net.weight("w", ways, gates * hidden, 12), net.weight("r", ways, gates * hidden, hidden)
    bias = net.weight("b", ways, 2 * gates * hidden)
    attrs = {"linear_before_reset": True} if op == "gru" else {}
    y = net.node(
        op, "x", w, r, bias, None, *([None] if op == "lstm" else []), hidden=hidden, direction=direction, **attrs
    )
    return Graph("net", tuple(net.inputs), tuple(net.nodes), (y,), net.weights)


def kinds(graph: Graph, target: Target) -> set[str]:
    """Whether the recurrent kernels of a graph leave zeros out."""
    program = lower(graph, target, 1, lambda spec, *others: default_choice(spec, target), backend_for(target))
    return {call.spec.sparse for call in program.calls if isinstance(call.spec, RecurrentSpec)}


@pytest.mark.parametrize("op", ["lstm", "gru"])
@pytest.mark.parametrize(
    ("hidden", "batch", "direction"), [(40, 1, "forward"), (24, 3, "bidirectional"), (8, 1, "reverse")]
)
def test_zeros_in_blocks_are_left_out(op: str, hidden: int, batch: int, direction: str) -> None:
    """Also blocks that are not as many in each row, an odd number of blocks, and rows without any."""
    graph = recurrent_net(op, hidden, batch, direction)
    sparse = Sparsify(0.7, "8x1")(graph)
    r = sparse.weights["r"].copy()
    r[:, :8] = 0
    sparse = sparse.rewrite(weights={**sparse.weights, "r": r})
    target = codegen.get_target("x86-avx2")
    assert kinds(graph, target) == {""}
    assert kinds(sparse, target) == {"blocks"}
    check(sparse, target, threads=1)


def test_kept_blocks_by_hand() -> None:
    """Two gates, one block of two units each, three hidden units: gate 0 keeps unit 1, gate 1 units 0 and 2."""
    r = np.float32([[0, 1, 0], [0, 2, 0], [3, 0, 5], [4, 0, 0]])
    found = keep_blocks(r, 2, 2)
    assert found is not None
    np.testing.assert_array_equal(found.weight.reshape(2, 2, 2), [[[1, 2], [3, 4]], [[0, 0], [5, 0]]])
    np.testing.assert_array_equal(found.unit.reshape(2, 2)[:, 1], [0, 2])
    assert found.unit[0] == 1
    np.testing.assert_array_equal(found.starts, [0, 2])


def test_what_is_kept_is_what_takes_least() -> None:
    """Rows cost a load for each weight: in the cache they pay late, from memory at half of the weights."""
    target = codegen.get_target("x86-avx2")
    rng = np.random.default_rng(0)
    few, many = (rng.random((4 * size, size)).astype(np.float32) for size in (64, 400))
    assert keep(few, 4, target) is None
    for r, share, kind in ((few, 0.25, None), (few, 0.05, Rows), (many, 0.25, Rows), (many, 0.6, None)):
        assert isinstance(keep(r * (rng.random(r.shape) < share), 4, target), kind or type(None))
    blocks = np.repeat(rng.random((len(many) // 8, 400)) < 0.25, 8, 0)
    assert isinstance(keep(many * blocks, 4, target), Kept)


@pytest.mark.parametrize("op", ["lstm", "gru"])
@pytest.mark.parametrize(("block", "hidden", "batch", "direction"), [
    ("darb", 40, 1, "forward"), ("irregular", 24, 3, "bidirectional"), ("bmwm", 32, 1, "reverse"),
])  # fmt: skip
def test_zeros_of_any_pattern_are_left_out(op: str, block: str, hidden: int, batch: int, direction: str) -> None:
    """Rows that keep as many weights side by side, and rows without any."""
    sparse = Sparsify(0.75, block)(recurrent_net(op, hidden, batch, direction))
    r = sparse.weights["r"].copy()
    r[:, :3] = 0
    sparse = sparse.rewrite(weights={**sparse.weights, "r": r})
    target = replace(codegen.get_target("x86-avx2"), l2=0)  # as where all weights come from memory
    assert kinds(sparse, target) == {"rows"}
    check(sparse, target, threads=1)


def test_kept_rows_by_hand() -> None:
    """Four rows, two a vector: the second and the third keep two weights each, the others one and none."""
    r = np.float32([[0, 0, 1], [2, 0, 3], [4, 5, 0], [0, 0, 0]])
    found = keep_rows(r, 2, {})
    np.testing.assert_array_equal(found.weight.reshape(3, 2), [[2, 4], [3, 5], [1, 0]])
    np.testing.assert_array_equal(found.unit.reshape(3, 2)[:2], [[0, 0], [2, 1]])
    assert found.unit[4] == 2
    np.testing.assert_array_equal(found.starts, [0, 2, 3])
    np.testing.assert_array_equal(found.place, [2, 0, 1, 3])


@given(st.integers(1, 6), st.integers(0, 30), st.floats(0, 1), st.integers(0, 99))
def test_kept_rows_are_all_there_is(blocks: int, hidden: int, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    r = (rng.standard_normal((8 * blocks, hidden)) * (rng.random((8 * blocks, hidden)) < share)).astype(np.float32)
    found, dense = keep_rows(r, 8, {}), np.zeros((8 * blocks, hidden), np.float32)
    for group, (begin, end) in enumerate(pairwise(found.starts)):
        for i in range(begin, end):
            np.add.at(dense, (8 * group + np.arange(8), found.unit[8 * i : 8 * i + 8]), found.weight[8 * i : 8 * i + 8])
    np.testing.assert_array_equal(dense[found.place], r)
