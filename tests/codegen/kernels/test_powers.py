"""Recurrent rows that keep one weight of each 2^b units: how they are found and how they lie, and what is computed."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from secateur.codegen.cpu_backend import CPU
from secateur.codegen.kernels.recurrent.packing import keep
from secateur.codegen.kernels.recurrent.spec import RecurrentSpec
from secateur.codegen.kernels.row_sparse.packing import Rows, keep_rows
from secateur.codegen.kernels.row_sparse.powers import Power, choose_rows, largest_powers
from secateur.codegen.plan.lower import lower
from secateur.codegen.plan.program import Program
from secateur.codegen.targets import TARGETS, Target
from secateur.codegen.tune.portable import for_here
from secateur.codegen.tune.tuner import default_choice
from secateur.ir import Graph
from support.kernels import DRAWN, check
from support.network import Net
from support.rows import darb

pytest.importorskip("tvm", reason="code generation needs apache-tvm")

AVX2, AVX512 = TARGETS["x86-avx2"], TARGETS["x86-avx512"]
Matrix = NDArray[np.float32]
powers_of_rows = st.lists(st.integers(-1, 7), min_size=1, max_size=12)  # -1: a row without weights


def unpacked(rows: Rows, lanes: int, shape: tuple[int, int]) -> Matrix:
    """The dense weights, read as the kernel reads them; each place must be a unit."""
    found, at, word_at = np.zeros(shape, np.float32), 0, 0
    for number, power in enumerate(rows.powers.powers):
        how = Power(power, lanes, shape[1])
        for group in range(rows.powers.starts[number], rows.powers.starts[number + 1]):
            words = rows.powers.words[word_at : word_at + how.words * lanes].reshape(how.words, lanes)
            word_at += words.size
            for j in range(how.vectors):
                window = (j << power) // (how.wide * lanes) * how.wide * lanes
                for lane in range(lanes):
                    word = int(words[j // how.each, lane]) if how.bits else 0
                    place = word >> how.bits * (j % how.each) & (how.wide * lanes - 1) if how.bits else j % lanes
                    assert window + place < shape[1]
                    found[group * lanes + lane, window + place] += rows.powers.weight[at + j * lanes + lane]
            at += how.vectors * lanes
    assert (at, word_at) == (len(rows.powers.weight), len(rows.powers.words))
    first = int(rows.powers.starts[-1])
    for group in range(len(rows.starts) - 1):
        for i in range(rows.starts[group], rows.starts[group + 1]):
            each = slice(i * lanes, (i + 1) * lanes)
            np.add.at(found, ((first + group) * lanes + np.arange(lanes), rows.unit[each]), rows.weight[each])
    return found[rows.place]


def test_rows_by_hand() -> None:
    """Four lanes, blocks of two units: two blocks are in a vector of units, so places count up to three."""
    r = np.float32([[0, 3, 5, 0, 0], [2, 0, 0, 4, 7], [0, 0, 0, 0, 9], [0, 8, 0, 1, 0]])
    found = keep_rows(r, 4, {1: np.arange(4)})
    np.testing.assert_array_equal(found.powers.weight.reshape(3, 4), [[3, 2, 0, 8], [5, 4, 0, 1], [0, 7, 9, 0]])
    # Units 1 and 2; 0, 3 and 4; 4; 1 and 3. Where nothing is kept, the first of the block.
    np.testing.assert_array_equal(found.powers.words, [0x021, 0x030, 0x020, 0x031])
    np.testing.assert_array_equal(found.powers.starts, [0, 1])
    np.testing.assert_array_equal(found.starts, [0])
    np.testing.assert_array_equal(found.place, np.arange(4))


def test_places_of_many_units_take_a_byte() -> None:
    """Blocks of 32 units in vectors of eight: unit 31 of the first block, 32 + 9 in the second."""
    r = np.zeros((8, 50), np.float32)
    r[:, 31], r[:, 41] = 2, 3
    found = keep_rows(r, 8, {5: np.arange(8)}).powers
    np.testing.assert_array_equal(found.words, [31 + (9 << 8)] * 8)
    np.testing.assert_array_equal(found.weight.reshape(2, 8), [[2] * 8, [3] * 8])


def test_the_largest_power_that_fits() -> None:
    """Units 3 and 4 are neighbours in different blocks of four; 4 and 7 share one; the last block is not whole."""
    r = np.zeros((5, 9), np.float32)
    for row, units in enumerate([(3, 4), (4, 7), (0, 1), (5, 8), ()]):
        r[row, list(units)] = 1
    np.testing.assert_array_equal(largest_powers(r, 4), [2, 1, 0, 3, 4])


def test_rows_that_are_left_over_go_with_the_next_smaller_power() -> None:
    """Two lanes: one of three rows of power two goes with the one of power one, and the row without weights nowhere."""
    r = darb([2, 2, 2, 1, -1], 5, 16, 0)
    found = choose_rows(r, 2, lambda how, most: True)
    assert sorted(found[2].tolist() + found[1].tolist()) == [0, 1, 2, 3]
    assert 3 in found[1]
    assert not any(len(rows) for power, rows in found.items() if power < 1)
    assert choose_rows(r, 2, lambda how, most: False) == {}


@given(
    powers_of_rows, st.integers(1, 6), st.integers(1, 150), st.sampled_from([4, 8, 16]), st.booleans(),
    st.integers(0, 99),
)  # fmt: skip
def test_all_weights_are_there_once(
    powers: list[int], vectors: int, hidden: int, lanes: int, all_pay: bool, seed: int
) -> None:
    r = darb(powers, vectors * lanes, hidden, seed)
    chosen = choose_rows(r, lanes, lambda how, most: all_pay or how.wide < 2)
    rows = keep_rows(r, lanes, chosen)
    np.testing.assert_array_equal(np.sort(rows.place), np.arange(len(r)))
    np.testing.assert_array_equal(unpacked(rows, lanes, r.shape), r)


def test_rows_lie_by_powers_where_a_vector_is_permuted() -> None:
    r = darb([3, 3, 4, 2], 4 * 256, 256, 0)
    for target, powers in ((AVX2, (4, 3, 2)), (AVX512, (4, 3, 2)), (replace(AVX2, permute=""), ())):
        found = keep(r, 4, target)
        assert isinstance(found, Rows)
        assert found.powers.powers == powers
        np.testing.assert_array_equal(unpacked(found, target.lanes, r.shape), r)
    scattered = np.random.default_rng(0).random(r.shape) < 0.1
    found = keep(scattered.astype(np.float32), 4, AVX2)
    assert isinstance(found, Rows)
    assert found.powers.powers == ()


def network(op: str, r: Matrix, batch: int, direction: str) -> Graph:
    """A recurrent layer on three steps with these weights, in both directions the same."""
    hidden, ways = r.shape[1], 1 + (direction == "bidirectional")
    net = Net(3, batch, 8)
    w, own = net.weight("w", ways, len(r), 8), net.weight("r", ways, *r.shape)
    net.weights["r"] = np.stack([r] * ways)
    state = [None] if op == "lstm" else []
    attrs = {"linear_before_reset": True} if op == "gru" else {}
    y = net.node(op, "x", w, own, None, None, *state, hidden=hidden, direction=direction, **attrs)
    return Graph("net", tuple(net.inputs), tuple(net.nodes), (y,), net.weights)


def plan(graph: Graph, target: Target) -> Program:
    return lower(graph, target, 1, lambda spec, *others: default_choice(spec, target), CPU)


def powers_in(graph: Graph, target: Target) -> set[int]:
    """Of all recurrent kernels."""
    return {p for c in plan(graph, target).calls if isinstance(c.spec, RecurrentSpec) for p in c.spec.powers}


def far(target: Target) -> Target:
    """As where all weights come from memory, so that few zeros pay."""
    return for_here(replace(target, l2=1))


@pytest.mark.parametrize("target", [AVX2, AVX512], ids=["8 lanes", "16 lanes"])
def test_all_powers_in_one_layer(target: Target) -> None:
    """Powers 0 to 6 of 70 units: words that are whole, and a rest of vectors, of a block and of units."""
    graph = network("lstm", darb(list(range(7)), 4 * 70, 70, 0), 2, "reverse")
    assert powers_in(graph, far(target)) >= {1, 2, 3, 4, 5}
    check(graph, far(target), tolerance=1e-6, threads=1)


@DRAWN
@given(
    st.sampled_from(["lstm", "gru"]), powers_of_rows, st.integers(1, 140), st.integers(1, 3),
    st.sampled_from(["forward", "reverse", "bidirectional"]), st.sampled_from([AVX2, AVX512]),
)  # fmt: skip
def test_any_shape_agrees_with_torch(
    op: str, powers: list[int], hidden: int, batch: int, direction: str, target: Target
) -> None:
    r = darb(powers, (4 if op == "lstm" else 3) * hidden, hidden, hidden)
    check(network(op, r, batch, direction), far(target), tolerance=1e-5, threads=1)


def test_machine_code_permutes_in_registers() -> None:
    """By eight lanes two permutations and a blend for blocks of 16; by sixteen one, and one of two vectors for 32."""
    graph = network("lstm", darb([3, 4, 5], 4 * 256, 256, 0), 1, "forward")
    one, two = r"\bvperm(?:ps|d)\s", r"\bvperm[ti]2ps\s"
    for target, powers, least in ((AVX2, {3, 4}, (8 + 16, 0)), (AVX512, {3, 4, 5}, (8 + 8, 4))):
        assert powers_in(graph, target) >= powers
        text = CPU.assemble(plan(graph, target), graph, target).module.inspect_source("asm")
        counts = len(re.findall(one, text)), len(re.findall(two, text))
        assert counts[0] >= least[0]
        assert counts[1] >= least[1]
        assert (counts[1] == 0) == (target is AVX2)
