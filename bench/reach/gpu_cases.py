"""A case for every kernel of the GPU backend, and what is special about it: small modules with drawn weights.

Most are those of ``emulated_cases``; what those check about vectors of four lanes are other shapes here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .emulated_cases import CASES, RGB, Apply, Case, First, conv, sequence, sparse

# By case of ``emulated_cases`` the families that its library has on a GPU.
SAME: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "dense 1x1": ("conv",), "dense 3x3, stride 2": ("conv",), "dense 5x5, odd widths": ("conv",),
        "image of three channels": ("conv",), "signal": ("conv",), "depthwise": ("conv",),
        "depthwise 5x5, stride 2": ("conv",), "groups of 2": ("conv",), "groups of 4": ("conv",),
        "groups of 5 to 10": ("conv",), "groups of 8, 1x1": ("conv",), "groups of 16": ("conv",),
        "block-sparse 1x1": ("block_sparse",), "block-sparse 3x3": ("block_sparse",),
        "block-sparse, stride 2": ("block_sparse",), "shuffle, split, concat": ("conv",),
        "gates and residuals": ("conv", "elementwise"), "transposed": ("conv",),
        "pools": ("window", "elementwise"), "linear layers": ("conv", "rows"), "attention": ("matmul", "rows"),
        "LSTM": ("recurrent",), "GRU": ("recurrent",),
        "group norm": ("norms",), "instance norm": ("norms",), "resize": ("resize",), "activations": ("elementwise",),
        "moves": ("copies",),
    }
)  # fmt: skip


def _permuted(x: Tensor) -> Tensor:
    """A residual between a value and its own channels in another order: they are copied to be added."""
    n, c, h, w = x.shape
    return F.relu(x) + x.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def _reductions(x: Tensor) -> Tensor:
    """Over the channels of many pixels, where each work item has one of its own."""
    return x.softmax(1) + x.mean(1, keepdim=True) - x.amax(1, keepdim=True) + x.log_softmax(1)


GPU_CASES: Mapping[str, Case] = MappingProxyType(
    {
        **{name: Case(CASES[name].make, CASES[name].shapes, families) for name, families in SAME.items()},
        "dilated 3x3": Case(lambda: nn.Conv2d(20, 9, 3, padding=2, dilation=2), ((1, 20, 9, 8),), ("conv",)),
        "padded on one side": Case(
            lambda: nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(5, 33, 3, 2)), ((1, 5, 8, 8),), ("conv",)
        ),
        "tiles of 128x128": Case(conv(136, 130, 1), ((1, 3, 12, 12),), ("conv",)),
        "block-sparse linear": Case(sparse(lambda: nn.Linear(1024, 518)), ((3, 1024),), ("block_sparse",)),
        "few tiles, deep": Case(
            sequence(lambda: nn.Conv2d(190, 40, 3, padding=1), nn.ReLU), ((1, 190, 4, 5),), ("conv",)
        ),
        "transposed, depthwise": Case(
            lambda: nn.ConvTranspose2d(6, 6, 3, 2, 1, groups=6), ((1, 6, 5, 4),), ("conv",)
        ),
        "rows of many pixels": Case(lambda: Apply(_reductions), ((1, 7, 17, 16),), ("rows",)),
        "channels in another order": Case(lambda: Apply(_permuted), ((1, 8, 5, 6),), ("elementwise", "copies")),
        "mean of counted pixels": Case(
            lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False), (RGB,), ("window",)
        ),
        "linear, many rows": Case(
            sequence(lambda: nn.Linear(24, 40), nn.Tanh, lambda: nn.RMSNorm(40)), ((2, 9, 24),), ("conv", "rows")
        ),
    }
)  # fmt: skip


# Of every kernel one that is tiny: Oclgrind takes a second for a hundred thousand products.
TINY: Mapping[str, Case] = MappingProxyType(
    {
        "tile, 1x1": Case(lambda: nn.Conv2d(19, 33, 1), ((1, 19, 3, 4),), ("conv",)),
        "tile, taps in turn": Case(lambda: nn.Conv2d(3, 5, 3, 2, 1), ((1, 3, 5, 4),), ("conv",)),
        "tile, tap by tap": Case(lambda: nn.Conv2d(33, 6, (1, 3), padding=(0, 1)), ((1, 33, 2, 3),), ("conv",)),
        "groups": Case(lambda: nn.Conv2d(18, 18, 1, groups=2), ((1, 18, 3, 3),), ("conv",)),
        "direct": Case(lambda: nn.Conv2d(6, 9, 3, padding=1, groups=3), ((2, 6, 4, 3),), ("conv",)),
        "sum": Case(lambda: nn.Linear(70, 3), ((2, 70),), ("conv",)),
        "block-sparse": Case(sparse(lambda: nn.Conv2d(32, 34, 3, 1, 1), 0.93), ((1, 32, 3, 4),), ("block_sparse",)),
        "block-sparse, 1x1": Case(
            sparse(lambda: nn.Conv2d(32, 32, 1, bias=False)), ((2, 32, 3, 2),), ("block_sparse",)
        ),
        "block-sparse sum": Case(sparse(lambda: nn.Linear(500, 98), 0.9), ((2, 500),), ("block_sparse",)),
        "transposed": Case(lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, groups=2), ((1, 4, 3, 3),), ("conv",)),
        "mean": Case(lambda: nn.AdaptiveAvgPool2d(1), ((1, 3, 7, 6),), ("elementwise",)),
        "pools": Case(
            sequence(lambda: nn.MaxPool2d(3, 2, 1), lambda: nn.AvgPool2d(2, 1, 1, count_include_pad=False)),
            ((1, 3, 6, 5),), ("window",),
        ),
        "softmax": Case(lambda: nn.Softmax(1), ((2, 11),), ("rows",)),
        "rows": Case(lambda: Apply(lambda x: x.softmax(1) + x.mean(1, keepdim=True)), ((1, 3, 16, 17),), ("rows",)),
        "layer norm": Case(lambda: nn.LayerNorm(13), ((1, 3, 13),), ("rows",)),
        "group norm": Case(lambda: nn.GroupNorm(2, 6), ((1, 6, 4, 5),), ("norms",)),
        "product": Case(lambda: Apply(lambda x, y: x @ y), ((2, 5, 17), (2, 17, 4)), ("matmul",)),
        "LSTM": Case(lambda: First(nn.LSTM(3, 4)), ((3, 2, 3),), ("recurrent",)),
        "GRU": Case(lambda: First(nn.GRU(3, 35)), ((2, 1, 3),), ("recurrent",)),
        "resize": Case(lambda: nn.Upsample(scale_factor=2, mode="bilinear"), ((1, 2, 3, 4),), ("resize",)),
        "moves": Case(CASES["moves"].make, ((1, 3, 4, 5),), ("copies",)),
        "another order": Case(lambda: Apply(_permuted), ((1, 4, 3, 3),), ("copies",)),
    }
)  # fmt: skip


class Together(nn.Module):
    """Cases side by side in one network: one library has all of their kernels, and is compiled once."""

    def __init__(self, cases: Sequence[Case]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(case.module() for case in cases)
        self.counts = [len(case.shapes) for case in cases]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        given, found = list(inputs), []
        for part, count in zip(self.parts, self.counts, strict=True):
            found.append(part(*given[:count]))
            del given[:count]
        return tuple(found)


def together(names: Sequence[str]) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """One network of these cases, and its inputs."""
    cases = [GPU_CASES.get(name) or TINY[name] for name in names]
    with torch.no_grad():
        return Together(cases).eval(), tuple(x for case in cases for x in case.inputs())
