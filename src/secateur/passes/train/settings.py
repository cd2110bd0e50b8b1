"""How to fine-tune, and what came of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from secateur.ir import InputError
from secateur.passes.sweep.objective import Objective


@dataclass(frozen=True)
class Settings:
    """How to train. ``rate`` falls along a cosine to zero; ``patience``: epochs without a better validation until the
    end, None for never. ``statistics``: batches from which batch norms are estimated anew before each validation, 0 for
    none. ``every``: seconds between checkpoints. ``precision`` "bf16": products in bfloat16 (autocast), weights in
    float32.
    """

    epochs: int = 3
    rate: float = 0.01
    momentum: float = 0.9
    decay: float = 5e-4
    optimiser: Literal["sgd", "adamw"] = "sgd"
    objective: Objective = field(default_factory=Objective)
    precision: Literal["f32", "bf16"] = "f32"
    patience: int | None = None
    statistics: int = 32
    seed: int = 0
    every: float = 60.0

    def __post_init__(self) -> None:
        """Raises InputError for numbers and names that make no sense."""
        numbers = (self.rate, self.momentum, self.decay, self.every)
        if self.epochs < 1 or self.statistics < 0 or not all(0 <= x < math.inf for x in numbers):
            raise InputError(
                f"epochs={self.epochs}, rate={self.rate:g}, momentum={self.momentum:g}, decay={self.decay:g}: epochs "
                "are 1 or more, the others numbers from 0 up"
            )
        if self.patience is not None and self.patience < 1:
            raise InputError(f"patience={self.patience}: give 1 epoch or more, or None")
        for given, known in ((self.optimiser, ("sgd", "adamw")), (self.precision, ("f32", "bf16"))):
            if given not in known:
                raise InputError(f"there is no '{given}' here; take {' or '.join(known)}")


@dataclass(frozen=True)
class Epoch:
    """One pass over the data: the mean loss, what validation found (``top1`` None where there are no classes)."""

    number: int
    loss: float
    validation: float | None = None
    top1: float | None = None


@dataclass(frozen=True)
class Tuned:
    """What training did. ``best``: the epoch whose weights the module has now; ``stopped``: why it ended, in a
    sentence.

    ``first``: is this the process that should write, of those that trained together?
    """

    epochs: tuple[Epoch, ...]
    best: int
    stopped: str
    first: bool = True

    def __str__(self) -> str:
        lines = [_line(epoch, epoch.number == self.best) for epoch in self.epochs]
        return "\n".join([*lines, self.stopped])


def _line(epoch: Epoch, best: bool) -> str:
    found = "" if epoch.validation is None else f", validation {epoch.validation:.4f}"
    top1 = "" if epoch.top1 is None else f", top-1 {epoch.top1:.2%}"
    return f"epoch {epoch.number}: loss {epoch.loss:.4f}{found}{top1}{' (kept)' if best else ''}"
