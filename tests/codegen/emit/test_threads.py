"""Threads: who computes what, where they fork and where they wait."""

from __future__ import annotations

import re
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from secateur import codegen
from secateur.codegen.backends import backend_for
from secateur.codegen.emit.builder import KernelBuilder, const
from secateur.codegen.emit.machine_code import compile_module
from secateur.codegen.emit.threads import Step, together
from secateur.codegen.kernels.families import FAMILIES
from secateur.codegen.kernels.partition import assign
from secateur.codegen.kernels.strassen.spec import StrassenSpec
from secateur.codegen.kernels.templates import templates
from secateur.codegen.kernels.winograd.spec import WinogradSpec
from secateur.codegen.plan.lower import lower
from secateur.codegen.plan.program import Call
from secateur.codegen.plan.tensors import Address, Buffer
from secateur.codegen.records import Records
from secateur.codegen.runtime import use_threads
from secateur.codegen.targets import native
from secateur.codegen.tune.tuner import Tuner
from secateur.ir import Graph
from support.alternatives import always
from support.kernels import DRAWN, check, conv, outputs
from support.network import Net

SHARING = 16 << 10


def unit(groups: int = 8, width: int = 16, size: int = 7) -> Graph:
    """Two grouped layers around a depthwise one, and a shortcut, as in ShuffleNet."""
    net = Net(1, 3, size, size)
    x = net.node("relu", conv(net, "x", groups * width, (1, 1)))
    y = net.node("relu", conv(net, x, groups * width, (1, 1), groups))
    y = conv(net, y, groups * width, (3, 3), groups * width, pad=(1, 1, 1, 1))
    y = net.node("add", conv(net, y, groups * width, (1, 1), groups), x)
    return outputs(net, net.node("relu", y))


def planned(graph: Graph, threads: int) -> list[Call]:
    target = native()
    return lower(graph, target, threads, Tuner(target, threads, Records()).choose, backend_for(target)).calls


def written(calls: list[Call], stamped: bool = False) -> str:
    """What ``main`` does, as TVM shows it."""
    import tvm
    from tvm import tirx

    steps: dict[int, Step] = {}
    for i, call in enumerate(calls):
        function = templates(FAMILIES)[type(call.spec)].build(call.spec, call.choice, native())
        steps.setdefault(call.step, Step()).add(function, tvm.ir.GlobalVar(f"k{i}"), [], call.worker)
    stamps = tirx.decl_buffer((const(len(steps) + 1),), "int64", "stamps") if stamped else None
    return str(together(list(steps.values()), stamps))


# --- who computes what ------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(1, 1e8), min_size=1, max_size=40), st.integers(1, 9))
def test_whole_kernels_go_to_neighbours_and_cost_no_more_than_sharing(estimates: list[float], threads: int) -> None:
    owners = assign(estimates, threads, SHARING)
    if owners is None:
        return
    assert len(owners) == len(estimates)
    assert owners == sorted(owners)
    assert set(owners) <= set(range(threads))
    loads = [sum(e for e, o in zip(estimates, owners, strict=True) if o == t) for t in range(threads)]
    assert max(loads) <= sum(estimates) / threads + SHARING * len(estimates)


@given(st.integers(1, 6), st.integers(2, 6), st.floats(1, 1e8))
def test_equal_kernels_that_threads_divide_are_never_shared(each: int, threads: int, estimate: float) -> None:
    owners = assign([estimate] * (each * threads), threads, SHARING)
    assert owners == [t for t in range(threads) for _ in range(each)]


def test_kernels_of_which_one_outweighs_all_others_are_shared() -> None:
    assert assign([1e8, 1e4, 1e4], 2, SHARING) is None
    assert assign([1e8], 2, SHARING) is None
    assert assign([1e8, 1e8], 1, SHARING) is None


def test_groups_are_whole_and_their_margin_is_of_their_step() -> None:
    calls = planned(unit(), 2)
    runs = [[c for c in calls if c.step == step] for step in range(calls[-1].step + 1)]
    grouped = [run for run in runs if sum(c.worker is not None for c in run) > 1]
    assert len(grouped) == 2
    for run in grouped:
        assert [c.worker for c in run if c.worker is not None] == [0] * 4 + [1] * 4
    assert "halo" in [c.label for c in grouped[0]]


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_calls_of_one_step_never_share_memory(threads: int) -> None:
    target = native()
    program = lower(unit(), target, threads, Tuner(target, threads, Records()).choose, backend_for(target))
    program.arena.place()
    buffers: list[Buffer] = program.arena.buffers
    for a in buffers:
        for b in buffers:
            together_ = a is not b and a.first <= b.last and b.first <= a.last
            assert not together_ or a.offset + a.words <= b.offset or b.offset + b.words <= a.offset
    for call in program.calls:
        for place in (p for p in call.arguments if isinstance(p, Address) and p.buffer.words):
            assert place.buffer.first <= call.step <= place.buffer.last


# --- where threads wait -----------------------------------------------------------------------------------------------


def test_one_thread_neither_parts_nor_meets() -> None:
    assert not re.findall("parallel", written(planned(unit(), 1)))


def test_threads_are_forked_once_and_wait_after_every_step_but_the_last() -> None:
    calls = planned(unit(), 2)
    text = written(calls)
    assert text.count("pragma_parallel_launch_point") == 1
    assert text.count("pragma_parallel_barrier_when_finish") == calls[-1].step  # the last one ends with the join


def test_where_steps_are_timed_threads_wait_after_the_last_one_too() -> None:
    calls = planned(unit(), 2)
    text = written(calls, stamped=True)
    assert text.count("pragma_parallel_launch_point") == 1
    assert text.count("pragma_parallel_barrier_when_finish") == calls[-1].step + 1
    assert text.count("readcyclecounter") == calls[-1].step + 2  # before the first, and after each


@pytest.mark.parametrize("kind", [WinogradSpec, StrassenSpec])
def test_threads_do_not_part_again_for_fast_algorithms(kind: type) -> None:
    """Where they share blocks of outputs, each transforms a strip of inputs for itself."""
    net = Net(1, 32, 20, 20)
    x = net.node("relu", conv(net, "x", 128, (1, 1)))
    x = net.node("relu", conv(net, x, 128, (3, 3) if kind is WinogradSpec else (1, 1), pad=(1, 1, 1, 1)))
    graph = outputs(net, net.node("relu", conv(net, x, 128, (1, 1))))
    target = native()
    for which in range(200):
        with always(kind, which):
            calls = lower(graph, target, 2, Tuner(target, 2, Records()).choose, backend_for(target)).calls
            if any(getattr(c.choice, "outer", "") == "blocks" and type(c.spec) is kind for c in calls):
                text = written(calls)
                assert text.count("pragma_parallel_launch_point") == 1
                assert text.count("pragma_parallel_barrier_when_finish") == calls[-1].step
                for threads in (2, 3):
                    check(graph, threads=threads)
                return
    pytest.fail("no choice by which threads share blocks")


def test_each_thread_does_its_own_and_no_other() -> None:
    """Kernels that count their calls, next to each other and alone: TVM must not take the loop over threads away."""
    import tvm
    from tvm import tirx

    cells = 16  # floats from one counter to the next, so that no two share a cache line
    names, functions = {}, {}
    for threads in (1, 2):
        k = KernelBuilder(1, threads)
        memory = k.pointer("memory")
        k.loop(threads, lambda i: k.store_scalar(memory, i * cells, k.scalar(memory, i * cells) + 1), threads > 1)  # noqa: B023
        names[threads] = tvm.ir.GlobalVar(f"k{threads}")
        functions[names[threads]] = k.finish()
    counters = tirx.decl_buffer((const(8 * cells),), "float32", "counters", data_alignment=64)
    steps = []
    for at, threads, worker in ((0, 1, None), (1, 2, None), (3, 1, 0), (4, 1, 1), (5, 1, 2)):
        step = Step()
        address = tirx.address_of(tirx.BufferLoad(counters, [const(at * cells)]))
        step.add(functions[names[threads]], names[threads], [address], worker)
        steps.append(step)
    main = tirx.PrimFunc([counters], together(steps)).with_attr("global_symbol", "main")
    functions[tvm.ir.GlobalVar("main")] = main
    target = native()
    module = compile_module(functions, target)
    use_threads(2)
    counted = tvm.runtime.tensor(np.zeros(8 * cells, np.float32))
    for _ in range(200):
        module["main"](counted)
    found = counted.numpy()
    assert found[::cells].tolist() == [200] * 6 + [0] * 2


def test_a_kernel_that_all_threads_would_write_is_refused() -> None:
    k = KernelBuilder(1, 2)
    memory = k.pointer("memory")
    k.store_scalar(memory, 0, k.splat(0.0))
    k.loop(2, lambda i: k.store_scalar(memory, i, k.splat(1.0)), True)
    with pytest.raises(AssertionError, match="all workers"):
        k.finish()


def test_what_threads_compute_is_the_same_every_time() -> None:
    lib = codegen.build(unit(), threads=2)
    rng = np.random.default_rng(0)
    x: Any = rng.standard_normal((1, 3, 7, 7)).astype(np.float32)
    first = lib(x)
    for _ in range(300):
        np.testing.assert_array_equal(lib(x), first)


@DRAWN
@given(st.integers(2, 5), st.sampled_from([1, 2, 3, 5, 8]), st.sampled_from([4, 12, 16, 20]), st.integers(1, 9))
def test_any_number_of_threads_and_groups(threads: int, groups: int, width: int, size: int) -> None:
    check(unit(groups, width, size), threads=threads)
