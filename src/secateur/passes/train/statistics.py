"""Batch norm statistics for the weights as they are."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from secateur.passes.sweep.parallel import world

from .parallel import Copies, rows

Batch = tuple[tuple[Tensor, ...], Tensor | None, int]  # inputs, labels, how many examples count


@torch.no_grad()
def reestimate(
    module: nn.Module,
    batches: Iterable[Batch],
    cast_to: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
    copies: Copies | None = None,
) -> None:
    """Batch norm statistics as the mean over these batches with the weights as they are; the module's mode stays."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    items: Iterator[Batch] = iter(batches if norms else ())
    first = next(items, None)
    if first is None:
        return
    was, momenta = module.training, [norm.momentum for norm in norms]
    module.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    for inputs, _, examples in itertools.chain([first], items):
        part, count = rows(examples)
        if copies is not None:
            copies.number = count // examples
        with cast_to():
            module(*(x[part] for x in inputs) if world()[1] > 1 else inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    module.train(was)
