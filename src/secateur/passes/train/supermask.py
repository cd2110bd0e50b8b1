"""Masks that are trained while weights stay as they were drawn: supermasks (Zhou et al. 2019), edge-popup (2020)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .weights import check_share, keep_largest, layers, path_of, weight_of


class Bernoulli(nn.Module):
    """weight * sample of Bernoulli(sigmoid(logit)), drawn at each forward; the gradient passes the sample by.

    ``rescale``: times number of weights over number of ones, as a constant (dynamic weight rescaling).
    """

    def __init__(self, weight: Tensor, logit: float, rescale: bool) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.full_like(weight, logit))
        self.rescale = rescale

    def mask(self) -> Tensor:
        """A sample: zeros and ones, with the gradient of their probabilities."""
        chance = torch.sigmoid(self.scores)
        return (torch.rand_like(chance) < chance).to(chance.dtype) + chance - chance.detach()

    def ones(self) -> float:
        """How many are expected."""
        return float(torch.sigmoid(self.scores.detach()).sum())

    def forward(self, weight: Tensor) -> Tensor:
        mask = self.mask()
        ones = float(mask.detach().sum())
        return weight * mask * (mask.numel() / max(ones, 1.0) if self.rescale else 1.0)


class Popup(nn.Module):
    """weight * mask of the largest absolute scores: exactly n - int((1 - density) n) ones; all scores learn."""

    def __init__(self, weight: Tensor, density: float) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.empty_like(weight))
        nn.init.kaiming_uniform_(self.scores, a=math.sqrt(5))
        self.count = weight.numel() - int((1 - density) * weight.numel() + 1e-9)

    def mask(self) -> Tensor:
        """Zeros and ones, with the gradient of the absolute scores."""
        size = self.scores.abs()
        return keep_largest(size.detach(), self.count).to(size.dtype) + size - size.detach()

    def ones(self) -> float:
        """How many there are."""
        return float(self.count)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask()


class Supermask:
    """A network whose layers are masked by what is trained in place of their weights.

    Optimise ``parameters()`` alone: weights no longer take gradients. ``settle`` ends it: the layers keep their weights
    under one mask, as plain weights.
    """

    def __init__(self, module: nn.Module, parts: dict[str, Bernoulli | Popup]) -> None:
        self.module, self.parts = module, parts

    def parameters(self) -> Iterator[nn.Parameter]:
        """The scores that are trained."""
        return (part.scores for part in self.parts.values())

    @torch.no_grad()
    def masks(self) -> dict[str, Tensor]:
        """bool masks by the names that the weights had: of supermasks a sample, of edge-popup the mask."""
        return {name: part.mask() > 0.5 for name, part in self.parts.items()}

    def density(self) -> float:
        """The share of ones that is expected."""
        parts = list(self.parts.values())
        ones = sum(part.ones() for part in parts)
        return ones / max(sum(p.scores.numel() for p in parts), 1)

    @torch.no_grad()
    def average(self, x: Tensor, samples: int = 10) -> Tensor:
        """The mean of the outputs over so many masks, as the paper measures accuracy."""
        outputs: list[Tensor] = [self.module(x) for _ in range(samples)]
        return torch.stack(outputs).mean(0)

    def settle(self) -> None:
        """Plain weights again, as they are under one mask."""
        for name in self.parts:
            layer = self.module.get_submodule(name.rpartition(".")[0])
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def supermask(
    module: nn.Module,
    rescale: bool = True,
    constant: bool = False,
    logit: float = 0.0,
    names: Sequence[str] | None = None,
) -> Supermask:
    """Train a mask of each layer's weights by stochastic gates (Zhou et al., "Deconstructing Lottery Tickets", 2019).

    ``constant``: weights become sign(w) times the standard deviation of their layer first, as the paper does;
    ``rescale``: dynamic weight rescaling; ``logit``: where all gates start (0: every second weight).
    """
    chosen = layers(module, names)
    if constant:
        with torch.no_grad():
            for layer in chosen.values():
                weight = weight_of(layer)
                weight.copy_(weight.sign() * weight.std(correction=0))
    return _masked(module, {name: Bernoulli(weight_of(m).detach(), logit, rescale) for name, m in chosen.items()})


def edge_popup(module: nn.Module, density: float, names: Sequence[str] | None = None) -> Supermask:
    """Train scores whose largest choose the weights (Ramanujan et al., "What's Hidden in a Randomly Weighted
    Network?").

    Every layer keeps the share ``density`` of its weights, exactly. Raises InputError for a share that is none.
    """
    check_share(density, "density")
    chosen = layers(module, names)
    return _masked(module, {name: Popup(weight_of(m).detach(), density) for name, m in chosen.items()})


def _masked(module: nn.Module, parts: dict[str, Bernoulli] | dict[str, Popup]) -> Supermask:
    found: dict[str, Bernoulli | Popup] = {}
    for name, part in parts.items():
        layer = module.get_submodule(name)
        weight_of(layer).requires_grad_(False)
        parametrize.register_parametrization(layer, "weight", part, unsafe=True)
        found[path_of(name)] = part
    return Supermask(module, found)
