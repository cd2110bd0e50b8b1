"""Processes that have ONNX Runtime imported: forked from one that has, which costs a tenth of starting one.

The first process of an interpreter imports it once and runs no model itself. Each child that it forks is as new as one
that was started: what crashes a child touches no other.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import weakref
from functools import cache
from typing import IO

from .worker import Head

WORKER = "secateur.ir.frontends.onnx.worker"


def environment() -> dict[str, str]:
    """That of a process which imports this very secateur, wherever it was found."""
    paths = [os.path.abspath(p) for p in sys.path if p]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


class Child:
    """One forked process, as far as ``subprocess.Popen`` is asked for; it reports its ``pid`` once it is ready."""

    def __init__(self, nursery: Nursery, stdin: IO[bytes], stdout: IO[bytes]) -> None:
        self.stdin, self.stdout = stdin, stdout
        self.returncode: int | None = None
        self.pid = 0
        self._nursery = nursery

    def ready(self, head: Head) -> None:
        """Take note of its first message."""
        self.pid = int(head["pid"])

    def kill(self) -> None:
        """End it. Before it is ready nothing is to be done: it ends with its pipes."""
        if self.pid and self.returncode is None:  # it keeps its number until ``wait``
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """How it ended, as ``Popen.returncode`` says it."""
        if self.returncode is None:
            self.returncode = self._nursery.ended(self.pid)
        return self.returncode


class Nursery:
    """The process that forks. It ends with this object, or when nobody holds the other end of its socket."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                (sys.executable, "-P", "-m", WORKER, str(theirs.fileno())), pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(),
                start_new_session=True,
            )  # fmt: skip
        self._turn = threading.Lock()
        weakref.finalize(self, _end, self._control, self._process)

    def child(self) -> Child:
        """A new child, without waiting for it. Raises OSError where the process has ended."""
        requests, answers = os.pipe(), os.pipe()
        try:
            socket.send_fds(self._control, [b"fork"], [requests[0], answers[1]])
        except OSError:
            for handle in (requests[1], answers[0]):
                os.close(handle)
            raise
        finally:
            for handle in (requests[0], answers[1]):
                os.close(handle)
        return Child(self, os.fdopen(requests[1], "wb"), os.fdopen(answers[0], "rb"))

    def ended(self, pid: int) -> int:
        """The exit code of a child, negative for a signal; 1 where neither it nor this process can say."""
        if not pid:
            return 1
        try:
            with self._turn:
                self._control.send(str(pid).encode())
                return int(self._control.recv(32) or b"1")
        except OSError:
            return 1


def _end(control: socket.socket, process: subprocess.Popen[bytes]) -> None:
    control.close()
    process.kill()
    process.wait()


@cache
def _nursery(process: int) -> Nursery:
    """That of a process: one that is forked from it has its own."""
    return Nursery()


def born() -> Child | None:
    """A new child of this process' nursery; None where there can be none."""
    if sys.platform != "linux":
        return None
    try:
        return _nursery(os.getpid()).child()
    except OSError:
        return None
