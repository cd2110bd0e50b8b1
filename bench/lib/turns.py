"""Takes turns between processes, one runtime each, so that they are compared on the same machine at the same moment.

Why processes: thread pools that spin while they wait steal a core from whoever runs next in the same process, and two
runtimes in one process share an allocator, OpenMP and the caches of the instruction side. Why they are stopped: a pool
spins for some milliseconds after its own turn too, on the core that the next runtime needs. So every worker is stopped
(SIGSTOP) from the moment it is ready until its turn, and from the end of its turn on.

A worker that wakes finds caches full of others' data and its pool asleep. Two calls that are not timed put that right
for everyone alike: the first brings weights and code back as far as the caches hold them, the second runs as a loop
over pictures would. Then calls are timed by the worker's own clock until 20 ms are over; their median is the sample.
The order is drawn anew each round, so that nobody always follows the one that leaves the caches worst.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import Pipe
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.lib import common, engines

WARM, LEAST = 2, 0.02  # calls before timing, seconds of timing
SLOW, SELDOM = 10.0, 5  # who takes that many times as long as the first has a turn every so many rounds, after one call
PATIENCE = 1800.0  # seconds: torch.compile may compile for many minutes


class WorkerError(Exception):
    """A runtime failed: why."""


class Sample(NamedTuple):
    """Milliseconds of a run: by the wall's clock, and of the processor in all threads."""

    wall: float
    processor: float


class Worker:
    """A runtime in a process of its own, stopped unless it has its turn. Raises WorkerError if it is not installed."""

    def __init__(self, runtime: str, folder: Path, threads: int) -> None:
        self.runtime = runtime
        self.channel, theirs = Pipe()
        interpreter, module, extra = environment(runtime)
        command = [interpreter, "-m", module, runtime, str(folder), str(threads)]
        env = common.environment(threads) | extra | {
            "TVM_NUM_THREADS": str(threads), "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        }  # fmt: skip
        with (folder / f"{runtime}-{threads}.log").open("w") as log:
            self.process = subprocess.Popen(
                [*command, str(theirs.fileno())], pass_fds=[theirs.fileno()], env=env, stdout=log, stderr=log
            )
        theirs.close()
        self.load_seconds = 0.0
        self.outputs: list[NDArray[Any]] = []

    def ready(self, patience: float = PATIENCE) -> None:
        """Wait until the network is loaded and has run once; then the process is stopped. Raises WorkerError."""
        kind, *rest = self._receive(patience)
        if kind == "failed":
            raise WorkerError(rest[0])
        self.load_seconds, self.outputs = rest
        self.pause()

    def pause(self) -> None:
        """Stop the process, all its threads, and wait until it has stopped."""
        self.process.send_signal(signal.SIGSTOP)
        _, status = os.waitpid(self.process.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            self.process.returncode = os.waitstatus_to_exitcode(status)
            raise WorkerError(f"the process ended with {self.process.returncode}")

    def turn(self, warm: int = WARM, least: float = LEAST) -> Sample:
        """One sample. Raises WorkerError."""
        self.process.send_signal(signal.SIGCONT)
        try:
            self.channel.send((warm, least))
        except OSError as error:
            raise self._died() from error
        sample = Sample(*self._receive())
        self.pause()
        return sample

    def stop(self) -> None:
        """End the process."""
        self.channel.close()
        self.process.kill()
        self.process.wait()

    def _receive(self, patience: float = PATIENCE) -> Any:
        try:
            if not self.channel.poll(patience):
                raise WorkerError(f"no answer in {patience:.0f} s")
            return self.channel.recv()
        except (EOFError, OSError) as error:
            raise self._died() from error

    def _died(self) -> WorkerError:
        code = self.process.wait()
        how = f"of signal {-code}" if code < 0 else f"with exit code {code}"
        return WorkerError(f"the process died {how}; its log is next to the network")


def environment(runtime: str) -> tuple[str, str, dict[str, str]]:
    """The interpreter, the module to run, and what its environment has besides. Raises WorkerError."""
    engine = engines.serving(runtime)
    if engine is None:
        return sys.executable, "bench.lib.runtimes", {}
    if not engines.ready(engine, engines.FOLDER):
        raise WorkerError(f"not installed; run python -m bench.lib.engines {engine.name}")
    return str(engine.interpreter(engines.FOLDER)), "bench.lib.engine_runtimes", engines.ENVIRONMENT


class Taker(Protocol):
    """Who can take turns: a worker, or whatever runs on a device of its own."""

    def turn(self, warm: int = WARM, least: float = LEAST) -> Sample:
        """One sample."""
        ...


def take_turns(workers: Mapping[str, Taker], rounds: int, seed: int) -> dict[str, list[Sample | None]]:
    """What each worker took in each round; None where it had no turn. The first worker is the measure of slow.

    Two rounds come before: their samples show who is slow, and are not kept. Raises WorkerError.
    """
    rng, names = random.Random(seed), list(workers)
    for worker in workers.values():
        worker.turn(WARM, 0.0)
    first = {name: worker.turn(0, 0.0) for name, worker in workers.items()}
    slow = {name for name in names if first[name].wall > SLOW * first[names[0]].wall}
    samples: dict[str, list[Sample | None]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in rng.sample(names, len(names)):
            seldom = name in slow
            due = not seldom or turn % SELDOM == 0
            samples[name].append(workers[name].turn(1 if seldom else WARM) if due else None)
    return samples


def kept(samples: Sequence[Sample | None]) -> list[Sample]:
    """The samples of the rounds in which there was a turn."""
    return [s for s in samples if s is not None]


def summary(samples: Mapping[str, Sequence[Sample | None]], first: str) -> dict[str, dict[str, Any]]:
    """``ms`` and ``cpu_ms`` of each, and as ``ratio`` and ``cpu_ratio`` its median over the first one's in a round."""
    found: dict[str, dict[str, Any]] = {"ms": {}, "cpu_ms": {}, "ratio": {}, "cpu_ratio": {}}
    for name, of in samples.items():
        found["ms"][name], found["cpu_ms"][name] = (spread(column) for column in zip(*kept(of), strict=True))
        if name != first:
            over = ratios(of, samples[first])
            found["ratio"][name], found["cpu_ratio"][name] = map(statistics.median, zip(*over, strict=True))
    return found


def ratios(others: Sequence[Sample | None], mine: Sequence[Sample | None]) -> list[Sample]:
    """Theirs over mine, round by round, where both had a turn."""
    both = [(b, a) for a, b in zip(mine, others, strict=True) if a is not None and b is not None]
    return [Sample(b.wall / a.wall, b.processor / a.processor) for b, a in both]


def spread(samples: Sequence[float]) -> dict[str, float]:
    """Tenth percentile, median, ninetieth percentile and minimum."""
    p10, median, p90 = (float(v) for v in np.percentile(samples, [10, 50, 90]))
    return {"p10": p10, "median": median, "p90": p90, "min": min(samples)}
