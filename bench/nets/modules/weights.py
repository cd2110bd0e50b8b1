"""Weights that are computed, shared, masked, normalised, quantised in training, or added to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from .kind import Kind, between, normal


class LowRank(nn.Module):
    """A frozen layer with a product of two thin ones added, as outputs or as weights (LoRA)."""

    def __init__(self, width: int, merged: bool) -> None:
        super().__init__()
        self.base = nn.Linear(width, width)
        self.a, self.b = nn.Parameter(torch.randn(4, width) / 4), nn.Parameter(torch.randn(width, 4) / 4)
        self.merged = merged

    def forward(self, x: Tensor) -> Any:
        """Of tokens."""
        if self.merged:
            return F.linear(x, self.base.weight + 0.5 * (self.b @ self.a), self.base.bias)
        return self.base(x) + 0.5 * (x @ self.a.t() @ self.b.t())


class Standardised(nn.Conv2d):
    """Weights with mean zero and variance one in every filter."""

    def forward(self, input: Tensor) -> Tensor:
        """As a convolution."""
        w = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        w = w / (w.flatten(1).std(1).view(-1, 1, 1, 1) + 1e-5)
        return F.conv2d(input, w, self.bias, self.stride, self.padding)


class Equalised(nn.Conv2d):
    """Weights scaled by a constant in every call (progressive GANs)."""

    def forward(self, input: Tensor) -> Tensor:
        """As a convolution."""
        return F.conv2d(input, self.weight * 0.3, self.bias, self.stride, self.padding)


class Quantised(nn.Conv2d):
    """Weights rounded in training, with a straight-through gradient."""

    def forward(self, input: Tensor) -> Tensor:
        """As a convolution."""
        step = self.weight.abs().amax((1, 2, 3), keepdim=True) / 127
        rounded = torch.round(self.weight / step) * step
        return F.conv2d(input, self.weight + (rounded - self.weight).detach(), self.bias, padding=self.padding)


class Binary(nn.Conv2d):
    """Signs of weights, times their mean (XNOR-Net)."""

    def forward(self, input: Tensor) -> Tensor:
        """As a convolution."""
        scale = self.weight.abs().mean((1, 2, 3), keepdim=True)
        return F.conv2d(input, self.weight.sign() * scale, self.bias, padding=self.padding)


class Symmetric(nn.Module):
    """A parametrisation: the weight is what it is, made symmetric."""

    def forward(self, x: Tensor) -> Tensor:
        """The mean of the matrix and its transpose."""
        return (x + x.transpose(0, 1)) / 2


class Cosine(nn.Module):
    """A classifier by angles between normalised features and normalised classes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body, self.classes = nn.Conv2d(3, width, 3, 1, 1), nn.Parameter(torch.randn(10, width))
        self.inner = nn.Conv2d(width, width, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Angles, times a temperature."""
        y = self.inner(F.relu(self.body(x))).mean((2, 3))
        return 16 * F.linear(F.normalize(y), F.normalize(self.classes))


class Twice(nn.Module):
    """One layer used at two places."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(width, width, 3, 1, 1)

    def forward(self, x: Tensor) -> Any:
        """A recurrence of two steps."""
        return self.layer(F.relu(self.layer(x)))


class Tied(nn.Module):
    """An autoencoder whose decoder is the transposed encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(32, 48), nn.Linear(48, 16)
        self.back = nn.Parameter(torch.zeros(48))

    def forward(self, x: Tensor) -> Tensor:
        """The input, restored."""
        code = self.second(F.relu(self.first(x)))
        return F.linear(F.relu(F.linear(code, self.second.weight.t(), self.back)), self.first.weight.t())


class Hyper(nn.Module):
    """Weights of a layer made by another network from an embedding of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.code, self.make = nn.Parameter(torch.randn(8)), nn.Linear(8, width * width * 9)
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """As a convolution."""
        return F.conv2d(x, self.make(self.code).view(self.width, self.width, 3, 3) * 0.1, padding=1)


class Gabor(nn.Module):
    """Filters computed from a few numbers each (SincNet, Gabor layers)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rate, self.width = nn.Parameter(torch.rand(width, 3, 1, 1)), width

    def forward(self, x: Tensor) -> Tensor:
        """As a convolution."""
        at = torch.linspace(-1, 1, 5)
        kernel = torch.cos(self.rate * 6 * at) * torch.exp(-(at**2)) * torch.exp(-(at[:, None] ** 2))
        return F.conv2d(x, kernel, padding=2)


class Sparse(nn.Module):
    """A mask in a buffer, multiplied onto the weight by hand."""

    mask: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(width, width, 3, 1, 1)
        self.register_buffer("mask", (torch.rand(width, width, 3, 3) > 0.5).float())

    def forward(self, x: Tensor) -> Tensor:
        """As a convolution."""
        return F.conv2d(x, self.layer.weight * self.mask, self.layer.bias, padding=1)


class Tokens(nn.Module):
    """A block between two layers over tokens."""

    def __init__(self, block: nn.Module, width: int = 32) -> None:
        super().__init__()
        self.first, self.block, self.last = nn.Linear(16, width), block, nn.Linear(width, 10)
        self.middle = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Any:
        """Scores of each token."""
        return self.last(F.relu(self.middle(F.relu(self.block(F.relu(self.first(x)))))))


def _pruned() -> nn.Module:
    layer = nn.Conv2d(32, 32, 3, 1, 1)
    prune.l1_unstructured(layer, "weight", 0.5)  # type: ignore[no-untyped-call]
    prune.random_unstructured(layer, "bias", 0.25)  # type: ignore[no-untyped-call]
    return layer


def _symmetric() -> nn.Module:
    layer = nn.Linear(32, 32)
    parametrize.register_parametrization(layer, "weight", Symmetric())
    return layer


def _filters() -> nn.Module:
    return nn.Sequential(Gabor(32), nn.ReLU(), _conv(), nn.ReLU(), nn.Conv2d(32, 8, 1))


def _conv() -> nn.Conv2d:
    return nn.Conv2d(32, 32, 3, 1, 1)


_P, _O = normal((2, 3, 16, 16)), normal((1, 3, 24, 20))
_T, _L = normal((2, 6, 16)), normal((1, 9, 16))

KINDS = (
    Kind("weight_norm", lambda: between(weight_norm(_conv()), 32), _P, _O),
    Kind("weight_norm_parametrised", lambda: between(parametrizations.weight_norm(_conv()), 32), _P, _O),
    Kind("weight_norm_transposed",
         lambda: between(parametrizations.weight_norm(nn.ConvTranspose2d(32, 32, 4, 2, 1)), 32), _P, _O),
    Kind("weight_spectral", lambda: between(spectral_norm(_conv()), 32), _P, _O),
    Kind("weight_spectral_parametrised", lambda: between(parametrizations.spectral_norm(_conv()), 32), _P, _O),
    Kind("weight_orthogonal", lambda: Tokens(parametrizations.orthogonal(nn.Linear(32, 32))), _T, _L),
    Kind("weight_symmetric", lambda: Tokens(_symmetric()), _T, _L),
    Kind("weight_pruned", lambda: between(_pruned(), 32), _P, _O),
    Kind("weight_masked", lambda: between(Sparse(32), 32), _P, _O),
    Kind("weight_standardised", lambda: between(Standardised(32, 32, 3, 1, 1), 32), _P, _O),
    Kind("weight_equalised", lambda: between(Equalised(32, 32, 3, 1, 1), 32), _P, _O),
    Kind("weight_quantised", lambda: between(Quantised(32, 32, 3, 1, 1), 32), _P, _O),
    Kind("weight_binary", lambda: between(Binary(32, 32, 3, 1, 1), 32), _P, _O),
    Kind("weight_low_rank", lambda: Tokens(LowRank(32, False)), _T, _L),
    Kind("weight_low_rank_merged", lambda: Tokens(LowRank(32, True)), _T, _L),
    Kind("weight_cosine", lambda: Cosine(32), _P, _O),
    Kind("weight_shared_layer", lambda: between(Twice(32), 32), _P, _O),
    Kind("weight_tied", Tied, normal((3, 32))),
    Kind("weight_made", lambda: between(Hyper(32), 32), _P, _O),
    Kind("weight_filters", _filters, _P, _O),
)  # fmt: skip
