"""Block-sparse layers on GPUs: which zeros are found, how rows are laid out, and when it is worth it."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.reach.gpu_cases import GPU_CASES, TINY
from secateur import codegen
from secateur.codegen.kernels.gpu.block_sparse.plan import SURE, alternatives, in_fours
from secateur.codegen.kernels.gpu.block_sparse.spec import GpuSparseSpec
from secateur.codegen.kernels.gpu.conv.spec import GpuConvSpec
from secateur.codegen.plan.strides import Strides
from secateur.codegen.plan.tensors import Arena, Blocked, Extent
from secateur.codegen.targets import GPUS
from secateur.ir.frontends.torch.trace import trace

pytest.importorskip("tvm", reason="code generation needs apache-tvm")

H200 = GPUS["cuda:sm_90"]


def convolution(inputs: int, outputs: int, kernel: int, side: int) -> GpuConvSpec:
    plane, pad = Strides(side * side, side * side, side, 1), kernel // 2
    return GpuConvSpec(1, 1, inputs, outputs, side, side, (kernel, kernel), (1, 1), (1, 1), (pad, pad), (side, side),
                       plane, plane, False)  # fmt: skip


def planes(spec: GpuConvSpec) -> Blocked:
    buffer, extent = Arena().new(1), Extent(spec.n, spec.h, spec.w, 0, 1)
    return Blocked(extent, tuple((buffer, 0) for _ in range(spec.ci)), np.arange(spec.ci))


def offered(spec: GpuConvSpec, height: int, share: float) -> tuple[GpuSparseSpec, ...]:
    """What is offered where ``share`` of the blocks are left, as many in each row."""
    rng, blocks = np.random.default_rng(0), spec.ci * spec.taps
    weight = np.zeros((spec.co // height, height, blocks), np.float32)
    for row in weight:
        row[:, rng.permutation(blocks)[: int(share * blocks)]] = 1
    return alternatives(spec, planes(spec), np.arange(spec.ci), weight.reshape(spec.co, spec.ci, *spec.kernel), H200)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("height", [4, 8, 32])
def test_zeros_are_found_in_blocks_of_any_height(kernel: int, height: int) -> None:
    spec = convolution(128, 128, kernel, 28)
    (found,) = offered(spec, height, 0.1)
    blocks = int(0.1 * 128 * kernel**2)
    assert found.dense == spec == found.computes
    assert height % found.height == 0  # lower ones where more groups of work items are better
    assert (found.kept, found.longest) == (128 // found.height * blocks, blocks)
    assert found.macs == 28 * 28 * 128 * blocks
    assert SURE * found.estimate(H200) <= spec.estimate(H200)


def test_what_is_nearly_dense_or_has_groups_is_left_to_dense_kernels() -> None:
    spec = convolution(128, 128, 3, 28)
    assert not offered(spec, 8, 0.95)
    assert not offered(spec, 1, 0.5)  # no block of four is all zeros
    assert not offered(replace(spec, groups=2, ci=64, co=64), 8, 0.1)
    assert not offered(convolution(32, 32, 7, 28), 8, 0.1)  # 49 taps: a work item knows 31


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6))
def test_rows_are_filled_up_to_fours_with_their_last_block(counts: list[int]) -> None:
    rows, order = in_fours(np.concatenate([[0], np.cumsum(counts)]))
    assert sorted(rows[:, 0].tolist()) == list(range(len(counts)))
    lengths = rows[:, 2] - rows[:, 1]
    assert np.all(np.diff(lengths) <= 0)
    begins = np.concatenate([[0], np.cumsum(counts)])
    for row, first, last in rows.tolist():
        here, count = order[first:last].tolist(), counts[row]
        assert len(here) == -(-count // 4) * 4
        assert here[:count] == list(range(begins[row], begins[row] + count))
        assert set(here[count:]) <= {begins[row] + count - 1}


@pytest.mark.parametrize("name", [n for n, case in {**GPU_CASES, **TINY}.items() if "block_sparse" in case.families])
def test_cases_that_are_there_for_these_kernels_have_them(name: str) -> None:
    """Or what runs them would check dense ones."""
    case = GPU_CASES.get(name) or TINY[name]
    graph = trace(case.module(), case.inputs(), name=name)
    assert re.search(r"^ *\d+ +block_sparse\{", codegen.show_plan(graph, "opencl"), re.MULTILINE)
