"""Weights that are zero and stay so, whatever momentum and weight decay do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from secateur.ir import InputError
from secateur.ir.near import did_you_mean

from .hook import Hook, State


class Masks(Hook):
    """Keep weights at exactly zero where their mask is False: bool tensors of their shape, by parameter name.

    ``held``: where they are kept at other values than zero, by the same names (tensors of the same shapes).

    Gradients are masked before a step; weights and what the optimiser remembers of them (momentum, second moments)
    after it: momentum from before the cut would move zeros that have no gradient, and decay would move what is not set
    again.
    """

    def __init__(
        self,
        of: nn.Module | Mapping[str, nn.Parameter],
        masks: Mapping[str, Tensor],
        held: Mapping[str, Tensor] | None = None,
    ) -> None:
        """``of``: a module, or its parameters by name. Sets the weights at once. Raises InputError as ``set`` does."""
        self.parameters = dict(of.named_parameters() if isinstance(of, nn.Module) else of)
        self.masks: dict[str, Tensor] = {}
        self.held: dict[str, Tensor] = {}
        self.set(masks, held)

    def set(self, masks: Mapping[str, Tensor], held: Mapping[str, Tensor] | None = None) -> None:
        """Other masks from now on; weights are set at once. Raises InputError."""
        for name, mask in masks.items():
            weight = self.parameters.get(name)
            if weight is None:
                raise InputError(f"mask for '{name}', which is not a parameter{did_you_mean(name, self.parameters)}")
            if mask.dtype != torch.bool or mask.shape != weight.shape:
                raise InputError(
                    f"mask of '{name}' is {mask.dtype} {list(mask.shape)}; give bool {list(weight.shape)}, True for "
                    "what stays"
                )
        self.masks = {name: mask.detach().clone() for name, mask in masks.items()}
        self.held = {name: value.detach().clone() for name, value in (held or {}).items()}
        self._hold()

    @torch.no_grad()
    def before_step(self, optimiser: Optimizer) -> None:
        for name, mask in self.masks.items():
            gradient = self.parameters[name].grad
            if gradient is not None:
                gradient.mul_(mask)  # what was not finite there stays so, and a loop that looks at gradients sees it

    def after_step(self, optimiser: Optimizer) -> None:
        self._hold()
        forget(optimiser, {self.parameters[name]: mask for name, mask in self.masks.items()})

    @torch.no_grad()
    def _hold(self) -> None:
        for name, mask in self.masks.items():
            weight, value = self.parameters[name], self.held.get(name)
            weight.masked_fill_(~mask, 0.0) if value is None else weight.copy_(torch.where(mask, weight, value))

    def density(self) -> float:
        """The share of the masked weights that stays; 1 without masks."""
        total = sum(mask.numel() for mask in self.masks.values())
        return sum(int(mask.sum()) for mask in self.masks.values()) / total if total else 1.0

    def state_dict(self) -> State:
        return {"masks": dict(self.masks), "held": dict(self.held)}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        self.set(*(cast("Mapping[str, Tensor]", state[part]) for part in ("masks", "held")))


@torch.no_grad()
def forget(optimiser: Optimizer, masks: Mapping[Tensor, Tensor]) -> None:
    """Set what the optimiser remembers of weights (tensors of their shape) to zero where the mask is False."""
    for weight, mask in masks.items():
        for value in optimiser.state.get(weight, {}).values():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                value.masked_fill_(~mask, 0.0)
