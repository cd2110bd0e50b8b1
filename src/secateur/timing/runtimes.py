"""How fast models run, side by side: interleaved repeats, medians, one run.

Every model runs in every runtime in turn, round after round in an order drawn anew, so that a machine that
slows down slows them all. A model that has its turn runs twice, and the second run counts: the first brings back to
the caches what the others have put out. Ratios of medians from one run are what to quote; milliseconds of two runs are
not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from secateur.ir import Array, Graph, InputError, Unsupported, Value
from secateur.ir.near import did_you_mean
from secateur.ir.numeric import random_inputs
from secateur.ir.progress import Progress, quiet

if TYPE_CHECKING:
    from secateur.codegen.library import Library

BUILT = "library"  # the runtime of a library that was built before
PACKAGES = {"secateur": "tvm"}  # what a runtime needs, where its name does not say so

Run = Callable[[], object]
K = TypeVar("K")


@dataclass(frozen=True)
class Timing:
    """One model in one runtime. Milliseconds; ``ratio`` is the first model's median in this runtime over this one's.

    ``slower`` is the share of the rounds in which it took longer than the first model.
    """

    model: str
    runtime: str
    threads: int
    median: float
    p10: float
    p90: float
    ratio: float
    slower: float = 0.0


def measure(
    models: Mapping[str, Graph | Library],
    runtimes: Sequence[str] = ("onnxruntime",),
    *,
    threads: int = 1,
    repeats: int = 20,
    warmups: int = 3,
    seed: int = 0,
    progress: Progress = quiet,
) -> list[Timing]:
    """Time each model in each runtime, and each library as it is, on one random input of the captured size.

    ``progress`` is told of each round. Raises InputError for an unknown runtime or one that is not installed, or counts
    below 1.
    """
    if min(threads, repeats) < 1:
        raise InputError(f"threads={threads}, repeats={repeats}: both must be 1 or more")
    for runtime in runtimes:
        check_runtime(runtime)
    runs: dict[tuple[str, str], Run] = {}
    used: dict[tuple[str, str], int] = {}
    graphs = [model for model in models.values() if isinstance(model, Graph)]
    for name, model in models.items():
        if not isinstance(model, Graph):
            feed = random_inputs(graphs[0] if graphs else _ends(model), seed)
            runs[name, BUILT], used[name, BUILT] = _library(model, feed), model.metadata.threads
            continue
        feed = random_inputs(model, seed)
        for runtime in runtimes:
            runs[name, runtime], used[name, runtime] = RUNTIMES[runtime](model, feed, threads), threads
    times = race(runs, repeats, warmups, seed, progress)
    first = next(iter(models))
    whole = next(found for (name, _), found in times.items() if name == first)
    return [
        _timing(name, runtime, used[name, runtime], found, times.get((first, runtime), whole))
        for (name, runtime), found in times.items()
    ]


def _ends(library: Library) -> Graph:
    """A graph with the library's inputs and nothing else."""
    inputs = tuple(Value(port.name, port.shape, port.dtype) for port in library.metadata.inputs)
    return Graph(library.metadata.name, inputs, (), (), {})


def _library(library: Library, feed: Mapping[str, Array]) -> Run:
    arrays = list(feed.values())
    return lambda: library(*arrays)


def race(
    runs: Mapping[K, Run], repeats: int, warmups: int, seed: int, progress: Progress = quiet, counted: int = 1
) -> dict[K, list[float]]:
    """Milliseconds of each run in every round; of ``counted`` runs in a turn, one after the other."""
    for run in runs.values():
        for _ in range(warmups):
            run()
    times: dict[K, list[float]] = {key: [] for key in runs}
    rng, keys = np.random.default_rng(seed), list(runs)
    for done in range(repeats):
        for k in rng.permutation(len(keys)):
            runs[keys[k]]()
            for _ in range(counted):
                start = time.perf_counter()
                runs[keys[k]]()
                times[keys[k]].append((time.perf_counter() - start) * 1e3)
        progress(done + 1, repeats, "time")
    return times


def _timing(name: str, runtime: str, threads: int, mine: list[float], first: list[float]) -> Timing:
    p10, median, p90 = (float(v) for v in np.percentile(mine, [10, 50, 90]))
    slower = float(np.mean(np.array(mine) > np.array(first)))
    return Timing(name, runtime, threads, median, p10, p90, float(np.median(first)) / median, slower)


def installed(runtime: str) -> bool:
    """Is what this runtime needs importable here?"""
    return find_spec(PACKAGES.get(runtime, runtime)) is not None


def check_runtime(runtime: str) -> None:
    """Raises InputError for an unknown runtime, or one that is not installed."""
    if runtime not in RUNTIMES:
        near = did_you_mean(runtime, RUNTIMES)
        raise InputError(f"there is no runtime '{runtime}'{near}; known are {', '.join(RUNTIMES)}")
    if not installed(runtime):
        wanted = "'secateur[tvm]'" if runtime == "secateur" else runtime
        raise InputError(f"runtime '{runtime}' is not installed here; pip install {wanted}, or leave it out")


def _onnxruntime(graph: Graph, feed: Mapping[str, Array], threads: int) -> Run:
    import onnxruntime

    from secateur.ir.exporters.onnx.write import to_onnx

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    model = to_onnx(graph)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    named = dict(zip((i.name for i in session.get_inputs()), feed.values(), strict=True))
    return lambda: session.run(None, named)


def _openvino(graph: Graph, feed: Mapping[str, Array], threads: int) -> Run:
    import openvino

    from secateur.ir.exporters.onnx.write import to_onnx

    core = openvino.Core()
    model = core.read_model(to_onnx(graph).SerializeToString())
    model.reshape({i.get_any_name(): list(x.shape) for i, x in zip(model.inputs, feed.values(), strict=True)})
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    arrays = list(feed.values())
    return lambda: request.infer(arrays)


def _torch(graph: Graph, feed: Mapping[str, Array], threads: int) -> Run:
    import torch

    from secateur.ir.exporters.torch.module import to_module

    module: Any = to_module(graph, copy=False)
    arrays = [torch.from_numpy(np.ascontiguousarray(x)) for x in feed.values()]

    def run() -> object:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            return module(*arrays)

    return run


def _secateur(graph: Graph, feed: Mapping[str, Array], threads: int) -> Run:
    from secateur.deploy import build

    library = build(graph, threads=threads)
    arrays = list(feed.values())
    return lambda: library(*arrays)


RUNTIMES: dict[str, Callable[[Graph, Mapping[str, Array], int], Run]] = {
    "secateur": _secateur,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "torch": _torch,
}


def named(paths: Sequence[Path], read: Callable[[Path], Graph | Library]) -> dict[str, Graph | Library]:
    """Models by file name, or by path where two files share a name. Raises InputError for a file given twice."""
    names = [p.name if sum(q.name == p.name for q in paths) == 1 else str(p) for p in paths]
    if len(set(names)) != len(names):
        raise InputError(f"a model is named twice: {', '.join(names)}")
    models = {name: read(path) for name, path in zip(names, paths, strict=True)}
    shapes = {name: [tuple(map(int, v.shape)) for v in _inputs(model)] for name, model in models.items()}
    first = next(iter(shapes.values()))
    for name, mine in shapes.items():
        if mine != first:
            raise Unsupported(
                f"'{name}' takes {mine}, the first model {first}; models are compared on inputs of one shape"
            )
    return models


def _inputs(model: Graph | Library) -> Sequence[Any]:
    return model.inputs if isinstance(model, Graph) else model.metadata.inputs
