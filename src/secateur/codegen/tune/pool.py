"""The parent's side of the measuring processes: jobs out, timings in, the dead and the hung replaced.

Workers compile side by side, which is most of the work. While one of them times its kernels the others are stopped
(SIGSTOP): a core that compiles shares caches and memory, and on many machines its arithmetic, with the one that times.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any

from secateur.codegen.host import family
from secateur.codegen.plan.family import Kernel
from secateur.codegen.records import Origin
from secateur.codegen.runtime import cores
from secateur.codegen.targets import Target
from secateur.ir import Unsupported

from .timing import MEMORY
from .tracker import Tracker

ROUNDS = 15
PATIENCE = 20.0  # seconds for one step, such as compiling one choice, before a worker counts as hung
TICK = 0.5  # seconds between two looks at who hangs
MOST_WORKERS = 4
Times = Mapping[int, float]


@dataclass
class Job:
    """What a process is given: ``kernels``, specs with a choice each.

    ``deaths``: how many workers died at each kernel, or at none (None).
    """

    name: int
    kernels: dict[int, Kernel]
    deaths: Counter[int | None] = field(default_factory=Counter)


@dataclass(eq=False)
class Member:
    """A process. ``at``: the kernel it is at; ``since``: when it was last heard of."""

    channel: Connection
    since: float
    pid: int = 0
    job: Job | None = None
    at: int | None = None
    waiting: bool = False  # it has compiled, and waits for its turn to measure


@dataclass
class Pool:
    """Processes that compile and time kernels. A context: they end with it, whatever happens.

    ``clock`` is in seconds. ``workers``: how many, by default one a core. ``memory``: see ``timing.arguments``.
    """

    target: Target
    threads: int
    workers: int = 0
    patience: float = PATIENCE
    rounds: int = ROUNDS
    memory: int = MEMORY
    clock: Callable[[], float] = time.monotonic
    _team: list[Member] = field(default_factory=list, init=False)
    _server: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _measuring: Member | None = field(default=None, init=False)
    _blamed: int = field(default=1, init=False)  # deaths at a kernel after which it is left out
    _tracker: Tracker | None = field(default=None, init=False)

    def __enter__(self) -> Pool:
        pairs = [Pipe() for _ in range(self.workers or min(len(cores()), MOST_WORKERS))]
        with contextlib.ExitStack() as stack, contextlib.ExitStack() as theirs:
            for mine, other in pairs:
                stack.enter_context(mine)
                theirs.enter_context(other)
            self._errors = stack.enter_context(tempfile.TemporaryFile())
            stack.callback(self._kill)
            self._server = self._start_server([other.fileno() for _, other in pairs])
            self._team = [Member(mine, self.clock()) for mine, _ in pairs]
            theirs.close()
            self._send(self._team[0], self.target, self.threads, self._tracker)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start_server(self, handles: list[int]) -> subprocess.Popen[bytes]:
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(p or "." for p in sys.path), "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "secateur.codegen.tune.worker", *map(str, (os.getpid(), *handles))]
        try:
            # A session of their own, so that Ctrl-C at the terminal reaches the parent alone.
            return subprocess.Popen(command, pass_fds=handles, env=env, start_new_session=True,
                                    stdout=subprocess.DEVNULL, stderr=self._errors)  # fmt: skip
        except OSError as error:
            raise Unsupported(f"cannot start the processes that time kernels: {error}; build without tuning") from error

    def _kill(self) -> None:
        for worker in self._team:
            tell(worker.pid, signal.SIGKILL)
        self._team.clear()
        if self._server is not None:
            self._server.kill()
            self._server.wait()

    @property
    def free(self) -> int:
        """How many jobs can be given out now."""
        return sum(worker.job is None for worker in self._team)

    @property
    def processes(self) -> list[int]:
        """The ids of all processes that run now."""
        server = [] if self._server is None else [self._server.pid]
        return [*server, *(worker.pid for worker in self._team if worker.pid)]

    @property
    def remarks(self) -> tuple[str, ...]:
        """What there is to say of the machines that measured."""
        return ()

    def origin(self, name: int) -> Origin:
        """Where a job was measured: here."""
        return Origin(family())

    def submit(self, name: int, kernels: Mapping[int, Kernel]) -> None:
        """Give out kernels, a spec and its choice each, to be timed by turns; ``wait`` returns this name."""
        worker = next(w for w in self._team if w.job is None)
        worker.job = Job(name, dict(kernels))
        if worker.pid:
            self._start(worker)

    def wait(self, seconds: float) -> dict[int, Times]:
        """The jobs that end within so many seconds; none of them, or several, after the first that does.

        Kernels that failed, crashed or hung are missing in its times. Raises Unsupported if no worker comes up.
        """
        deadline = self.clock() + seconds
        done: dict[int, Times] = {}
        while not done and any(worker.job for worker in self._team):
            left = deadline - self.clock()
            if left <= 0:
                break
            ready = wait([w.channel for w in self._team], min(left, TICK))
            for worker in self._team:
                if worker.channel in ready:
                    self._hear(worker, done)
                elif worker.pid and self._hung(worker):
                    tell(worker.pid, signal.SIGKILL)  # the fork server reports it
                    worker.since = self.clock()
        return done

    def _hung(self, worker: Member) -> bool:
        stopped = worker.waiting or self._measuring not in (None, worker)
        return worker.job is not None and not stopped and self.clock() - worker.since > self.patience

    def _hear(self, worker: Member, done: dict[int, Times]) -> None:
        try:
            kind, *rest = worker.channel.recv()
        except (EOFError, OSError) as error:
            raise self._ended() from error
        worker.since = self.clock()
        self._told(worker, kind, rest, done)

    def _told(self, worker: Member, kind: str, rest: list[Any], done: dict[int, Times]) -> None:
        """Act on what a worker says."""
        if kind == "ready":
            worker.pid = rest[0]
            if worker.job is not None:
                self._start(worker)
        elif kind == "at":
            worker.at = rest[0]
        elif kind == "compiled":
            worker.waiting = True
        elif kind == "times":
            self._end(worker, rest[0], done)
        elif kind == "died":
            self._bury(worker, done)
        self._next()

    def _start(self, worker: Member) -> None:
        assert worker.job is not None
        worker.at, worker.since = None, self.clock()
        self._send(worker, worker.pid, worker.job.kernels, self.rounds, self.memory)

    def _end(self, worker: Member, times: Times, done: dict[int, Times]) -> None:
        assert worker.job is not None
        done[worker.job.name] = times
        worker.job = None
        self._release(worker)

    def _bury(self, worker: Member, done: dict[int, Times]) -> None:
        """Leave out the kernel that a worker died of; its successor does the rest, or all if it was none, once."""
        worker.pid, worker.waiting = 0, False
        self._release(worker)
        job = worker.job
        if job is None:
            return
        job.deaths[worker.at] += 1
        if worker.at is not None and job.deaths[worker.at] >= self._blamed:
            job.kernels.pop(worker.at, None)
        if job.deaths[None] > 1 or not job.kernels:
            done[job.name] = {}
            worker.job = None

    def _release(self, worker: Member) -> None:
        """Others may run again once this one has measured."""
        if self._measuring is worker:
            self._measuring = None
            for other in self._team:
                other.since = self.clock()
                tell(other.pid, signal.SIGCONT)

    def _next(self) -> None:
        """Let a worker measure that waits for it, and nobody else run."""
        worker = next((w for w in self._team if w.waiting), None)
        if worker is None or self._measuring is not None:
            return
        for other in self._team:
            if other is not worker:
                tell(other.pid, signal.SIGSTOP)
        self._measuring, worker.waiting = worker, False
        self._send(worker, worker.pid)

    def _send(self, worker: Member, *message: object) -> None:
        """What is not for the process id it is addressed to is ignored there: a worker may have just died."""
        try:
            worker.channel.send(message)
        except OSError as error:
            raise self._ended() from error

    def _ended(self) -> Unsupported:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        why = lines[-1] if lines else "they were killed, or ran out of memory"
        return Unsupported(f"the processes that time kernels have ended: {why}; what was measured before is kept")


def tell(pid: int, number: int) -> None:
    """Send a process a signal, if there is one (0: none) and it has not ended."""
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
