"""Data-parallel sweeps: under ``torchrun`` each process takes its share of the batches, and sums are joined."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from secateur.ir import Array, PassError

from .accumulate import Accumulator
from .batches import Batch


def world() -> tuple[int, int]:
    """(rank, processes): (0, 1) outside of ``torch.distributed``."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def share(items: Iterator[Batch]) -> Iterator[tuple[int, Batch]]:
    """This process's batches with their numbers in the whole."""
    rank, size = world()
    for number, item in enumerate(items):
        if number % size == rank:
            yield number, item


def joined(examples: int, parts: Sequence[Accumulator]) -> tuple[int, list[Any]]:
    """The number of examples of all processes, and the results over all of them.

    Raises PassError where another process ended before it got here.
    """
    if world()[1] == 1:
        return examples, [part.result([array for _, array in part.state()]) for part in parts]
    count = int(_JOIN["sum"](np.array([float(examples)]))[0])
    return count, [part.result([_JOIN[how](array) for how, array in part.state()]) for part in parts]


def _reduce(op: Any) -> Any:
    def run(array: Array) -> Array:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        with _others():
            dist.all_reduce(tensor, op=op)
        result: Array = tensor.numpy()
        return result

    return run


def _concat(array: Array) -> Array:
    found: list[Any] = [None] * world()[1]
    with _others():
        dist.all_gather_object(found, array)
    return np.concatenate(found)


@contextlib.contextmanager
def _others() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo says that a connection was closed
        raise PassError("another process of this run ended early; what it printed says why") from error


_JOIN: dict[str, Any] = {
    "sum": _reduce(dist.ReduceOp.SUM) if dist.is_available() else None,
    "min": _reduce(dist.ReduceOp.MIN) if dist.is_available() else None,
    "max": _reduce(dist.ReduceOp.MAX) if dist.is_available() else None,
    "concat": _concat,
}
