"""One runtime with one network loaded, in a process of its own, that runs it once whenever its parent says so.

    python -m MODULE RUNTIME FOLDER THREADS FD      what turns.Worker starts: runtimes.py, or engine_runtimes.py

FOLDER is what prepare.py wrote. Over the pipe FD the worker sends ("ready", seconds, outputs) when it has loaded and
run the network, or ("failed", why); then it answers each (warm, least) with the medians of its own milliseconds, of the
wall's clock and of the processor in all its threads: ``warm`` calls that are not timed, then timed ones until ``least``
seconds are over, one at the least.

Imports NumPy alone, so that it serves in every environment.
"""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PR_SET_PDEATHSIG = 1
Arrays = list[NDArray[Any]]


@dataclass(frozen=True)
class Loaded:
    """Runs the network once; ``read`` turns what a run returns into arrays."""

    run: Callable[[], Any]
    read: Callable[[Any], Sequence[Any]] = lambda outputs: [outputs]


@dataclass(frozen=True)
class Place:
    """Where a network lies, and how many threads may run it."""

    folder: Path
    threads: int

    @property
    def onnx(self) -> Path:
        """The network as an ONNX file."""
        return self.folder / "model.onnx"

    @property
    def x(self) -> NDArray[np.float32]:
        """The input."""
        found: NDArray[np.float32] = np.load(self.folder / "input.npy")
        return found

    def made(self, name: str, make: Callable[[Path], None], *files: Path) -> Path:
        """A folder that ``make`` fills with what is slow to prepare, once for this network and these files."""
        total = hashlib.sha256()
        for file in (self.onnx, *files):
            total.update(file.read_bytes())
        folder = self.folder / f"{name}-{total.hexdigest()[:12]}"
        if not folder.exists():
            scratch = self.folder / f"{name}.part"
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            make(scratch)
            scratch.rename(folder)
        return folder


def serve(runtimes: Mapping[str, Callable[[Place], Loaded]]) -> None:
    """Load what the command line names, then answer until the parent closes the pipe."""
    _end_with_parent()
    runtime, folder, threads, pipe = sys.argv[1:]
    channel = Connection(int(pipe))
    start = time.perf_counter()
    try:
        loaded = runtimes[runtime](Place(Path(folder), int(threads)))
        outputs: Arrays = [np.array(o) for o in loaded.read(loaded.run())]
    except Exception as error:
        channel.send(("failed", f"{type(error).__name__}: {error}"[:500]))
        return
    channel.send(("ready", time.perf_counter() - start, outputs))
    while True:
        try:
            warm, least = channel.recv()
        except EOFError:
            return
        channel.send(turn(loaded.run, warm, least))


def turn(run: Callable[[], Any], warm: int, least: float) -> tuple[float, float]:
    """Median milliseconds of a run by the wall's clock and by the processor's, after ``warm`` that are not timed."""
    for _ in range(warm):
        run()
    walls: list[float] = []
    processors: list[float] = []
    while not walls or sum(walls) < least:
        wall, processor = time.perf_counter(), time.process_time()
        run()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    return statistics.median(walls) * 1e3, statistics.median(processors) * 1e3


def _end_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies: a stopped worker would stay for ever."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
