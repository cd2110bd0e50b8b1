"""Choosing how each kernel is tiled: from records, by measuring, or by default."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from .records import Record, Records, choice_of, stored, workload_key
from .specs import CHOICES, WindowSpec, Workload
from .targets import Target

ROUNDS = 9
PATIENCE = 30.0  # seconds a worker may take for one step before it counts as hung
Progress = Callable[[int, int, str], None]


def candidates(spec: Any, target: Target) -> list[Any]:
    """The whole space of a kernel, the default first; [None] where there is nothing to choose."""
    from .templates import TEMPLATES

    template = TEMPLATES.get(type(spec))
    return [None] if template is None or template.space is None else list(template.space(spec, target.registers))


def default_choice(spec: Any, target: Target) -> Any:
    """What is taken where nothing was measured; None for kernels without a choice."""
    return candidates(spec, target)[0]


class Tuner:
    """Choices for one target; ``notes`` tells which came from a near shape, and which record lines were unusable."""

    def __init__(self, target: Target, threads: int, records: str | Path | Records | None) -> None:
        self.target, self.threads = target, threads
        self.records = records if isinstance(records, Records) else Records(records)
        self.near: dict[str, str] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """For the library's metadata."""
        return (*self.records.problems, *self.near.values())

    def choose(self, spec: Any, *rivals: Any) -> Any:
        """The measured choice, else that of the nearest shape if it fits, else the default.

        ``rivals`` are other specs that compute the same: the choice is that of the fastest, as its type says.
        """
        if rivals:
            return self.choose(self._fastest((spec, *rivals)))
        if type(spec) not in CHOICES:
            return None
        work = spec.workload()
        space = candidates(work, self.target)
        record = self.records.find(self.target.name, work)
        if record is None:
            record = self.records.nearest(self.target.name, work)
            if record is not None:
                key = workload_key(work)
                self.near[key] = f"not measured, tiled like its nearest shape: {_short(work)}"
        if record is not None:
            choice = choice_of(work, record.choice)
            if choice in space:
                return choice
        return space[0]

    def _fastest(self, specs: Sequence[Any]) -> Any:
        """By measured seconds if there are such for all, else by their effort."""
        found = [self.records.find(self.target.name, s.workload()) for s in specs]
        seconds = [r.seconds for r in found if r is not None]
        costs = seconds if len(seconds) == len(specs) else [s.effort for s in specs]
        return specs[costs.index(min(costs))]

    def tune(self, specs: Sequence[Workload], seconds: float, progress: Progress | None = None) -> None:
        """Measure workloads without a record, most expensive first, until the time is up.

        Ctrl-C ends it early; what was measured is kept either way.
        """
        open_ = [s for s in specs if self.records.find(self.target.name, s) is None]
        open_ = [s for s in open_ if len(candidates(s, self.target)) > 1]
        deadline = time.monotonic() + seconds
        pool = Worker(self.target, self.threads)
        try:
            for done, spec in enumerate(open_):
                if time.monotonic() >= deadline:
                    break
                if progress is not None:
                    progress(done, len(open_), _short(spec))
                self._measure(pool, spec, deadline)
            else:
                if progress is not None:
                    progress(len(open_), len(open_), "")
        except KeyboardInterrupt:
            pass
        finally:
            pool.stop()

    def _measure(self, worker: Worker, spec: Workload, deadline: float) -> None:
        space = candidates(spec, self.target)
        times = worker.measure(spec, dict(enumerate(space)), deadline)
        if not times:
            return
        best = min(times, key=lambda i: times[i])
        from .build import versions

        timings = tuple((stored(space[i]), t) for i, t in sorted(times.items()))
        self.records.add(Record(
            self.target.name, workload_key(spec), stored(space[best]), times[best], timings, versions()))  # fmt: skip


def _short(spec: Workload) -> str:
    inputs = f"{spec.kind} " if isinstance(spec, WindowSpec) else f"{spec.ci}>"
    kernel = "x".join(map(str, spec.kernel))
    return f"{inputs}{spec.blocks * spec.lanes} {kernel} {spec.h}x{spec.w}"


class Worker:
    """A process that compiles and measures; started when needed, again after a crash or a hang."""

    def __init__(self, target: Target, threads: int) -> None:
        self.target, self.threads = target, threads
        self.process: subprocess.Popen[bytes] | None = None
        self.channel: Connection | None = None

    def _start(self) -> Connection:
        mine, theirs = Pipe()
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(p or "." for p in sys.path)}
        # A session of its own, so that Ctrl-C at the terminal reaches the parent alone.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "secateur.codegen.measure", str(theirs.fileno())], pass_fds=[theirs.fileno()],
            env=env, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        theirs.close()
        self.channel = mine
        mine.send((self.target, self.threads))
        self._answer(PATIENCE * 4)
        return mine

    def _answer(self, patience: float) -> Any:
        """The next message. Raises EOFError if the worker is gone, TimeoutError if it hangs."""
        assert self.channel is not None
        if not self.channel.poll(patience):
            raise TimeoutError
        return self.channel.recv()

    def measure(self, spec: Workload, choices: Mapping[int, Any], deadline: float) -> dict[int, float]:
        """Median seconds of each choice; those that crash or hang are missing. Empty if the time is up before."""
        left = dict(choices)
        while left:
            current = -1
            try:
                channel = self.channel or self._start()
                channel.send((spec, left, ROUNDS))
                while True:
                    # A hung worker costs its patience, and never much more time than there is.
                    patience = min(PATIENCE, max(1.0, deadline + 2 - time.monotonic()))
                    message = self._answer(patience)
                    if message[0] == "times":
                        return dict(message[1])
                    if message[0] == "next":
                        current = message[1]
                    if time.monotonic() > deadline + 2:
                        raise TimeoutError
            except (EOFError, OSError, TimeoutError):
                self.stop()
                if time.monotonic() > deadline:
                    return {}
                # The candidate it was at is left out; without one (a crash while measuring) the workload is.
                if current not in left:
                    return {}
                del left[current]
        return {}

    def stop(self) -> None:
        """End the process."""
        if self.channel is not None:
            self.channel.close()
            self.channel = None
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
