"""Iterative hard thresholding: Jin et al., "Training Skinny DNNs with Iterative Hard Thresholding Methods", 2016."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from secateur.ir import InputError
from secateur.passes.score.l2 import L2

from .coupled import Units
from .hook import Hook, State
from .masks import Masks
from .soft import chosen
from .weights import Layer, check_share, grouped, keep_largest, layers, norms, path_of, ungrouped, weight_of


class HardThreshold(Hook):
    """Train on the largest weights of each layer, release all, and again (iterative hard thresholding, Jin et al.
    2016).

    Phase I, ``sparse_steps``: W <- O_k(W), which keeps the k = ceil(density * number) largest of each layer, and only
    those train. Phase II, ``dense_steps``: the others may grow again, from zero and without the momentum of before.
    After ``rounds`` of both, phase I once more and for good; ``finish`` ends with it at once. ``start``: the density of
    the first round, from which it falls to ``density`` in equal steps. ``unit`` "filter": whole filters by their norm.
    ``units``: whole coupled channels instead, filters and norms together, the same share of every set of them, so that
    what is zero is a channel that can go. Otherwise biases and norms are left alone. A long phase II with weight decay
    lets nothing back in: decay pulls at what is small.
    """

    def __init__(
        self,
        module: nn.Module,
        density: float,
        sparse_steps: int,
        dense_steps: int,
        rounds: int,
        start: float | None = None,
        unit: Literal["weight", "filter"] = "weight",
        names: Sequence[str] | None = None,
        units: Units | None = None,
    ) -> None:
        """Raises InputError for numbers and names that make no sense."""
        check_share(density, "density", least_open=True)
        check_share(density if start is None else start, "start", least_open=True)
        if min(sparse_steps, dense_steps) < 1 or rounds < 0:
            raise InputError(
                f"sparse_steps={sparse_steps}, dense_steps={dense_steps}, rounds={rounds}: give 1 step or more, and no "
                "negative number of rounds"
            )
        if unit not in ("weight", "filter"):
            raise InputError(f"there is no unit '{unit}'; take weight or filter")
        self.layers = layers(module, names)
        self.density, self.start, self.unit = density, density if start is None else start, unit
        self.sparse_steps, self.dense_steps, self.rounds = sparse_steps, dense_steps, rounds
        self.units = units
        self.masks, self.step, self.finished = Masks(module, {}), 0, rounds == 0
        self._enter()

    @property
    def sparse(self) -> bool:
        """Is this phase I?"""
        return bool(self.masks.masks)

    def finish(self) -> None:
        """Phase I from now on, at the final density."""
        self.finished = True
        self._cut(self.density)

    def before_step(self, optimiser: Optimizer) -> None:
        self.masks.before_step(optimiser)

    def after_step(self, optimiser: Optimizer) -> None:
        self.masks.after_step(optimiser)  # off the support nothing is remembered either: released weights start at rest
        self.step += 1
        if not self.finished:
            self._enter()
            self.masks.after_step(optimiser)

    def _enter(self) -> None:
        """Change the phase where one ends."""
        number, at = divmod(self.step, self.sparse_steps + self.dense_steps)
        if number >= self.rounds:
            self.finish()
        elif at == 0:
            last = max(self.rounds - 1, 1)
            self._cut(self.start + (self.density - self.start) * number / last)
        elif at == self.sparse_steps:
            self.masks.set({})

    def _cut(self, density: float) -> None:
        if self.units is not None:
            self.masks.set(self.units.masks(chosen(self.units, L2(), 1 - density)))
            return
        self.masks.set({path_of(name): support(layer, density, self.unit) for name, layer in self.layers.items()})

    def state_dict(self) -> State:
        return {"step": self.step, "finished": self.finished, **self.masks.state_dict()}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        self.step, self.finished = cast(int, state["step"]), bool(state["finished"])
        self.masks.load_state_dict(state)


def support(layer: Layer, density: float, unit: Literal["weight", "filter"]) -> Tensor:
    """bool like the layer's weight: where O_k leaves it, the closest point of ceil(density * number) non-zeros."""
    if unit == "weight":
        weight = weight_of(layer).detach()
        return keep_largest(weight.abs(), count_of(density, weight.numel()))
    view = grouped(layer)
    size = norms(view, "filter")
    kept = keep_largest(size, count_of(density, size.numel()))
    return ungrouped(kept.expand(view.shape), layer).clone()


def count_of(density: float, number: int) -> int:
    """How many of so many a density leaves: rounded up, one at least."""
    return max(1, -int(-(density * number - 1e-9) // 1))


@torch.no_grad()
def hard_threshold(weight: Tensor, count: int) -> Tensor:
    """O_k: the ``count`` largest by absolute value as they are, the rest zero; a new tensor."""
    return weight * keep_largest(weight.abs(), count)
