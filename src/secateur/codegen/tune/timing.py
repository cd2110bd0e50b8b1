"""Timing single kernels: interleaved repeats, medians, weights from memory as when a network runs."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from secateur.codegen.backends import backend_for
from secateur.codegen.library import aligned
from secateur.codegen.plan.family import Workload
from secateur.codegen.plan.program import Choice
from secateur.codegen.plan.tensors import AnyArray
from secateur.codegen.runtime import ffi
from secateur.codegen.targets import Target

LEAST = 2e-4  # seconds a sample takes at least: shorter kernels run several times
FEWEST = 3  # rounds that all choices are in
DROP = 1.25  # after these, choices this much slower than the best are not measured on
LONGEST = 3.0  # seconds after which no other round begins
MEMORY = 64 << 20  # bytes of weights that are gone through in turn: what a network has, and more than caches hold
COPIES = 4096
Timed = Callable[[int], float]  # runs so many times, and returns the seconds of all
Compiled = Callable[..., object]  # machine code of a kernel, on the arguments that its template asks for


def compiled(spec: Workload, choice: Choice | None, target: Target) -> Compiled:
    """The function of a kernel; it takes what ``arguments`` makes."""
    import tvm
    from tvm import tirx

    from secateur.codegen.emit.builder import const
    from secateur.codegen.emit.machine_code import compile_module
    from secateur.codegen.emit.threads import Step, together

    template = backend_for(target).templates[type(spec)]
    assert template.arrays is not None
    arrays, first = template.arrays(spec, target)
    name = tvm.ir.GlobalVar("kernel")
    buffers = [
        tirx.decl_buffer((const(a.size),), a.dtype.name, f"a{i}", data_alignment=64) for i, a in enumerate(arrays)
    ]
    pointers = [tirx.address_of(tirx.BufferLoad(b, [const(first if i == 0 else 0)])) for i, b in enumerate(buffers)]
    function, step = template.build(spec, choice, target), Step()
    step.add(function, name, pointers, None)
    main = tirx.PrimFunc(buffers, together([step])).with_attr("global_symbol", "main")
    functions = {name: function, tvm.ir.GlobalVar("main"): main}
    main_function: Compiled = compile_module(functions, target)["main"]
    return main_function


def arguments(spec: Workload, target: Target, memory: int = MEMORY) -> list[list[object]]:
    """Arguments to run a kernel on, again and again: the same activations, weights that lie elsewhere each time.

    A network reads its weights once a run, so each layer finds them in memory, while its input was just written and is
    in the cache. Timed on weights that stay in the cache, choices win that cost ResNet-50 6 % (bench/cold_weights.py).
    ``memory``: bytes that all copies take together; 0 makes one copy.
    """
    template = backend_for(target).templates[type(spec)]
    assert template.arrays is not None
    arrays, _ = template.arrays(spec, target)
    view = ffi().from_dlpack
    moving = [i for i in range(1, len(arrays) - 1) if i <= template.constants and arrays[i].dtype == np.float32]
    sizes = [-(-arrays[i].size // 16) * 16 for i in moving]  # each begins at a cache line
    copies = min(max(1, memory // max(4 * sum(sizes), 1)), COPIES) if moving else 1
    room, at = aligned(copies * sum(sizes), np.float32), 0
    turn = [None if i in moving else view(_placed(array)) for i, array in enumerate(arrays)]
    found = []
    for _ in range(copies):
        for i, size in zip(moving, sizes, strict=True):
            place = room[at : at + arrays[i].size]
            place[:] = arrays[i]
            turn[i] = view(place)
            at += size
        found.append(list(turn))
    return found


def _placed(array: AnyArray) -> AnyArray:
    place = aligned(array.size, array.dtype)
    place[:] = array
    return place


def in_turn(functions: Mapping[int, Compiled], turns: list[list[object]]) -> dict[int, Callable[[], None]]:
    """Calls of functions, all on one round of arguments: what one of them has read, the next does not read again."""
    following: Iterator[list[object]] = itertools.cycle(turns)
    return {i: lambda f=f: f(*next(following)) for i, f in functions.items()}  # type: ignore[misc]


def callable_of(spec: Workload, choice: Choice | None, target: Target, memory: int = 0) -> Callable[[], None]:
    """The compiled kernel on arrays of its own; their weights stay in the cache if ``memory`` is 0."""
    return in_turn({0: compiled(spec, choice, target)}, arguments(spec, target, memory))[0]


def peak(target: Target, rounds: int = 9) -> float:
    """Floating-point operations a second of a loop of fused multiply-adds on registers alone."""
    import tvm
    from tvm import tirx

    from secateur.codegen.emit.builder import KernelBuilder, const
    from secateur.codegen.emit.machine_code import compile_module

    k = KernelBuilder(target.lanes)
    x, y = k.pointer("x"), k.pointer("y")
    count, turns = (24 if target.registers > 16 else 12), 20000
    sums = k.accumulators(count, k.splat(0.0))
    a, b = k.vector(k.load(x, 0)), k.vector(k.load(x, target.lanes))

    def step(_: object) -> None:
        for s in sums:
            k.add(s, a * b)

    k.loop(turns, step)
    for i, s in enumerate(sums):
        k.store(y, i * target.lanes, k.get(s))
    name = tvm.ir.GlobalVar("kernel")
    buffers = [tirx.decl_buffer((const(n),), "float32", f"a{n}") for n in (2 * target.lanes, count * target.lanes)]
    call = tvm.ir.Call(name, [tirx.address_of(tirx.BufferLoad(b, [const(0)])) for b in buffers])
    main = tirx.PrimFunc(buffers, tirx.Evaluate(call)).with_attr("global_symbol", "main")
    functions = {name: k.finish(), tvm.ir.GlobalVar("main"): main}
    run = compile_module(functions, target)["main"]
    arrays = [tvm.runtime.tensor(np.zeros(int(n), np.float32)) for n in (2 * target.lanes, count * target.lanes)]
    seconds = interleaved({0: lambda: run(*arrays)}, rounds)[0]
    return 2 * count * turns * target.lanes / seconds


def interleaved(calls: Mapping[int, Callable[[], None]], rounds: int,
                begin: Callable[[], None] = lambda: None) -> dict[int, float]:  # fmt: skip
    """Seconds of each call, one sample of each a round; the clearly slower are dropped after three rounds.

    ``begin`` is called before each round; slow kernels get fewer rounds. ``steady`` makes seconds of the samples.
    """
    for call in calls.values():
        call()
    return steady(samples({i: _clocked(call) for i, call in calls.items()}, rounds, begin))


def _clocked(call: Callable[[], None]) -> Timed:
    def run(repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        return time.perf_counter() - start

    return run


def samples(
    timed: Mapping[int, Timed], rounds: int, begin: Callable[[], None] = lambda: None
) -> dict[int, list[float]]:
    """Seconds of one run, sampled by turns: each of ``timed`` runs so many times and returns the seconds of all."""
    repeats = {i: max(1, int(LEAST / max(run(1), 1e-7))) for i, run in timed.items()}
    found: dict[int, list[float]] = {i: [] for i in timed}
    alive = set(timed)
    end = time.perf_counter() + LONGEST
    for turn in range(rounds):
        if turn >= FEWEST and time.perf_counter() > end:
            break
        begin()
        for i in sorted(alive):
            found[i].append(timed[i](repeats[i]) / repeats[i])
        if turn == FEWEST - 1:
            best = min(min(found[i]) for i in alive)
            alive = {i for i in alive if min(found[i]) <= DROP * best}
    return found


def steady(samples: Mapping[int, Sequence[float]]) -> dict[int, float]:
    """Median seconds of each call from its samples by rounds, as if all rounds had been like the faster half.

    A machine may be half as fast for seconds, so a sample is taken in proportion to its round: to the geometric mean of
    the calls that are in all rounds. The slower half of the rounds does not count: where the cores of a virtual machine
    share one of their host for a while, another kernel may be the faster one. A call that was dropped before any of the
    faster rounds has its own rounds only.
    """
    most = max(map(len, samples.values()), default=0)
    whole = [np.log(s) for s in samples.values() if len(s) == most]
    rounds = np.exp(np.mean(whole, axis=0)) if whole else np.ones(0)
    fast = np.zeros(most, bool)
    fast[np.argsort(rounds, kind="stable")[: -(-most // 2)]] = True
    scale = float(np.median(rounds[fast])) if most else 0.0

    def median(of: Sequence[float]) -> float:
        parts, counted = np.asarray(of) / rounds[: len(of)], fast[: len(of)]
        return float(np.median(parts[counted] if counted.any() else parts))

    return {i: median(s) * scale for i, s in samples.items()}
