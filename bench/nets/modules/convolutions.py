"""Convolutions in unusual forms: grouped, transposed, dynamic, octave, deformable, three-dimensional."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .kind import Kind, between, classifier, normal, stem


class Octave(nn.Module):
    """Two resolutions, each fed by both (Chen et al., ICCV 2019)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.high, self.low = nn.Conv2d(half, half, 3, 1, 1), nn.Conv2d(half, half, 3, 1, 1)
        self.up, self.down = nn.Conv2d(half, half, 3, 1, 1), nn.Conv2d(half, half, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """From and to one tensor."""
        high, low = x.chunk(2, 1)
        low = F.avg_pool2d(low, 2)
        to_high = self.high(high) + F.interpolate(self.up(low), scale_factor=2)
        to_low = self.low(low) + self.down(F.avg_pool2d(high, 2))
        return torch.cat([to_high, F.interpolate(to_low, scale_factor=2)], 1)


class SlicedWeight(nn.Module):
    """One weight of which parts are convolved with (octave convolution as it is published)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, width, 3, 3) / (width * 9) ** 0.5)
        self.size = width // 2

    def forward(self, x: Tensor) -> Tensor:
        """Two halves of the rows and columns, apart."""
        h = self.size
        a = F.conv2d(x[:, :h], self.weight[:h, :h], padding=1)
        b = F.conv2d(x[:, h:], self.weight[h:, h:], padding=1)
        return torch.cat([a, b], 1)


class CondConv(nn.Module):
    """Experts mixed by each example's own routing, computed as groups over the batch (Yang et al., 2019)."""

    def __init__(self, width: int, experts: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(experts, width * width * 9) / (width * 9) ** 0.5)
        self.route, self.width = nn.Linear(width, experts), width

    def forward(self, x: Tensor) -> Tensor:
        """Grouped over the batch."""
        n, c, h, w = x.shape
        mixed = torch.sigmoid(self.route(x.mean((2, 3)))) @ self.weight
        weight = mixed.view(n * self.width, c, 3, 3)
        return F.conv2d(x.reshape(1, n * c, h, w), weight, padding=1, groups=n).view(n, self.width, h, w)


class DynamicConv(nn.Module):
    """Kernels added up by attention over them, outputs summed instead of weights (Chen et al., CVPR 2020)."""

    def __init__(self, width: int, kernels: int = 3) -> None:
        super().__init__()
        self.kernels = nn.ModuleList(nn.Conv2d(width, width, 3, 1, 1) for _ in range(kernels))
        self.attention = nn.Sequential(nn.Linear(width, 8), nn.ReLU(), nn.Linear(8, kernels))

    def forward(self, x: Tensor) -> Tensor:
        """The weighted sum."""
        share = self.attention(x.mean((2, 3))).softmax(-1)
        out = torch.zeros_like(x)
        for i, kernel in enumerate(self.kernels):
            out = out + share[:, i].view(-1, 1, 1, 1) * kernel(x)
        return out


class Ghost(nn.Module):
    """Half of the channels by a cheap depthwise convolution (Han et al., CVPR 2020)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.main = nn.Sequential(nn.Conv2d(width, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU())
        self.cheap = nn.Sequential(nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False), nn.BatchNorm2d(half))

    def forward(self, x: Tensor) -> Tensor:
        """Both halves."""
        main = self.main(x)
        return torch.cat([main, self.cheap(main)], 1)


class RepVGG(nn.Module):
    """Three branches summed in training (Ding et al., CVPR 2021)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.three, self.one = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.Conv2d(width, width, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """The sum of the branches."""
        a, b, c = self.norms
        return F.relu(a(self.three(x)) + b(self.one(x)) + c(x))


class RepFused(nn.Module):
    """The same branches summed as weights, in every call."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.three, self.one = nn.Conv2d(width, width, 3, 1, 1), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """One convolution of the summed weights."""
        weight = self.three.weight + F.pad(self.one.weight, (1, 1, 1, 1))
        bias = None if self.three.bias is None or self.one.bias is None else self.three.bias + self.one.bias
        return F.conv2d(x, weight, bias, padding=1)


class Deformable(nn.Module):
    """Nine samples at learnt offsets, then a 1x1 over all (deformable convolution with torch's own operators)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.offset, self.mix = nn.Conv2d(width, 18, 3, 1, 1), nn.Conv2d(9 * width, width, 1)

    def forward(self, x: Tensor) -> Any:
        """Sampled by ``grid_sample``."""
        n, _, h, w = x.shape
        ys, xs = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        base = torch.stack([xs, ys], -1).to(x)
        shifts = self.offset(x).view(n, 9, 2, h, w).permute(1, 0, 3, 4, 2)
        size = torch.tensor([w - 1, h - 1]).to(x)
        grids = ((base + shifts) / size * 2 - 1).unbind(0)
        return self.mix(torch.cat([F.grid_sample(x, g, align_corners=True) for g in grids], 1))


class Unfolded(nn.Module):
    """A convolution as im2col and a matrix product."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, width * 9) / (width * 9) ** 0.5)

    def forward(self, x: Tensor) -> Any:
        """Unfold, multiply, view."""
        n, _, h, w = x.shape
        return (self.weight @ F.unfold(x, 3, padding=1)).view(n, -1, h, w)


class Involution(nn.Module):
    """A kernel for every position, shared by groups of channels (Li et al., CVPR 2021)."""

    def __init__(self, width: int, groups: int = 4) -> None:
        super().__init__()
        self.reduce, self.span, self.groups = nn.Conv2d(width, 8, 1), nn.Conv2d(8, 9 * groups, 1), groups

    def forward(self, x: Tensor) -> Any:
        """Multiply windows by their own kernels."""
        n, c, h, w = x.shape
        kernel = self.span(self.reduce(x)).view(n, self.groups, 1, 9, h, w)
        windows = F.unfold(x, 3, padding=1).view(n, self.groups, c // self.groups, 9, h, w)
        return (kernel * windows).sum(3).view(n, c, h, w)


class Blur(nn.Module):
    """A fixed kernel repeated for every channel, from a buffer (anti-aliased pooling)."""

    taps: Tensor

    def __init__(self) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("taps", (row[:, None] * row[None] / 16)[None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Depthwise, with reflected edges."""
        kernel = self.taps.repeat(x.shape[1], 1, 1, 1)
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, stride=2, groups=x.shape[1])


class Expanded(nn.Module):
    """A learnt kernel expanded over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(1, 1, 3, 3) / 3)

    def forward(self, x: Tensor) -> Tensor:
        """Depthwise."""
        return F.conv2d(x, self.kernel.expand(x.shape[1], 1, 3, 3), padding=1, groups=x.shape[1])


class Separable(nn.Module):
    """Depthwise with a multiplier, then pointwise."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depth, self.point = nn.Conv2d(width, 2 * width, 3, 1, 1, groups=width), nn.Conv2d(2 * width, width, 1)

    def forward(self, x: Tensor) -> Any:
        """One after the other."""
        return self.point(F.relu(self.depth(x)))


class MixedKernels(nn.Module):
    """Splits of the channels, each depthwise with its own kernel size (MixConv)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = [width // 2, width // 4, width - width // 2 - width // 4]
        self.sizes = sizes
        self.parts = nn.ModuleList(
            nn.Conv2d(s, s, k, padding=k // 2, groups=s) for s, k in zip(sizes, (3, 5, 7), strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Split, convolve, join."""
        return torch.cat([part(y) for part, y in zip(self.parts, torch.split(x, self.sizes, 1), strict=True)], 1)


class Volume(nn.Module):
    """Three-dimensional convolutions with pooling and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(1, 16, 3, padding=1), nn.BatchNorm3d(16), nn.ReLU(), nn.MaxPool3d(2),
            nn.Conv3d(16, 32, 3, padding=1, groups=2), nn.GroupNorm(4, 32), nn.ReLU(), nn.ConvTranspose3d(32, 8, 2, 2),
        )  # fmt: skip
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Any:
        """Scores of the mean."""
        return self.head(self.body(x).mean((2, 3, 4)))


def _transposed(groups: int, width: int = 32) -> nn.Module:
    return between(nn.ConvTranspose2d(width, width, 4, 2, 1, groups=groups), width)


_PICTURE, _OTHER = normal((2, 3, 16, 16)), normal((1, 3, 24, 20))

KINDS = (
    Kind("conv_octave", lambda: between(Octave(32), 32), _PICTURE, _OTHER),
    Kind("conv_sliced_weight", lambda: between(SlicedWeight(32), 32), _PICTURE, _OTHER),
    Kind("conv_cond", lambda: between(CondConv(32), 32), _PICTURE, _OTHER),
    Kind("conv_dynamic", lambda: between(DynamicConv(32), 32), _PICTURE, _OTHER),
    Kind("conv_ghost", lambda: between(Ghost(32), 32), _PICTURE, _OTHER),
    Kind("conv_rep_branches", lambda: between(RepVGG(32), 32), _PICTURE, _OTHER),
    Kind("conv_rep_weights", lambda: between(RepFused(32), 32), _PICTURE, _OTHER),
    Kind("conv_deformable", lambda: between(Deformable(32), 32), _PICTURE, _OTHER),
    Kind("conv_unfolded", lambda: between(Unfolded(32), 32), _PICTURE, _OTHER),
    Kind("conv_involution", lambda: between(Involution(32), 32), _PICTURE, _OTHER),
    Kind("conv_blur_buffer", lambda: between(Blur(), 32), _PICTURE, _OTHER),
    Kind("conv_expanded_kernel", lambda: between(Expanded(), 32), _PICTURE, _OTHER),
    Kind("conv_separable_multiplier", lambda: between(Separable(32), 32), _PICTURE, _OTHER),
    Kind("conv_mixed_kernels", lambda: between(MixedKernels(32), 32), _PICTURE, _OTHER),
    Kind("conv_grouped", lambda: between(nn.Conv2d(32, 32, 3, 1, 1, groups=4), 32), _PICTURE, _OTHER),
    Kind("conv_dilated_asymmetric", lambda: between(nn.Conv2d(32, 32, (3, 5), 1, (2, 4), 2), 32), _PICTURE, _OTHER),
    Kind("conv_padding_same", lambda: between(nn.Conv2d(32, 32, 4, padding="same"), 32), _PICTURE, _OTHER),
    Kind("conv_padding_circular",
         lambda: between(nn.Conv2d(32, 32, 3, padding=1, padding_mode="circular"), 32), _PICTURE, _OTHER),
    Kind("conv_transposed", lambda: _transposed(1), _PICTURE, _OTHER),
    Kind("conv_transposed_grouped", lambda: _transposed(4), _PICTURE, _OTHER),
    Kind("conv_transposed_depthwise", lambda: _transposed(32), _PICTURE, _OTHER),
    Kind("conv_transposed_output_padding", lambda: between(nn.ConvTranspose2d(32, 32, 3, 2, 1, 1), 32), _PICTURE),
    Kind("conv_3d", Volume, normal((2, 1, 8, 8, 8)), normal((1, 1, 12, 8, 10))),
    Kind("conv_one_output", lambda: nn.Sequential(stem(16), stem(32, 16), nn.Conv2d(32, 1, 3, 1, 1)), _PICTURE, _OTHER),
    Kind("conv_classifier", lambda: classifier(nn.Conv2d(24, 48, 3, 2, 1), 24, 48), _PICTURE, _OTHER),
)  # fmt: skip
