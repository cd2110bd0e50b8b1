"""A worker's side of measuring on boards: compile here, ask the tracker for a board, check and time there.

Says, besides what ``worker`` does: ``("queue",)`` before it waits for a board and ``("board", name)`` when it has one;
``("wrong", name, number of kernels)`` where some results are off; and ``("refused", name, why)`` where the board
itself is unfit. Then it keeps the session, so that nobody gets this board again, and takes no more jobs.
"""

from __future__ import annotations

import contextlib
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path

from secateur.codegen.plan.family import Kernel
from secateur.codegen.records import Origin
from secateur.codegen.targets import Target
from secateur.ir import Error

from .board import Board, Facts, Lost, Sums, checked, connect, reference, timings
from .portable import export, for_here
from .timing import samples, steady
from .tracker import Tracker

LOOK = 600.0  # seconds to wait for a board; the parent sees long before whether there are any
STRIKES = 2  # connections that break at a kernel before it counts as its own fault
TRIES = 3  # connections that break before any kernel, before the board counts as unfit


def hold_back_the_end() -> None:
    """From here on SIGTERM ends this process only where ``end_if_asked`` or ``ends_at_once`` let it.

    TVM's client (0.27) gives up a call to a board where a signal comes in, and the board's server then ends for good.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def end_if_asked() -> None:
    """Between two calls to a board: raises SystemExit after SIGTERM; what is unwound closes the session."""
    if signal.SIGTERM in signal.sigpending():
        raise SystemExit


@contextlib.contextmanager
def ends_at_once() -> Iterator[None]:
    """Where no board is at work for this process, SIGTERM ends it as any other."""
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(frozen=True)
class _Job:
    """``kernels`` in ``library``, what each should compute, and whom to tell which of them is run."""

    kernels: dict[int, Kernel]
    want: Mapping[int, Sums]
    target: Target
    library: Path
    rounds: int
    memory: int
    at: Callable[[int | None], None]


@dataclass
class Worker:
    """What ``worker.serve`` calls for a job."""

    tracker: Tracker
    held: list[Board] = field(default_factory=list)  # unfit boards

    def __call__(self, channel: Connection, target: Target, kernels: Mapping[int, Kernel], rounds: int,
                 memory: int) -> None:  # fmt: skip
        """Measure all kernels of a job on one board; another one, and all anew, where the connection breaks."""

        def at(i: int | None) -> None:
            channel.send(("at", i))
            end_if_asked()

        try:
            with tempfile.TemporaryDirectory(prefix="secateur-") as folder:
                library = Path(folder) / "kernels.so"
                built = export(kernels, target, library, memory, at)
                want = _wanted(built, target, library, memory, at) if built else {}
                job = _Job({i: k for i, k in built.items() if i in want}, want, target, library, rounds, memory, at)
                self._serve(channel, job)
        except Error as error:  # no linker, no tracker
            channel.send(("failed", str(error)))

    def _serve(self, channel: Connection, job: _Job) -> None:
        lost: Counter[int | None] = Counter()
        while job.kernels:
            place = self._board(channel)
            name = f"{place[0]}:{place[1]}"
            job.at(None)
            try:
                self._measure(channel, job, connect(place, job.library), name)
            except Lost as error:
                lost[error.at] += 1
                if lost[None] == TRIES:
                    channel.send(("refused", name, f"cannot be used: {error}"))
                    return
                if error.at is not None and lost[error.at] == STRIKES:
                    job.kernels.pop(error.at)
            else:
                return
        channel.send(("times", {}, Origin()))

    def _board(self, channel: Connection) -> tuple[str, int, str]:
        channel.send(("queue",))
        while True:
            with ends_at_once():
                found = self.tracker.request(LOOK)
            if found is not None:
                channel.send(("board", f"{found[0]}:{found[1]}"))
                return found

    def _measure(self, channel: Connection, job: _Job, board: Board, name: str) -> None:
        """Say the times, or that the board is unfit. Raises Lost."""
        facts = _facts(board)
        why = facts.unfit(job.target, version("apache-tvm"))
        off = {} if why else checked(board, job.kernels, job.target, job.want, job.memory, job.at)
        if len(off) > len(job.kernels) // 2:
            why = f"computes other numbers than this machine, off by {max(off.values()):.1e}; nothing of it counts"
        called = f"{facts.node or 'a board'} at {name}"
        if why:
            self.held.append(board)
            channel.send(("refused", called, why))
            return
        if off:
            channel.send(("wrong", called, len(off)))
        right = {i: kernel for i, kernel in job.kernels.items() if i not in off}
        found = samples(timings(board, right, job.at), job.rounds)
        channel.send(("times", steady(found), Origin(facts.family, called)))


def _facts(board: Board) -> Facts:
    try:
        return board.facts()
    except Exception as error:
        raise Lost(None, str(error).strip().splitlines()[-1]) from error


def _wanted(kernels: Mapping[int, Kernel], target: Target, library: Path, memory: int,
            at: Callable[[int | None], None]) -> dict[int, Sums]:  # fmt: skip
    """What each kernel should compute: by its own code where that runs here, else by the same template's for here."""
    mine = for_here(target)
    if mine is target:
        return reference(kernels, target, library, memory, at)
    own = library.with_name("here.so")
    return reference(export(kernels, mine, own, memory, at), mine, own, memory, at)
