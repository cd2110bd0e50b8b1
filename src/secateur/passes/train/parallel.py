"""Data-parallel training that computes what one process does: shares of each batch, summed gradients, joint statistics.

Each process takes its part of every batch. The mean over the whole batch is what one process minimises, so losses are
divided by all examples and gradients summed; batch norms take the mean and variance over all processes. What is left is
the order of floating additions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from secateur.ir import PassError
from secateur.passes.sweep.parallel import world


def rows(examples: int) -> tuple[slice, int]:
    """(this process's rows of a batch, by how many examples losses are divided).

    A batch of fewer examples than processes is computed by each of them, and counts once for each: the mean is the
    same.
    """
    rank, size = world()
    if examples < size:
        return slice(0, examples), examples * size
    return slice(rank * examples // size, (rank + 1) * examples // size), examples


def summed(values: Sequence[float]) -> list[float]:
    """The sums over all processes."""
    if world()[1] == 1:
        return list(values)
    total = torch.tensor(list(values), dtype=torch.float64)
    with _others():
        dist.all_reduce(total)
    return [float(x) for x in total]


def joint_mean_square(x: Tensor) -> Tensor:
    """f32[]: the mean of the squares over what all processes have of a batch; it has no gradient."""
    total, count = summed([float(x.detach().float().square().sum()), float(x.numel())])
    return torch.tensor(total / max(count, 1.0))


def sum_gradients(parameters: Sequence[Tensor]) -> None:
    """Add up the gradients of all processes, in one message."""
    if world()[1] == 1:
        return
    found = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    if not found:
        return
    flat = torch.cat([g.reshape(-1).float() for g in found])
    with _others():
        dist.all_reduce(flat)
    for parameter, part in zip(parameters, torch.split(flat, [g.numel() for g in found]), strict=True):
        fresh = part.view(parameter.shape).to(parameter.dtype)
        parameter.grad = fresh if parameter.grad is None else parameter.grad.copy_(fresh)


def shared(data: bytes | None) -> bytes | None:
    """What the first process has, in all of them."""
    if world()[1] == 1:
        return data
    size = torch.tensor([-1 if data is None else len(data)])
    with _others():
        dist.broadcast(size, 0)
        if int(size) < 0:
            return None
        content = torch.frombuffer(bytearray(data or bytes(int(size))), dtype=torch.uint8)
        dist.broadcast(content, 0)
    return content.numpy().tobytes()


@dataclass
class Copies:
    """How many processes compute each example of the batch that runs: all where it is too small to be shared."""

    number: int = 1


@contextlib.contextmanager
def joint_norms(module: nn.Module) -> Iterator[Copies]:
    """Batch norms in train mode take the statistics of the whole batch; nothing changes in a single process."""
    copies = Copies()
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)] if world()[1] > 1 else []
    for norm in norms:
        norm.forward = _Joint(norm, copies)  # type: ignore[method-assign, assignment]
    try:
        yield copies
    finally:
        for norm in norms:
            del norm.forward


class _Joint:
    """The forward of a batch norm over all processes."""

    def __init__(self, norm: _BatchNorm, copies: Copies) -> None:
        self.norm, self.alone, self.copies = norm, norm.forward, copies

    def __call__(self, x: Tensor) -> Tensor:
        norm = self.norm
        if not norm.training:
            return self.alone(x)
        axes = [axis for axis in range(x.dim()) if axis != 1]
        shape = (1, -1, *(1,) * (x.dim() - 2))
        wide = x.float()
        count = summed([x.numel() / x.shape[1]])[0]
        mean = _all_sum(wide.sum(axes)) / count
        centred = wide - mean.view(shape)
        variance = _all_sum(centred.square().sum(axes)) / count
        distinct = count / self.copies.number
        _remember(norm, mean.detach(), variance.detach() * (distinct / max(distinct - 1, 1)))
        y = centred * torch.rsqrt(variance + norm.eps).view(shape)
        if norm.affine:
            y = y * norm.weight.view(shape) + norm.bias.view(shape)
        return y.to(x.dtype)


@torch.no_grad()
def _remember(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    if not norm.track_running_stats or norm.running_mean is None or norm.running_var is None:
        return
    share = 0.0 if norm.momentum is None else norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        share = 1.0 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
    norm.running_var.lerp_(variance.to(norm.running_var.dtype), share)


class _AllSum(torch.autograd.Function):
    """The sum over all processes; so is its gradient, as every process's loss depends on it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        found = x.clone()
        with _others():
            dist.all_reduce(found)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        found = gradients[0].contiguous().clone()
        with _others():
            dist.all_reduce(found)
        return found


def _all_sum(x: Tensor) -> Tensor:
    found: Tensor = _AllSum.apply(x)  # type: ignore[no-untyped-call]
    return found


@contextlib.contextmanager
def _others() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo says that a connection was closed
        raise PassError("another process of this run ended early; what it printed says why") from error
