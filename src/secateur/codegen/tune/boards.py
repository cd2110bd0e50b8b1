"""The parent's side of measuring on boards behind a tracker: a process for each board, jobs out, timings in.

A process here compiles for one board and speaks with it, so that one that hangs can be ended. It asks the tracker for
whichever board is free. A job that loses its board is measured anew on another one; a kernel over which two boards were
lost is left out. A board that is unfit, or computes other numbers, is held by the process that found it out.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
from dataclasses import dataclass, field
from typing import Any

from secateur.codegen.records import Origin
from secateur.ir import InputError, Unsupported

from .pool import Job, Member, Pool, Times, tell
from .remote import STRIKES
from .tracker import Tracker

PATIENCE = 30.0  # seconds for one step on a board, such as uploading a library
MOST_BOARDS = 32
LOOK = 3.0  # seconds between two looks at whether any board is left, while all wait for one
GRACE = 10.0  # seconds in which processes that are asked to end may finish the call that they are in


@dataclass
class Boards(Pool):
    """Processes that measure on the boards of ``tracker``; a ``Pool`` whose kernels run elsewhere.

    Raises InputError where the tracker has no board of the key, or all that it has are unfit, and Unsupported where no
    tracker answers, or no board is left.
    """

    tracker: Tracker = field(kw_only=True)
    patience: float = PATIENCE
    _origins: dict[int, Origin] = field(default_factory=dict, init=False)
    _queued: set[int] = field(default_factory=set, init=False)  # processes that wait for a board
    _refused: dict[int, str] = field(default_factory=dict, init=False)  # processes that hold an unfit board, and why
    _orphans: list[Job] = field(default_factory=list, init=False)
    _wrong: list[str] = field(default_factory=list, init=False)

    def __enter__(self) -> Boards:
        self._tracker, self._blamed = self.tracker, STRIKES
        self.workers = min(self.workers or self.tracker.check(), MOST_BOARDS)
        super().__enter__()
        return self

    def _kill(self) -> None:
        """Have the processes hang up, at the end of the call that each is in, before whatever is left is killed.

        A server of TVM's (0.27) takes no more sessions after one whose client vanished while a call ran: the board
        would be lost to everybody.
        """
        there = [worker for worker in self._team if worker.pid]
        for worker in there:
            tell(worker.pid, signal.SIGTERM)
        for worker in self._team:
            worker.channel.close()
        if there and self._server is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._server.wait(GRACE)
        super()._kill()

    @property
    def free(self) -> int:
        """How many jobs can be given out now."""
        return 0 if self._orphans else len(self._idle())

    def _idle(self) -> list[Member]:
        return [w for w in self._team if w.job is None and w.pid not in self._refused]

    @property
    def remarks(self) -> tuple[str, ...]:
        """Boards that were refused, and those that got some kernels wrong."""
        return (*self._refused.values(), *self._wrong)

    def origin(self, name: int) -> Origin:
        """The board that a job was measured on."""
        return self._origins.get(name, Origin())

    def submit(self, name: int, kernels: Any) -> None:
        """Give out kernels, as ``Pool.submit`` does."""
        self._orphans.append(Job(name, dict(kernels)))
        self._give()

    def _give(self) -> None:
        for worker in self._idle()[: len(self._orphans)]:
            worker.job = self._orphans.pop(0)
            if worker.pid:
                self._start(worker)

    def wait(self, seconds: float) -> dict[int, Times]:
        """As ``Pool.wait``. Raises Unsupported where no board is left, InputError where none is fit."""
        deadline = self.clock() + seconds
        while True:
            done = super().wait(min(LOOK, max(0.0, deadline - self.clock())))
            if done or self.clock() >= deadline:
                return done
            self._look()

    def _look(self) -> None:
        """Is there still a board for those that wait?"""
        busy = [w for w in self._team if w.job is not None]
        if busy and all(w.pid in self._queued for w in busy) and not self.tracker.boards():
            raise Unsupported(
                f"no board under the key '{self.tracker.key}' is left at {self.tracker}; what was measured before is "
                "kept: start their servers again, and this command"
            )

    def _hung(self, worker: Member) -> bool:
        late = self.clock() - worker.since > self.patience
        return worker.job is not None and worker.pid not in self._queued and late

    def _told(self, worker: Member, kind: str, rest: list[Any], done: dict[int, Times]) -> None:
        self._queued.discard(worker.pid)
        if kind == "queue":
            self._queued.add(worker.pid)
            worker.at = None
        elif kind == "wrong":
            board, count = rest
            self._wrong.append(
                f"{board} computes other numbers than this machine in {count} choices, which do not count"
            )
        elif kind == "failed":
            raise Unsupported(rest[0])
        elif kind == "refused":
            self._refuse(worker, *rest)
        elif kind == "times" and worker.job is not None:
            self._origins[worker.job.name] = rest[1]
            self._end(worker, rest[0], done)
        else:
            super()._told(worker, kind, rest, done)
        self._give()

    def _refuse(self, worker: Member, board: str, why: str) -> None:
        """Let somebody else do the job. Raises InputError where nobody is left."""
        self._refused[worker.pid] = f"board {board} {why}"
        assert worker.job is not None
        self._orphans.append(worker.job)
        worker.job = None
        if not any(w.pid not in self._refused for w in self._team):
            raise InputError("; ".join(dict.fromkeys(self._refused.values())))

    def _next(self) -> None:
        """Boards do not disturb each other: nobody waits for a turn."""
