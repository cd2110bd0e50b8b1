"""Batch norm scales in training: Liu et al., "Learning Efficient ConvNets through Network Slimming", ICCV 2017."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import Optimizer

from secateur.ir import InputError

from .group_lasso import Method, check_method
from .hook import Hook, rates
from .weights import batch_norms


class BatchNormL1(Hook):
    """Add ``strength`` times the sum of the absolute batch norm scales to the loss (network slimming, ICCV 2017).

    "subgradient" as in the paper: strength * sign(scale) joins the gradient, 0 at 0; nothing becomes exactly zero.
    "proximal": after a step of rate r, scale <- sign(scale) * max(|scale| - r * strength, 0): exact zeros. A channel of
    scale zero emits its shift: ``fold_constants`` before the cut gives it to what reads it. The paper starts all scales
    at 0.5 (``initialise``).
    """

    def __init__(self, module: nn.Module, strength: float, method: Method = "subgradient") -> None:
        """Raises InputError where the module has no batch norm with a scale."""
        check_method(method, strength)
        self.scales = [norm.weight for norm in batch_norms(module).values()]
        if not self.scales:
            raise InputError(
                "network slimming trains batch norm scales, and this module has none (they may be folded into the "
                "convolutions); use GroupLasso"
            )
        self.strength, self.method = strength, method

    @torch.no_grad()
    def initialise(self, scale: float = 0.5) -> None:
        """Start all scales there, before training."""
        for weight in self.scales:
            weight.fill_(scale)

    @torch.no_grad()
    def before_step(self, optimiser: Optimizer) -> None:
        if self.method == "subgradient":
            for weight in self.scales:
                if weight.grad is not None:
                    weight.grad.add_(weight.sign(), alpha=self.strength)

    @torch.no_grad()
    def after_step(self, optimiser: Optimizer) -> None:
        if self.method == "proximal":
            known = rates(optimiser)
            for weight in self.scales:
                by = known.get(weight, 0.0) * self.strength
                weight.copy_(torch.where(weight.abs() <= by, torch.zeros_like(weight), weight - by * weight.sign()))

    def penalty(self) -> float:
        """What is added to the loss: for a report, not for ``backward``."""
        return self.strength * sum(float(weight.detach().double().abs().sum()) for weight in self.scales)
