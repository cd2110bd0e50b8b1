"""Tunes networks with TVM's MetaSchedule, the strongest form of what TVM offers by itself; latency.py runs the result.

    python -m bench.speed.metaschedule ref/resnet50 tv/mobilenet_v2 ref/shufflenet_v1_g3 --seconds 1200
    nice -n 19 python -m bench.speed.metaschedule ...                                     in the background

Seconds are of processor time for each network, in all calls so far together: ten times the 60 s that secateur may take
on each of two cores. What has had its time is left alone, and a call that was stopped goes on from the database of the
last one. Kernels are timed on one thread by the time that this thread had a processor, so other work on the machine
makes a candidate look slower only through the caches, and of three repeats the best counts. Building and measuring
happen in this process: MetaSchedule's own builder starts new processes that each import for half a minute, and on a
small machine its time-out then ends every build without a word. A kernel that crashes therefore ends the script; start
it again. Search and batches are smaller than MetaSchedule's defaults (128 of a population, 16 trials), with which the
time would not reach every kernel of a network once; each call finishes a first pass over all kernels.

Needs `pip install -c constraints.txt 'secateur[tvm,bench]'`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.meta_schedule.builder import BuilderResult, PyBuilder
from tvm.s_tir.meta_schedule.measure_callback import AddToDatabase, PyMeasureCallback, UpdateCostModel
from tvm.s_tir.meta_schedule.runner import PyRunner, PyRunnerFuture, RunnerResult

from bench.lib import common, tvm_peers
from bench.speed import latency

POPULATION, TRIALS, REPEATS = 128, 16, 3
SEARCH_THREADS = 2
LEAST = 0.02  # seconds of a repeat


class Bench:
    """Modules that were built and not yet measured, by the name that stands for MetaSchedule's path."""

    def __init__(self) -> None:
        self.modules: dict[str, Any] = {}
        self.numbers = itertools.count()
        self.trials = self.failed = 0
        self.why = ""
        self.ended = False  # every kernel had its first trials, and the time is up

    def keep(self, module: Any) -> str:
        """A name for the module."""
        name = f"module{next(self.numbers)}"
        self.modules[name] = module
        return name

    def fail(self, error: Exception) -> str:
        """Count a candidate that TVM could not build or run; what to tell MetaSchedule."""
        self.failed += 1
        self.why = f"{type(error).__name__}: {error}"
        return self.why

    def time(self, name: str, arguments: Sequence[Any]) -> list[float]:
        """Seconds of one run: the best of the repeats."""
        module = self.modules.pop(name)
        draw = np.random.default_rng(0).random
        arrays = [tvm.runtime.tensor(np.asarray(draw(tuple(map(int, a.shape))), str(a.dtype))) for a in arguments]
        main = module["main"]
        count = max(1, int(LEAST / max(_seconds(main, arrays, 1), 1e-7)))
        best = min(_seconds(main, arrays, count) for _ in range(REPEATS))
        self.trials += 1
        return [best]


def _seconds(main: Any, arrays: Sequence[Any], count: int) -> float:
    """Processor seconds of this thread for one of ``count`` runs."""
    start = time.thread_time()
    for _ in range(count):
        main(*arrays)
    return (time.thread_time() - start) / count


def parts(bench: Bench, deadline: float) -> tuple[Any, Any, Any]:
    """MetaSchedule's builder and runner in this process, and the callback that ends it when the time is up."""

    @derived_object
    class Builder(PyBuilder):  # type: ignore[misc]
        def build(self, inputs: Sequence[Any]) -> list[Any]:
            return [self._one(one) for one in inputs]

        def _one(self, one: Any) -> Any:
            try:
                plain = tvm.s_tir.transform.RemoveWeightLayoutRewriteBlock(skip_tensor_rewrite=True)(one.mod)
                return BuilderResult(bench.keep(tvm.driver.build(plain, target=one.target)), None)
            except Exception as error:  # a candidate that TVM refuses costs itself alone
                return BuilderResult(None, bench.fail(error))

    @derived_object
    class Future(PyRunnerFuture):  # type: ignore[misc]
        def __init__(self, seconds: list[float] | None, error: str | None) -> None:
            super().__init__()
            self.seconds, self.error = seconds, error

        def done(self) -> bool:
            return True

        def result(self) -> Any:
            return RunnerResult(self.seconds, self.error)

    @derived_object
    class Runner(PyRunner):  # type: ignore[misc]
        def run(self, inputs: Sequence[Any]) -> list[Any]:
            return [self._one(one) for one in inputs]

        def _one(self, one: Any) -> Any:
            try:
                return Future(bench.time(one.artifact_path, one.args_info), None)
            except Exception as error:
                return Future(None, bench.fail(error))

    @derived_object
    class Deadline(PyMeasureCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.batches = 0

        def apply(self, scheduler: Any, *_: Any) -> None:
            # To end the tasks here would trip the scheduler, which may have chosen one of them to go on with.
            self.batches += 1
            if time.process_time() >= deadline and self.batches >= len(scheduler.tasks_):
                bench.ended = True
                raise TimeoutError

    return Builder(), Runner(), Deadline()


def tune(folder: Path, seconds: float) -> None:
    """Tune the network in a folder until that many seconds are spent on it in all; the database lies in the folder."""
    import tvm.s_tir.tensor_intrin  # half a minute that MetaSchedule would take from the tuning time

    start, spent, bench = time.process_time(), tvm_peers.spent(folder), Bench()
    if spent["seconds"] >= seconds:
        return
    tvm.get_global_func("runtime.config_threadpool")(1, 1)
    work = tvm_peers.work_folder(folder)
    work.mkdir(exist_ok=True)
    builder, runner, deadline = parts(bench, start + seconds - spent["seconds"])
    tasks = ms.relax_integration.extract_tasks(tvm_peers.fused(folder / "model.onnx"), tvm_peers.target())
    search = ms.search_strategy.EvolutionarySearch(population_size=POPULATION, init_min_unmeasured=TRIALS)
    contexts, weights = ms.relax_integration.extracted_tasks_to_tune_contexts(
        tasks, str(work), strategy=search, num_threads=SEARCH_THREADS, seed=0
    )
    try:
        ms.tune.tune_tasks(
            tasks=contexts, task_weights=weights, work_dir=str(work), max_trials_global=10**6,
            num_trials_per_iter=TRIALS, builder=builder, runner=runner,
            measure_callbacks=[AddToDatabase(), UpdateCostModel(), deadline],
            database=ms.database.JSONDatabase(work_dir=str(work)),
        )  # fmt: skip
    except RuntimeError:  # what TVM makes of the callback's exception
        if not bench.ended:
            raise
    finally:
        seconds = spent["seconds"] + time.process_time() - start
        used = {"seconds": seconds, "trials": spent["trials"] + bench.trials, "failed": bench.failed, "why": bench.why}
        (work / "spent.json").write_text(json.dumps(used))


def main() -> int:
    """Tune one network after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", help="as ref/resnet50")
    parser.add_argument("--seconds", type=float, default=1200, help="of processor time for each network, in all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.getLogger("tvm").setLevel(logging.WARNING)
    for name in options.networks:
        folder = latency.folder_of(name)
        if not (folder / "model.onnx").exists():
            common.run(latency.preparing(name, ["--seed", str(options.seed)]))
        tune(folder, options.seconds)
        print(f"{name}: {tvm_peers.spent(folder)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
