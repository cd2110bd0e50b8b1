"""A static partition of numbered work over threads, each with scratch memory of its own."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx

from .builder import KernelBuilder, const
from .types import Expr


def partition(k: KernelBuilder, threads: int, count: int, body: Callable[[Expr, Expr], None]) -> None:
    """``body(worker, i)`` for all i; the last worker may do the last one again."""
    each = -(-count // threads)
    workers = -(-count // each)

    def run(worker: Expr) -> None:
        k.loop(each, lambda i: body(worker, tirx.min(worker * each + i, const(count - 1))), name="s")

    k.loop(workers, run, workers > 1, "t")
