"""The measuring processes: one that imports TVM once, and those forked from it, which compile and time kernels.

``python -m secateur.codegen.tune.worker PID FD...`` forks a worker for each pipe, and another one when a worker dies,
of which the parent hears ``("died",)``. A worker says ``("ready", its process id)``, and for each job ``(process id,
{i: (spec, choice)}, rounds, memory)``: ``("at", i)`` before it compiles a kernel and before it first runs one,
``("compiled",)`` in between, upon which it waits for ``(process id,)``, ``("at", None)`` before each round, and
``("times", {i: seconds})``. Kernels that TVM refuses are missing there. When the parent ends, however it ends, all end.
Where a tracker is given, kernels are measured on its boards (``remote``).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection

from secateur.codegen.backends import backend_for
from secateur.codegen.emit.loading import load_tvm
from secateur.codegen.plan.family import Kernel, Workload
from secateur.codegen.runtime import ffi, use_threads
from secateur.codegen.targets import Target

from . import remote
from .timing import Compiled, arguments, compiled, in_turn, interleaved
from .tracker import Tracker

DIE_WITH_PARENT = 1  # Linux's PR_SET_PDEATHSIG


def run(channels: Mapping[int, Connection], target: Target, threads: int, tracker: Tracker | None) -> None:
    """Keep a worker alive at each pipe until the parent closes it."""
    load_tvm()  # once, before the workers are forked
    ffi()
    _ = backend_for(target).templates

    workers = {_fork(channel, target, threads, tracker): i for i, channel in channels.items()}
    while workers:
        pid, status = os.wait()
        i = workers.pop(pid)
        if status != 0:
            channels[i].send(("died",))
            workers[_fork(channels[i], target, threads, tracker)] = i


def _fork(channel: Connection, target: Target, threads: int, tracker: Tracker | None) -> int:
    server = os.getpid()
    pid = os.fork()
    if pid == 0:
        die_with(server)
        use_threads(threads)
        if tracker is not None:
            remote.hold_back_the_end()
        with contextlib.suppress(SystemExit):
            serve(channel, target, _work if tracker is None else remote.Worker(tracker))
        os._exit(0)
    return pid


def serve(channel: Connection, target: Target, work: Callable[..., None]) -> None:
    """Answer jobs until the parent closes the pipe. What is addressed to a worker that died is passed over."""
    me = os.getpid()
    channel.send(("ready", me))
    while True:
        try:
            to, *job = channel.recv()
            if to == me:
                work(channel, target, *job)
        except (EOFError, OSError):
            return


def _work(channel: Connection, target: Target, kernels: Mapping[int, Kernel], rounds: int, memory: int) -> None:
    functions: dict[Workload, dict[int, Compiled]] = {}  # by spec
    for i, (spec, choice) in kernels.items():
        channel.send(("at", i))
        try:
            function = compiled(spec, choice, target)
        except Exception:  # a kernel that TVM refuses costs itself alone
            continue
        functions.setdefault(spec, {})[i] = function
    channel.send(("compiled",))
    while channel.recv() != (os.getpid(),):
        pass
    calls: dict[int, Callable[[], None]] = {}
    for spec, mine in functions.items():
        calls |= in_turn(mine, arguments(spec, target, memory))
    for i, call in calls.items():
        channel.send(("at", i))
        call()  # a kernel that crashes or hangs does so here
    times = interleaved(calls, rounds, lambda: channel.send(("at", None))) if calls else {}
    channel.send(("times", times))


def die_with(parent: int) -> None:
    """Have the system kill this process when its parent ends, also in the middle of an endless kernel."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended already
        os._exit(1)


def main(arguments_: list[str]) -> None:
    """The process id of the parent, and the pipes."""
    parent, *handles = map(int, arguments_)
    die_with(parent)
    channels = {i: Connection(handle) for i, handle in enumerate(handles)}
    run(channels, *channels[0].recv())


if __name__ == "__main__":
    main(sys.argv[1:])
