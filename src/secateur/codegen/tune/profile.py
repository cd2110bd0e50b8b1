"""Where a network's time goes: every step timed in its place, on the real arena."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from secateur.codegen.plan.program import Call, Choice, Spec
from secateur.codegen.targets import Target, get_target
from secateur.ir import Graph, InputError


@dataclass(frozen=True)
class Timed:
    """A step: median microseconds over all rounds, the processor's counter read before and after it.

    ``kernels``: the spec and the choice of each of its calls, one unless they run side by side.
    """

    label: str
    kernels: tuple[tuple[Spec, Choice | None], ...]
    microseconds: float


def profile(graph: Graph, target: str | Target = "native", threads: int = 1, records: str | Path | None = None,
            rounds: int = 50) -> list[Timed]:  # fmt: skip
    """The steps of a graph's library in order, timed while the whole network runs on random inputs."""
    steps, run = prepare(graph, target, threads, records)
    samples = np.array([run() for _ in range(rounds + 3)][3:])
    return [
        Timed(calls[-1].label, tuple((c.spec, c.choice) for c in calls), statistics.median(t))
        for calls, t in zip(steps, samples.T, strict=True)
    ]


def prepare(graph: Graph, target: str | Target, threads: int,
            records: str | Path | None) -> tuple[list[list[Call]], Callable[[], NDArray[np.float64]]]:  # fmt: skip
    """The calls of each step, and a function that runs the network once and returns the microseconds of each step."""
    import tvm_ffi

    from secateur.codegen.cpu_backend import CPU
    from secateur.codegen.emit.assemble import ports
    from secateur.codegen.library import aligned
    from secateur.codegen.plan.lower import lower
    from secateur.codegen.runtime import use_threads

    from .tuner import Tuner, open_records

    chosen = get_target(target)
    if chosen.gpu:
        raise InputError(f"the steps of a library for {chosen.name} are not timed; use the vendor's profiler")
    program = lower(graph, chosen, threads, Tuner(chosen, threads, open_records(chosen, records)).choose, CPU)
    compiled = CPU.assemble(program, graph, chosen, stamped=True)
    rng = np.random.default_rng(0)
    inputs, outputs = ports(graph)
    given = [rng.standard_normal(tuple(map(int, v.shape))).astype(np.float32) for v in inputs]
    results = [np.empty(tuple(map(int, v.shape)), np.float32) for v in outputs]
    steps = [list(calls) for _, calls in groupby(program.calls, key=lambda call: call.step)]
    stamps = np.zeros(len(steps) + 1, np.int64)
    fixed = [
        aligned(len(a), a.dtype)
        for a in (np.zeros(compiled.arena_words, np.float32), compiled.weights, compiled.tables)
    ]
    fixed[1][:], fixed[2][:] = compiled.weights, compiled.tables
    arrays = [*fixed, *given, *results, stamps]
    tensors, main = [tvm_ffi.from_dlpack(a) for a in arrays], compiled.module["main"]

    def run() -> NDArray[np.float64]:
        use_threads(threads)
        start = time.perf_counter()
        main(*tensors)
        seconds = time.perf_counter() - start
        microseconds: NDArray[np.float64] = np.diff(stamps) * (seconds * 1e6 / (stamps[-1] - stamps[0]))
        return microseconds

    return steps, run
