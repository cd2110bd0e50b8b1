"""Compiling and timing single kernels, in a worker process that imports TVM once.

``python -m secateur.codegen.measure FD`` serves one parent over a pipe. A request is (spec, choices, rounds, threads);
answers are ("built", i), ("failed", i, why) and at the end ("times", {i: seconds}).
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from .specs import Workload
from .targets import Target

LEAST = 2e-4  # seconds a sample takes at least: shorter kernels run several times
DROP = 1.25  # after the first rounds, choices this much slower than the best are not measured on


def callable_of(spec: Workload, choice: Any, target: Target) -> Callable[[], None]:
    """The compiled kernel on arrays of its own."""
    import tvm
    from tvm import tirx

    from .templates import TEMPLATES
    from .writer import compile_module, const, llvm_target

    template = TEMPLATES[type(spec)]
    assert template.arrays is not None
    arrays, first = template.arrays(spec)
    name = tvm.ir.GlobalVar("kernel")
    buffers = [
        tirx.decl_buffer((const(a.size),), a.dtype.name, f"a{i}", data_alignment=64) for i, a in enumerate(arrays)
    ]
    pointers = [tirx.address_of(tirx.BufferLoad(b, [const(first if i == 0 else 0)])) for i, b in enumerate(buffers)]
    main = tirx.PrimFunc(buffers, tirx.Evaluate(tvm.ir.Call(name, pointers)))
    main = main.with_attr("global_symbol", "main").with_attr("s_tir", True)
    functions = {name: template.build(spec, choice), tvm.ir.GlobalVar("main"): main}
    module = compile_module(functions, llvm_target(target.triple, target.mcpu, target.cores))
    tensors = [tvm.runtime.tensor(a) for a in arrays]
    run = module["main"]
    return lambda: run(*tensors)


def peak(target: Target, rounds: int = 9) -> float:
    """Floating-point operations a second of a loop of fused multiply-adds on registers alone."""
    import tvm
    from tvm import tirx

    from .writer import Kernel, compile_module, const, llvm_target

    k = Kernel(target.lanes)
    x, y = k.pointer("x"), k.pointer("y")
    count, turns = (24 if target.registers > 16 else 12), 20000
    sums = k.accumulators(count, k.splat(0.0))
    a, b = k.vector(k.load(x, 0)), k.vector(k.load(x, target.lanes))

    def step(_: Any) -> None:
        for s in sums:
            k.add(s, a * b)

    k.loop(turns, step)
    for i, s in enumerate(sums):
        k.store(y, i * target.lanes, k.get(s))
    name = tvm.ir.GlobalVar("kernel")
    buffers = [tirx.decl_buffer((const(n),), "float32", f"a{n}") for n in (2 * target.lanes, count * target.lanes)]
    call = tvm.ir.Call(name, [tirx.address_of(tirx.BufferLoad(b, [const(0)])) for b in buffers])
    main = tirx.PrimFunc(buffers, tirx.Evaluate(call)).with_attr("global_symbol", "main").with_attr("s_tir", True)
    functions = {name: k.finish(), tvm.ir.GlobalVar("main"): main}
    run = compile_module(functions, llvm_target(target.triple, target.mcpu, target.cores))["main"]
    arrays = [tvm.runtime.tensor(np.zeros(int(n), np.float32)) for n in (2 * target.lanes, count * target.lanes)]
    seconds = interleaved({0: lambda: run(*arrays)}, rounds)[0]
    return 2 * count * turns * target.lanes / seconds


def interleaved(calls: dict[int, Callable[[], None]], rounds: int) -> dict[int, float]:
    """Median seconds of each call, one sample of each a round; the clearly slower are dropped after three rounds."""
    repeats: dict[int, int] = {}
    for i, call in calls.items():
        call()
        start = time.perf_counter()
        call()
        repeats[i] = max(1, int(LEAST / max(time.perf_counter() - start, 1e-7)))
    samples: dict[int, list[float]] = {i: [] for i in calls}
    alive = set(calls)
    for turn in range(rounds):
        for i in sorted(alive):
            start = time.perf_counter()
            for _ in range(repeats[i]):
                calls[i]()
            samples[i].append((time.perf_counter() - start) / repeats[i])
        if turn == 2:
            best = min(min(samples[i]) for i in alive)
            alive = {i for i in alive if min(samples[i]) <= DROP * best}
    return {i: statistics.median(s) for i, s in samples.items()}


def serve(channel: Connection) -> None:
    """Answer requests until the parent closes the pipe."""
    target, threads = channel.recv()
    from .runtime import use_threads

    use_threads(threads)
    channel.send(("ready",))
    while True:
        try:
            spec, choices, rounds = channel.recv()
        except (EOFError, OSError):
            return
        calls: dict[int, Callable[[], None]] = {}
        for i, choice in choices.items():
            channel.send(("next", i))
            try:
                calls[i] = callable_of(spec, choice, target)
            except Exception as error:  # a candidate that TVM refuses costs itself alone
                channel.send(("failed", i, str(error)[-300:]))
        channel.send(("next", -1))
        channel.send(("times", interleaved(calls, rounds)))


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
