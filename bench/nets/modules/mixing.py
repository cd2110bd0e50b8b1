"""Operators between layers: products, reductions, indexing, sorting, graphs and points."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .kind import Apply, Kind, between, normal


class Bilinear(nn.Module):
    """Two branches joined by a bilinear layer, or by their outer product."""

    def __init__(self, outer: bool) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(12, 16), nn.Linear(12, 24)
        self.join, self.outer = nn.Bilinear(16, 24, 32), outer
        self.last = nn.Linear(16 * 24 if outer else 32, 5)

    def forward(self, x: Tensor) -> Any:
        """Scores."""
        a, b = F.relu(self.a(x)), F.relu(self.b(x))
        return self.last(torch.einsum("ni,nj->nij", a, b).flatten(1) if self.outer else F.relu(self.join(a, b)))


class Mixer(nn.Module):
    """Layers over tokens and layers over channels in turn (MLP-Mixer)."""

    def __init__(self, tokens: int = 16, width: int = 32) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 4, 4)
        self.one, self.two = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(tokens, 24), nn.GELU(), nn.Linear(24, tokens))
        self.channels = nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width))
        self.last = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Any:
        """Scores of the mean token."""
        x = self.first(x).flatten(2).transpose(1, 2)
        x = x + self.tokens(self.one(x).transpose(1, 2)).transpose(1, 2)
        return self.last((x + self.channels(self.two(x))).mean(1))


class Points(nn.Module):
    """A shared network on points, their maximum, joined to each again (PointNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(3, 32, 1), nn.Conv1d(32, 48, 1)
        self.c, self.d = nn.Conv1d(96, 32, 1), nn.Conv1d(32, 4, 1)

    def forward(self, x: Tensor) -> Any:
        """Scores of each point."""
        y = F.relu(self.b(F.relu(self.a(x))))
        whole = y.max(2, keepdim=True)[0].expand(-1, -1, x.shape[2])
        return self.d(F.relu(self.c(torch.cat([y, whole], 1))))


class Message(nn.Module):
    """Features passed along a given adjacency (GCN)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 32), nn.Linear(32, 24), nn.Linear(24, 4)

    def forward(self, x: Tensor, near: Tensor) -> Any:
        """Scores of each vertex."""
        near = near.softmax(-1)
        return self.c(F.relu(near @ self.b(F.relu(near @ self.a(x)))))


class Experts(nn.Module):
    """Experts chosen by a gate, all computed and weighted (mixture of experts)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate = nn.Linear(12, 24), nn.Linear(24, 3)
        self.a, self.b = nn.Parameter(torch.randn(3, 24, 32) / 5), nn.Parameter(torch.randn(3, 32, 24) / 5)
        self.last = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Any:
        """Scores."""
        y = F.relu(self.first(x))
        found = torch.einsum("neh,ehd->ned", F.relu(torch.einsum("nd,edh->neh", y, self.a)), self.b)
        return self.last((self.gate(y).softmax(-1)[..., None] * found).sum(1))


class Correlation(nn.Module):
    """Two pictures compared at shifts along a row (stereo)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 24, 3, 1, 1), nn.ReLU(), nn.Conv2d(24, 32, 3, 1, 1))
        self.last = nn.Sequential(nn.Conv2d(5, 24, 3, 1, 1), nn.ReLU(), nn.Conv2d(24, 1, 3, 1, 1))

    def forward(self, x: Tensor, y: Tensor) -> Any:
        """A number for each place."""
        a, b = self.body(x), F.pad(self.body(y), (4, 0))
        return self.last(torch.stack([(a * b[..., i : i + a.shape[3]]).mean(1) for i in range(5)], 1))


class Folded(nn.Module):
    """Frames folded into the batch, shifted along time between (TSM)."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Conv2d(3, width, 3, 1, 1), nn.Conv2d(width, width, 3, 1, 1), nn.Linear(width, 6)

    def forward(self, x: Tensor) -> Any:
        """Scores of a clip ``[N, T, C, H, W]``."""
        n, t = x.shape[:2]
        y = F.relu(self.a(x.flatten(0, 1)))
        y = y.view(n, t, *y.shape[1:])
        part = y.shape[2] // 4
        moved = torch.cat([F.pad(y[:, 1:, :part], (0, 0, 0, 0, 0, 0, 0, 1)), y[:, :, part:]], 2)
        y = F.relu(self.b(moved.flatten(0, 1)))
        return self.last(y.mean((2, 3)).view(n, t, -1).mean(1))


class Patches(nn.Module):
    """Pictures cut into patches and put together again, with a class token and learnt positions (ViT)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.first, self.token = nn.Linear(48, width), nn.Parameter(torch.randn(1, 1, width))
        self.place, self.norm = nn.Parameter(torch.randn(1, 17, width)), nn.LayerNorm(width)
        self.up, self.down, self.last = nn.Linear(width, 64), nn.Linear(64, width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Any:
        """Scores of the token."""
        n, c, h, w = x.shape
        y = x.view(n, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 1, 3, 5).reshape(n, -1, 16 * c)
        y = torch.cat([self.token.expand(n, -1, -1), self.first(y)], 1) + self.place
        return self.last((y + self.down(F.gelu(self.up(self.norm(y)))))[:, 0])


class Gram(nn.Module):
    """The matrix of products of all channels (style, bilinear pooling)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, 12, 3, 1, 1))
        self.last = nn.Linear(144, 5)

    def forward(self, x: Tensor) -> Any:
        """Scores."""
        y = self.body(x).flatten(2)
        return self.last((y @ y.transpose(1, 2) / y.shape[2]).flatten(1))


class Warped(nn.Module):
    """A picture warped by a field that is computed from it, or by one affine map (STN)."""

    def __init__(self, affine: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 24, 3, 1, 1), nn.Conv2d(24, 5, 1)
        self.field = nn.Linear(24, 6) if affine else nn.Conv2d(24, 2, 3, 1, 1)

    def forward(self, x: Tensor) -> Any:
        """Scores of the warped features."""
        y = F.relu(self.first(x))
        if isinstance(self.field, nn.Linear):
            grid = F.affine_grid(self.field(y.mean((2, 3))).view(-1, 2, 3), list(y.shape), align_corners=False)
        else:
            eye = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(x.shape[0], 2, 3)
            grid = F.affine_grid(eye, list(y.shape), align_corners=False) + self.field(y).permute(0, 2, 3, 1)
        return self.last(F.grid_sample(y, grid, align_corners=False))


class HeightAsChannels(nn.Module):
    """Channels become the height of another picture and are convolved over."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(4, 32, 3, padding=1), nn.Conv2d(1, 16, 3, 1, 1)
        self.c = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Any:
        """Scores."""
        return self.c(F.relu(self.b(F.relu(self.a(x)).unsqueeze(1))).mean((2, 3)))


def _of(function: Any, after: int = 32) -> nn.Module:
    return between(nn.Sequential(nn.Conv2d(32, 32, 3, 1, 1), Apply(function)), 32, after)


def _focus(x: Tensor) -> Tensor:
    return torch.cat([x[..., i::2, j::2] for j in range(2) for i in range(2)], 1)


_P, _O, _V = normal((2, 3, 16, 16)), normal((1, 3, 24, 20)), normal((3, 12))

KINDS = (
    Kind("mix_bilinear", lambda: Bilinear(False), _V),
    Kind("mix_outer_product", lambda: Bilinear(True), _V),
    Kind("mix_tokens", Mixer, _P),
    Kind("mix_points", Points, normal((2, 3, 20)), normal((1, 3, 33))),
    Kind("mix_graph", Message, normal((2, 6, 8), (2, 6, 6)), normal((1, 9, 8), (1, 9, 9))),
    Kind("mix_experts", Experts, _V),
    Kind("mix_correlation", Correlation, normal((2, 3, 12, 16), (2, 3, 12, 16))),
    Kind("mix_folded_frames", Folded, normal((2, 4, 3, 12, 12)), normal((1, 4, 3, 16, 12))),
    Kind("mix_patches", Patches, _P),
    Kind("mix_gram", Gram, _P, _O),
    Kind("mix_height_as_channels", HeightAsChannels, normal((2, 4, 20)), normal((1, 4, 31))),
    Kind("mix_joined_twice", lambda: _of(lambda x: torch.cat([x, x], 1), 64), _P, _O),
    Kind("mix_turned", lambda: _of(lambda x: x.rot90(1, (2, 3)).flip(1)), _P, _O),
    Kind("mix_indexed", lambda: _of(lambda x: x[:, [3, 1, 2, 0, *range(4, 32)]]), _P, _O),
    Kind("mix_strided", lambda: _of(lambda x: x[:, ::2], 16), _P, _O),
    Kind("mix_focus", lambda: _of(_focus, 128), _P, _O),
    Kind("mix_repeated", lambda: _of(lambda x: x.repeat_interleave(2, 1), 64), _P, _O),
    Kind("mix_sorted", lambda: _of(lambda x: x.sort(1)[0]), _P, _O),
    Kind("mix_cumulated", lambda: _of(lambda x: x.cumsum(1) * 0.1), _P, _O),
    Kind("mix_one_place", lambda: _of(lambda x: x * (x > x.mean((2, 3), keepdim=True))), _P, _O),
    Kind("mix_over_means", lambda: _of(lambda x: x / (x.abs().sum(1, keepdim=True) + 1)), _P, _O),
    Kind("mix_log_sum", lambda: _of(lambda x: x - x.logsumexp(1, keepdim=True)), _P, _O),
    Kind("mix_fourier", lambda: _of(lambda x: torch.fft.irfft2(torch.fft.rfft2(x) * 0.5, s=x.shape[2:])), _P, _O),
    Kind("mix_transposed_axes", lambda: _of(lambda x: x.transpose(2, 3).contiguous()), _P, _O),
    Kind("mix_warped", lambda: Warped(False), _P, _O),
    Kind("mix_warped_affine", lambda: Warped(True), _P, _O),
)  # fmt: skip
