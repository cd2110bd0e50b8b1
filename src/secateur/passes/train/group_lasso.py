"""Group lasso in training: Wen et al., "Learning Structured Sparsity in Deep Neural Networks", NIPS 2016."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from secateur.ir import InputError

from .hook import Hook, rates
from .weights import Form, Layer, check_forms, forms_of, grouped, layers, norms, reduced, ungrouped, weight_of

Method = Literal["proximal", "subgradient"]
METHODS = ("proximal", "subgradient")


class GroupLasso(Hook):
    """Add ``strength`` times the sum of the Euclidean norms of groups of weights to the loss (Wen et al. 2016).

    ``forms``: "filter" W[n] and "channel" W[:, c], which the paper takes together; "shape" W[:, c, y, x], columns of
    the lowered convolution; "depth", the whole weight of ``names``, around which shortcuts must lead. Convolutions with
    groups have channels and shapes in each of their groups. Biases and norms are left alone.

    "proximal": after a step of rate r, w <- w * max(0, 1 - r * strength / |w|): exact zeros, the exact step for one
    form and, one after the other, an approximation for two whose groups overlap. "subgradient" as in the authors' code:
    strength * w / |w| joins the gradient (0 at w = 0), and what is smaller than ``threshold`` after the step becomes
    zero. ``by_size`` weighs each norm by the root of the group's size; the paper does not.
    """

    def __init__(
        self,
        module: nn.Module,
        strength: float,
        forms: Sequence[Form] = ("filter", "channel"),
        names: Sequence[str] | None = None,
        method: Method = "proximal",
        by_size: bool = False,
        threshold: float = 1e-4,
    ) -> None:
        """Raises InputError for forms, names and numbers that make no sense."""
        check_forms(forms, names)
        check_method(method, strength)
        self.layers = layers(module, names)
        self.strength, self.forms, self.method = strength, tuple(forms), method
        self.by_size, self.threshold = by_size, threshold

    def before_step(self, optimiser: Optimizer) -> None:
        if self.method != "subgradient":
            return
        for layer in self.layers.values():
            for form in forms_of(layer, self.forms):
                self._descend(layer, form)

    @torch.no_grad()
    def after_step(self, optimiser: Optimizer) -> None:
        if self.method == "subgradient":
            for layer in self.layers.values():
                weight = weight_of(layer)
                weight.masked_fill_(weight.abs() < self.threshold, 0.0)
            return
        known = rates(optimiser)
        for layer in self.layers.values():
            rate = known.get(weight_of(layer), 0.0)  # what this optimiser does not move, it does not shrink
            for form in forms_of(layer, self.forms):
                view = grouped(layer)
                shrink(view, norms(view, form), rate * self.strength * self._size(view, form))

    def penalty(self) -> float:
        """What is added to the loss: for a report, not for ``backward``."""
        found = 0.0
        for layer in self.layers.values():
            view = grouped(layer)
            for form in forms_of(layer, self.forms):
                found += self._size(view, form) * float(norms(view, form).double().sum())
        return self.strength * found

    def zero_groups(self, form: Form) -> dict[str, float]:
        """By layer, the share of the groups of this form that are exactly zero."""
        return {name: float((norms(grouped(layer), form) == 0).double().mean()) for name, layer in self.layers.items()}

    @torch.no_grad()
    def _descend(self, layer: Layer, form: Form) -> None:
        weight = weight_of(layer)
        if weight.grad is None:
            return
        view = grouped(layer)
        size = norms(view, form)
        step = view / torch.where(size > 0, size, 1.0) * (self.strength * self._size(view, form))
        weight.grad.add_(ungrouped(step, layer))

    def _size(self, view: Tensor, form: Form) -> float:
        return math.sqrt(math.prod(view.shape[axis] for axis in reduced(view, form))) if self.by_size else 1.0


@torch.no_grad()
def shrink(view: Tensor, size: Tensor, by: float) -> None:
    """The proximal step of ``by`` times the norm, in place; ``size`` are the groups' norms. At ``by`` or less: zero.

    Weights that are not finite stay as they are, so that whoever looks at them sees it.
    """
    if by > 0:
        view.mul_(torch.where(size <= by, torch.zeros_like(size), 1 - by / torch.where(size > 0, size, 1.0)))


def check_method(method: str, strength: float) -> None:
    """Raises InputError for an unknown method or a strength that is not a number from 0."""
    if method not in METHODS:
        raise InputError(f"there is no method '{method}'; take {' or '.join(METHODS)}")
    if not 0 <= strength < float("inf"):
        raise InputError(f"strength is {strength:g}; give a number from 0 up")
