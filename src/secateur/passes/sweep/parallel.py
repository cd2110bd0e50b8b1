"""Data-parallel sweeps: under ``torchrun`` each process takes its share of the batches, and sums are joined."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.distributed as dist

from secateur.ir import Array, PassError

from .accumulate import Accumulator, Join
from .batches import Batch
from .needs import Result


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


def joined(examples: int, parts: Sequence[Accumulator]) -> tuple[int, list[Result]]:
    """The number of examples of all processes, and the results over all of them.

    Raises PassError where another process ended before it got here.
    """
    if world()[1] == 1:
        return examples, [part.result([array for _, array in part.state()]) for part in parts]
    count = int(_join("sum", np.array([float(examples)]))[0])
    return count, [part.result([_join(how, array) for how, array in part.state()]) for part in parts]


def _join(how: Join, array: Array) -> Array:
    """The arrays of all processes as one."""
    if how == "concat":
        return _concat(array)
    operation = {"sum": dist.ReduceOp.SUM, "min": dist.ReduceOp.MIN, "max": dist.ReduceOp.MAX}[how]
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    with _others():
        dist.all_reduce(tensor, op=operation)
    result: Array = tensor.numpy()
    return result


def _concat(array: Array) -> Array:
    found: list[Array | None] = [None] * world()[1]
    with _others():
        dist.all_gather_object(found, array)
    return np.concatenate([part for part in found if part is not None])


@contextlib.contextmanager
def _others() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo says that a connection was closed
        raise PassError("another process of this run ended early; what it printed says why") from error
