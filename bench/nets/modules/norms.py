"""Normalisations, activations and pooling, torch's own and written out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .kind import Apply, Kind, between, normal


class ChannelNorm(nn.Module):
    """Layer norm over the channels of a picture, permuted (ConvNeXt) or written out."""

    def __init__(self, width: int, permuted: bool) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(width) + 0.5), nn.Parameter(torch.randn(width))
        self.permuted = permuted

    def forward(self, x: Tensor) -> Tensor:
        """Of pictures."""
        if self.permuted:
            y = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias)
            return y.permute(0, 3, 1, 2)
        mean = x.mean(1, keepdim=True)
        spread = (x - mean).pow(2).mean(1, keepdim=True)
        return (x - mean) / torch.sqrt(spread + 1e-6) * self.weight[:, None, None] + self.bias[:, None, None]


class Response(nn.Module):
    """Global response normalisation (ConvNeXt v2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(1, width, 1, 1)), nn.Parameter(torch.randn(1, width, 1, 1))

    def forward(self, x: Tensor) -> Any:
        """Of pictures."""
        size = torch.norm(x, p=2, dim=(2, 3), keepdim=True)
        return self.weight * (x * size / (size.mean(1, keepdim=True) + 1e-6)) + self.bias + x


class Filtered(nn.Module):
    """Filter response normalisation with its thresholded unit."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias, self.floor = (nn.Parameter(torch.rand(1, width, 1, 1)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """Of pictures."""
        square = x.pow(2).mean((2, 3), keepdim=True)
        return torch.max(self.weight * x * torch.rsqrt(square + 1e-6) + self.bias, self.floor)


class LayerScale(nn.Module):
    """A block whose result is scaled channel by channel before the shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depth, self.norm = nn.Conv2d(width, width, 7, 1, 3, groups=width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.rand(width))

    def forward(self, x: Tensor) -> Any:
        """Channels last inside."""
        y = self.norm(self.depth(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.down(F.gelu(self.up(y)))).permute(0, 3, 1, 2)


class Maxout(nn.Module):
    """The larger of two halves, and concatenated rectifiers."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form

    def forward(self, x: Tensor) -> Tensor:
        """Half or twice as many channels, or as many."""
        if self.form == "max":
            n, c, h, w = x.shape
            return x.view(n, c // 2, 2, h, w).max(2)[0]
        if self.form == "both":
            return F.relu(torch.cat([x, -x], 1))
        a, b = x.chunk(2, 1)
        return a * b if self.form == "product" else F.glu(x, 1)


class Pyramid(nn.Module):
    """Pooled at several sizes, resized and joined (PSPNet)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Conv2d(width, width // 4, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Twice as many channels."""
        found = [x]
        for size, part in zip((1, 2, 4, 8), self.parts, strict=True):
            y = part(F.adaptive_avg_pool2d(x, size))
            found.append(F.interpolate(y, size=x.shape[2:], mode="bilinear", align_corners=False))
        return torch.cat(found, 1)


class GeM(nn.Module):
    """Generalised mean pooling with a learnt power."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Tensor) -> Tensor:
        """One number a channel, at every position of the input again."""
        mean = x.clamp(min=1e-6).pow(self.p).mean((2, 3), keepdim=True).pow(1 / self.p)
        return x + mean


class Unpooled(nn.Module):
    """Max pooling with indices and unpooling (SegNet)."""

    def forward(self, x: Tensor) -> Any:
        """The maxima at their places."""
        y, index = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(y, index, [2, 2])


def _simple(block: nn.Module, after: int = 32) -> nn.Module:
    return between(nn.Sequential(nn.Conv2d(32, 32, 3, 1, 1), block), 32, after)


_P, _O = normal((2, 3, 16, 16)), normal((1, 3, 24, 20))

KINDS = (
    Kind("norm_group", lambda: _simple(nn.GroupNorm(8, 32)), _P, _O),
    Kind("norm_group_one", lambda: _simple(nn.GroupNorm(1, 32)), _P, _O),
    Kind("norm_instance", lambda: _simple(nn.InstanceNorm2d(32)), _P, _O),
    Kind("norm_instance_tracked",
         lambda: _simple(nn.InstanceNorm2d(32, affine=True, track_running_stats=True)), _P, _O),
    Kind("norm_layer_permuted", lambda: _simple(ChannelNorm(32, True)), _P, _O),
    Kind("norm_layer_by_hand", lambda: _simple(ChannelNorm(32, False)), _P, _O),
    Kind("norm_layer_whole", lambda: _simple(nn.LayerNorm([32, 16, 16])), _P),
    Kind("norm_response", lambda: _simple(Response(32)), _P, _O),
    Kind("norm_filter_response", lambda: _simple(Filtered(32)), _P, _O),
    Kind("norm_local_response", lambda: _simple(nn.LocalResponseNorm(5)), _P, _O),
    Kind("norm_batch_without_affine", lambda: _simple(nn.BatchNorm2d(32, affine=False)), _P, _O),
    Kind("norm_batch_of_the_batch", lambda: _simple(nn.BatchNorm2d(32, track_running_stats=False)), _P, _O),
    Kind("norm_l2", lambda: _simple(Apply(lambda x: F.normalize(x, dim=1))), _P, _O),
    Kind("norm_pixel",
         lambda: _simple(Apply(lambda x: x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-8))), _P, _O),
    Kind("layer_scale", lambda: _simple(LayerScale(32)), _P, _O),
    Kind("activation_prelu", lambda: _simple(nn.PReLU(32)), _P, _O),
    Kind("activation_prelu_one", lambda: _simple(nn.PReLU()), _P, _O),
    Kind("activation_various",
         lambda: _simple(nn.Sequential(nn.Mish(), nn.Hardswish(), nn.ELU(), nn.Softplus(), nn.SELU(), nn.CELU(),
                                       nn.Softsign(), nn.Hardtanh(), nn.ReLU6(), nn.Tanhshrink())), _P, _O),
    Kind("activation_over_channels", lambda: _simple(nn.Softmax(1)), _P, _O),
    Kind("activation_softmax_2d", lambda: _simple(nn.Softmax2d()), _P, _O),
    Kind("activation_threshold", lambda: _simple(nn.Threshold(0.1, 0.2)), _P, _O),
    Kind("activation_maxout", lambda: _simple(Maxout("max"), 16), _P, _O),
    Kind("activation_concatenated", lambda: _simple(Maxout("both"), 64), _P, _O),
    Kind("activation_simple_gate", lambda: _simple(Maxout("product"), 16), _P, _O),
    Kind("activation_glu", lambda: _simple(Maxout("glu"), 16), _P, _O),
    Kind("pool_pyramid", lambda: _simple(Pyramid(32), 64), _P, _O),
    Kind("pool_generalised_mean", lambda: _simple(GeM()), _P, _O),
    Kind("pool_power", lambda: _simple(nn.LPPool2d(2, 2)), _P, _O),
    Kind("pool_unpooled", lambda: _simple(Unpooled()), _P, _O),
    Kind("pool_ceil", lambda: _simple(nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False)), _P, _O),
    Kind("pool_adaptive_max", lambda: _simple(nn.AdaptiveMaxPool2d(4)), _P, _O),
)  # fmt: skip
