"""A function in a process of its own, forked from one that has imported what it needs.

Importing torch and timm takes longer than most networks of a zoo take to be pruned.
"""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection

from bench.lib import common


class Server:
    """Forks children from a process that holds ``modules`` (dotted names), with the environment of this one."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(modules))

    def run(self, function: Callable[..., common.Row], *arguments: object, timeout: float) -> common.Row:
        """The row that the function returns, or ``status`` broken with the ``reason``: a crash, or out of time.

        With ``wall_s`` and, of a process that ended by itself, ``cpu_s_all`` and ``peak_mb``.
        """
        receive, send = self._context.Pipe(duplex=False)
        start = time.perf_counter()
        child = self._context.Process(target=_child, args=(send, function, arguments))
        child.start()
        send.close()
        row: common.Row
        try:
            row = receive.recv() if receive.poll(timeout) else {"reason": f"not finished after {timeout:g} s"}
        except EOFError:
            child.join()
            row = {"reason": f"exit code {child.exitcode}"}
        child.kill()
        child.join()
        row = row if "status" in row else row | {"status": "broken"}
        return row | {"wall_s": round(time.perf_counter() - start, 2)}


def _child(send: Connection, function: Callable[..., common.Row], arguments: Sequence[object]) -> None:
    row = function(*arguments)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    spent = {"cpu_s_all": round(usage.ru_utime + usage.ru_stime, 2), "peak_mb": usage.ru_maxrss // 1024}
    send.send(row | spent)
