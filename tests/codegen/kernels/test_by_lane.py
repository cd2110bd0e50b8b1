"""What four lanes of ARM change: channels are read a vector at a time, and multiplied from any lane of it."""

from __future__ import annotations

import re
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from secateur.codegen import build
from secateur.codegen.cpu_backend import CPU
from secateur.codegen.kernels.conv.plan import _blocks_first
from secateur.codegen.kernels.conv.spec import ConvSpec
from secateur.codegen.kernels.grouped.spec import GroupedConvSpec
from secateur.codegen.kernels.window.spec import WindowChoice, WindowSpec, copies_of_bias
from secateur.codegen.plan.lower import lower
from secateur.codegen.plan.program import Program
from secateur.codegen.records import Records, workload_of
from secateur.codegen.targets import TARGETS
from secateur.codegen.tune.portable import for_here
from secateur.codegen.tune.tuner import Tuner, candidates
from secateur.ir import Graph
from secateur.ir.exporters.torch.module import evaluate
from secateur.ir.numeric import relative_error
from support.kernels import conv, outputs
from support.network import Net

pytest.importorskip("tvm", reason="code generation needs apache-tvm")

ARM = TARGETS["aarch64:cortex-a76"]


def plan(graph: Graph) -> Program:
    return lower(graph, ARM, 1, Tuner(ARM, 1, Records()).choose, CPU)


def split() -> Graph:
    """The second half of 36 channels begins in the middle of a vector of four: lanes 18 to 35."""
    net = Net(1, 5, 6, 6)
    _, right = net.node("split", conv(net, "x", 36, (1, 1)), axis=1, sizes=(18, 18), outs=2)
    return outputs(net, conv(net, right, 8, (1, 1)))


@given(st.lists(st.integers(0, 39), min_size=1, max_size=40, unique=True))
def test_whole_blocks_come_first(lanes: list[int]) -> None:
    reads = np.array(lanes)
    order, runs = _blocks_first(reads, 4)
    assert sorted(order) == list(range(len(reads)))
    first, rest = reads[order][: 4 * runs], reads[order][4 * runs :]
    assert all(np.array_equal(run, run[0] // 4 * 4 + np.arange(4)) for run in first.reshape(-1, 4))
    assert all((rest // 4 == block).sum() < 4 for block in rest // 4)


def test_channels_are_looked_up_a_vector_at_a_time() -> None:
    specs = [call.spec for call in plan(split()).calls if isinstance(call.spec, ConvSpec)]
    assert [(s.ci, s.table, s.runs) for s in specs[-1:]] == [(18, True, 4)]


def test_records_of_before_still_stand_for_what_they_measured() -> None:
    spec = [call.spec for call in plan(split()).calls if isinstance(call.spec, ConvSpec)][-1]
    assert workload_of(spec)["runs"] == 4
    assert "runs" not in workload_of(replace(spec, runs=0))


@pytest.mark.parametrize(("groups", "size"), [(8, 8), (4, 6)], ids=["narrow", "in a small image"])
def test_groups_are_one_call(groups: int, size: int) -> None:
    net = Net(1, 32, size, size)
    calls = plan(outputs(net, conv(net, "x", 32, (3, 3), groups, pad=(1, 1, 1, 1)))).calls
    assert sum(isinstance(call.spec, GroupedConvSpec) for call in calls) == 1
    assert not any(isinstance(call.spec, ConvSpec) for call in calls)


def test_multiplications_take_a_lane() -> None:
    """No number is loaded and broadcast, and nothing is spilled: each product is one instruction."""
    net = Net(1, 64, 7, 7)
    graph = outputs(net, conv(net, "x", 32, (3, 3), stride=(2, 2), pad=(1, 1, 1, 1)))
    text = CPU.assemble(plan(graph), graph, ARM).module.inspect_source("asm")
    assert len(re.findall(r"\bfmla\tv\d+\.4s, v\d+\.4s, v\d+\.s\[[0-3]\]", text)) >= 64
    assert "ld1r" not in text
    assert not re.search(r"\b(?:ldr|ldp)\tq\d+,.*\[sp", text)


def test_a_depthwise_bias_lies_there_for_each_output_of_a_tile() -> None:
    assert copies_of_bias(TARGETS["x86-avx512"]) == 1
    assert copies_of_bias(ARM) == 21


def test_a_depthwise_tile_of_three_rows_at_stride_two() -> None:
    """Computed by this machine's instructions: the last tile has fewer rows."""
    net = Net(1, 8, 31, 28)
    graph = outputs(net, conv(net, "x", 8, (3, 3), 8, stride=(2, 2), pad=(1, 1, 1, 1)))
    spec = next(call.spec for call in plan(graph).calls if isinstance(call.spec, WindowSpec))
    assert candidates(spec, ARM)[0] == WindowChoice(3, 7)
    x = np.random.default_rng(0).standard_normal((1, 8, 31, 28)).astype(np.float32)
    (want,) = evaluate(graph, {"x": x})
    assert relative_error(want, build(graph, for_here(ARM))(x)) < 1e-6
