"""A tracker of TVM's and servers on the loopback, all forked from one process that imports TVM once.

``python local_boards.py KEY COUNT [TRACKER-PORT]`` prints a line for the tracker, which it starts if no port is given,
and one for each server: its process group and its port. All end with what started them. TVM's own programs start
another Python for each, which an emulated one cannot.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
FIRST, LAST = 9090, 9990  # ports to try


@dataclass(frozen=True)
class Listener:
    """A process group that listens at a port."""

    group: int
    port: int

    def bind(self, core: int) -> None:
        """Keep it, and the sessions that it serves from now on, to one core."""
        for thread in Path(f"/proc/{self.group}/task").iterdir():  # the one that listens forks the sessions
            os.sched_setaffinity(int(thread.name), {core})

    def signal(self, number: int) -> None:
        """Send it a signal, and whatever serves a session for it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.group, number)


@contextlib.contextmanager
def started(key: str, count: int, *rest: str, command: Sequence[str] = (sys.executable,),
            env: Mapping[str, str] | None = None) -> Iterator[list[Listener]]:  # fmt: skip
    """The tracker, where ``rest`` names none, and so many servers."""
    arguments = [*command, str(Path(__file__)), key, str(count), *rest]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env) as process:
        found: list[Listener] = []
        try:
            assert process.stdout is not None
            for _ in range(count + (not rest)):
                line = process.stdout.readline()
                assert line, "a tracker or server did not start"
                found.append(Listener(*map(int, line.split())))
            yield found
        finally:
            for listener in found:
                listener.signal(signal.SIGKILL)
            process.kill()


def tracker() -> int:
    """Start one; its port."""
    from tvm.rpc.tracker import PopenTrackerServerState

    return int(PopenTrackerServerState(HOST, FIRST, LAST, silent=True).port)


def server(port: int, key: str) -> int:
    """Start one that registers under a key; its port."""
    from tvm.rpc.server import PopenRPCServerState

    return int(PopenRPCServerState(HOST, FIRST, LAST, tracker_addr=(HOST, port), key=key, silent=True).port)


def forked(listen: Callable[[], int]) -> int:
    """Listen in a process of its own, say so, and return the port."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        os.write(writing, str(listen()).encode())
        os.close(writing)
        signal.pause()
    os.close(writing)
    port = int(os.read(reading, 16))
    print(child, port, flush=True)
    return port


def main(key: str, count: str, *rest: str) -> None:
    """Listen until killed."""
    sys.modules["torch"] = None  # type: ignore[assignment]  # TVM would import it
    import tvm.rpc.server  # noqa: F401

    port = int(rest[0]) if rest else forked(tracker)
    for _ in range(int(count)):
        forked(lambda: server(port, key))
    signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
