"""Linear layers on a few pixels that leave zeros out row by row: whether they are right, and when they are taken."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from secateur.codegen.cpu_backend import CPU
from secateur.codegen.kernels.row_sparse import plan
from secateur.codegen.kernels.row_sparse.spec import RowSparseChoice, RowSparseSpec
from secateur.codegen.kernels.row_sparse.template import space
from secateur.codegen.plan.lower import lower
from secateur.codegen.plan.strides import Strides
from secateur.codegen.records import Records, workload_of
from secateur.codegen.runtime import ffi
from secateur.codegen.targets import TARGETS, Target
from secateur.codegen.tune import timing
from secateur.codegen.tune.portable import for_here
from secateur.codegen.tune.tuner import Tuner
from secateur.ir import Graph
from support.alternatives import always
from support.guarded import guarded
from support.kernels import ACTIVATIONS, CONTINUOUS, DRAWN, check, outputs
from support.network import Net
from support.rows import darb

pytest.importorskip("tvm", reason="code generation needs apache-tvm")

AVX2 = for_here(TARGETS["x86-avx2"])


def layer(rows: NDArray[np.float32], *pixels: int, activation: str = "relu") -> Graph:
    """A linear layer with a bias, an activation and a residual after it."""
    net = Net(*pixels, rows.shape[1])
    w, bias = net.weight("w", *rows.shape), net.weight("b", len(rows))
    net.weights["w"] = rows
    y = net.node("linear", "x", w, bias, transposed=False)
    return outputs(net, net.node("add", net.node(activation, y, **ACTIVATIONS[activation]), y))


def taken(graph: Graph, target: Target = AVX2, threads: int = 1) -> list[RowSparseSpec]:
    """The kernels by rows of a plan."""
    program = lower(graph, target, threads, Tuner(target, threads, Records()).choose, CPU)
    return [call.spec for call in program.calls if isinstance(call.spec, RowSparseSpec)]


@DRAWN
@given(
    st.lists(st.integers(-1, 6), min_size=1, max_size=12).filter(lambda p: max(p) > 1), st.integers(1, 90),
    st.integers(1, 150), st.sampled_from([(1,), (2,), (7,), (1, 3), (2, 2)]), st.sampled_from(CONTINUOUS),
    st.sampled_from(["x86-avx2", "x86-avx512"]),
)  # fmt: skip
def test_any_shape(
    powers: list[int], rows: int, columns: int, pixels: tuple[int, ...], activation: str, target: str
) -> None:
    """Outputs and inputs that fill no block, rows of no power and without weights, both widths of vector."""
    graph = layer(darb(powers, rows, columns, rows), *pixels, activation=activation)
    with always(RowSparseSpec):
        check(graph, for_here(TARGETS[target]), threads=1)


@pytest.mark.parametrize("columns", [250, 256])
def test_rows_by_powers_are_taken_on_a_few_pixels(columns: int) -> None:
    """With 250 inputs the last block is not whole: no weight looks there."""
    r = darb([3, 3, 4, 2], 512, columns, 0)
    (spec,) = taken(layer(r, 3))
    assert (spec.powers, spec.shares, spec.percent) == ((4, 3, 2), (25, 50, 25), 0)
    check(layer(r, 3), AVX2, threads=1)
    assert len(taken(layer(r, 7))) == 1
    assert taken(layer(r, 8)) == []
    (shared,) = taken(layer(r, 3), threads=2)
    assert shared.estimate(AVX2) == 2 * spec.estimate(AVX2)
    check(layer(r, 3), AVX2, threads=2)
    assert taken(layer(r, 3), replace(AVX2, permute="")) == []
    assert taken(layer(r, 3), TARGETS["aarch64-neon"]) == []


def test_other_zeros_are_left_out_where_they_are_many() -> None:
    """Their inputs are loaded one by one, which few weights from memory are worth."""
    rng = np.random.default_rng(0)
    for share, percent in ((1.0, None), (0.6, None), (0.1, 10)):
        r = (rng.standard_normal((512, 250)) * (rng.random((512, 250)) < share)).astype(np.float32)
        assert [spec.percent for spec in taken(layer(r, 1))] == ([] if percent is None else [percent])
    check(layer(r, 2), AVX2, threads=1)


def test_inputs_that_do_not_follow_each_other_are_looked_up_by_other_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shuffled channels, which nothing moves; and lanes in another order, or from the middle of a block on."""
    net = Net(1, 64, 1, 1)
    y = net.conv(net.shuffle(net.conv("x", 128, 1), 4), 256, 1)
    weight = next(n for n in net.weights if net.weights[n].shape == (256, 128, 1, 1))
    net.weights[weight] = darb([3, 4], 256, 128, 0)[:, :, None, None]
    assert taken(outputs(net, y)) == []
    given, usual = list[Any](), plan.alternatives
    monkeypatch.setattr(plan, "alternatives", lambda *a: given.append(a) or usual(*a))  # type: ignore[func-returns-value]
    assert len(taken(layer(darb([3, 4], 512, 256, 0), 1))) == 1
    spec, x, reads, rows, target = given[0]
    assert len(plan.alternatives(spec, x, reads, rows, target)) == 1
    for other in (np.r_[0, 2, 1, reads[3:]], reads[4:]):
        assert plan.alternatives(spec, x, other, rows[:, : len(other)], target) == ()


@pytest.mark.parametrize("pattern", [((4, 3), (30, 40)), ((), ())], ids=["powers", "others alone"])
def test_every_choice_stays_in_its_memory_when_it_is_timed(pattern: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    """On what is drawn for records: the choices differ in the order of sums alone."""
    there = Strides(block=8 * 3, image=8 * 3, row=8 * 3, column=8)
    spec = RowSparseSpec(8, 1, 150, 9, 1, 3, there, there, *pattern, 20)
    template, results = CPU.templates[RowSparseSpec], []
    assert template.arrays is not None
    for choice in space(spec, AVX2):
        arrays = [guarded(a, 64) for a in template.arrays(spec, AVX2)[0]]
        timing.compiled(spec, choice, AVX2)(*map(ffi().from_dlpack, arrays))
        results.append(arrays[-1].copy())
    assert len(results) == len({c.sums for c in space(spec, AVX2)}) > 1
    assert np.abs(results[0]).max() > 0
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], rtol=0, atol=1e-4)


def test_records_know_shares_and_not_which_rows() -> None:
    one, other = (taken(layer(darb([3, 4], 512, 256, seed), 1))[0] for seed in (0, 1))
    assert workload_of(one.workload()) == workload_of(other.workload())
    assert RowSparseChoice() == next(space(one, AVX2))
