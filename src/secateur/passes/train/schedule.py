"""Sparsity that grows: how much of it when, and the hook that masks weights accordingly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from secateur.ir import InputError

from .hook import Hook, State
from .masks import Masks
from .weights import check_share, keep_largest, layers, path_of, weight_of

Curve = Literal["cubic", "linear", "exponential"]


def sparsity_at(done: float, final: float, start: float = 0.0, curve: Curve = "cubic") -> float:
    """The share of zeros when the schedule is at ``done`` (0 to 1).

    "cubic": final + (start - final)(1 - done)^3, fast while many weights are idle (Zhu and Gupta, "To prune, or not to
    prune", 2017). "exponential": the share that is left falls by equal factors (FORCE, SynFlow); "linear" as it says.
    Raises InputError for an unknown curve.
    """
    done = min(max(done, 0.0), 1.0)
    if curve == "cubic":
        return final + (start - final) * (1 - done) ** 3
    if curve == "linear":
        return start + (final - start) * done
    if curve == "exponential":
        least = 1e-6  # no number of equal factors leads to nothing at all
        left = (1 - start) ** (1 - done) * max(1 - final, least) ** done
        return 1 - left if done < 1 else final
    raise InputError(f"there is no curve '{curve}'; take cubic, linear or exponential")


class Gradual(Hook):
    """Mask the smallest weights, more of them every ``every`` steps until ``steps``; what is gone stays gone.

    ``sparsity``: the share of zeros in the end, of every layer, or of all together with ``scope`` "global". Biases and
    norms are left alone.
    """

    def __init__(
        self,
        module: nn.Module,
        sparsity: float,
        steps: int,
        every: int = 1,
        curve: Curve = "cubic",
        scope: Literal["layer", "global"] = "layer",
        names: Sequence[str] | None = None,
    ) -> None:
        """Raises InputError for numbers and names that make no sense."""
        check_share(sparsity, "sparsity")
        if steps < 1 or every < 1:
            raise InputError(f"steps={steps}, every={every}: give 1 or more")
        sparsity_at(0.0, sparsity, 0.0, curve)
        self.weights = {path_of(name): weight_of(layer) for name, layer in layers(module, names).items()}
        self.sparsity, self.steps, self.every, self.curve, self.scope = sparsity, steps, every, curve, scope
        self.masks, self.step = Masks(module, {}), 0

    def before_step(self, optimiser: Optimizer) -> None:
        self.masks.before_step(optimiser)

    def after_step(self, optimiser: Optimizer) -> None:
        self.step += 1
        if self.step <= self.steps and (self.step % self.every == 0 or self.step == self.steps):
            share = sparsity_at(self.step / self.steps, self.sparsity, 0.0, self.curve)
            self.masks.set(magnitude_masks(self.weights, share, self.masks.masks, self.scope))
        self.masks.after_step(optimiser)

    def state_dict(self) -> State:
        return {"step": self.step, **self.masks.state_dict()}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        self.step = int(state["step"])  # type: ignore[call-overload]
        self.masks.load_state_dict(state)


def magnitude_masks(
    weights: Mapping[str, Tensor],
    sparsity: float,
    before: Mapping[str, Tensor] | None = None,
    scope: Literal["layer", "global"] = "layer",
) -> dict[str, Tensor]:
    """Masks that leave the largest weights: of each, or of all together; floor(sparsity * number) of them go.

    What is masked in ``before`` is not chosen before all that is not: masks of growing sparsity are nested.
    """
    scores = {name: weight.detach().abs() for name, weight in weights.items()}
    for name, mask in (before or {}).items():
        scores[name] = scores[name].masked_fill(~mask, -1.0)
    if scope == "layer":
        return {name: keep_largest(s, s.numel() - int(sparsity * s.numel() + 1e-9)) for name, s in scores.items()}
    flat = torch.cat([s.flatten() for s in scores.values()]) if scores else torch.zeros(0)
    kept = keep_largest(flat, len(flat) - int(sparsity * len(flat) + 1e-9))
    parts = torch.split(kept, [s.numel() for s in scores.values()])
    return {name: part.view(scores[name].shape) for name, part in zip(scores, parts, strict=True)}
