"""Structure next to channels: edges of graphs, masks and places of pictures, circulant and ternary weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .kind import Arguments, Kind, between, normal


class Edges(nn.Module):
    """Means over neighbours along edges (GraphSAGE), or weighted by attention between their ends (GAT)."""

    def __init__(self, attend: bool) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 32), nn.Linear(32, 24), nn.Linear(24, 4)
        self.score = nn.Linear(64, 1) if attend else None

    def forward(self, x: Tensor, edges: Tensor) -> Any:
        """Scores of each vertex."""
        y = F.relu(self.near(F.relu(self.a(x)), edges))
        return self.c(F.relu(self.b(y)))

    def near(self, y: Tensor, edges: Tensor) -> Tensor:
        """What comes along the edges."""
        begin, end = edges[0], edges[1]
        if self.score is None:
            count = torch.zeros(y.shape[0]).index_add(0, end, torch.ones(end.shape[0])).clamp(min=1)
            return torch.zeros_like(y).index_add(0, end, y[begin]) / count[:, None]
        weight = F.leaky_relu(self.score(torch.cat([y[begin], y[end]], -1))).exp()
        total = torch.zeros_like(y[:, :1]).scatter_add(0, end[:, None], weight)
        return torch.zeros_like(y).index_add(0, end, weight * y[begin]) / (total + 1e-6)


class SpatialGate(nn.Module):
    """Half of the channels, mixed over the tokens, gates the other half (gMLP)."""

    def __init__(self, tokens: int = 10, width: int = 24) -> None:
        super().__init__()
        self.first, self.up, self.norm = nn.Linear(6, width), nn.Linear(width, 64), nn.LayerNorm(32)
        self.mix, self.down, self.last = nn.Conv1d(tokens, tokens, 1), nn.Linear(32, width), nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Any:
        """Scores of the mean token."""
        x = self.first(x)
        u, v = F.gelu(self.up(x)).chunk(2, -1)
        return self.last((x + self.down(u * self.mix(self.norm(v)))).mean(1))


class Affine(nn.Module):
    """Layers over tokens and over channels, scaled and shifted instead of normalised (ResMLP)."""

    def __init__(self, tokens: int = 10, width: int = 24) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, width), nn.Linear(width, 5)
        self.scale, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.small = nn.Parameter(torch.full((width,), 0.3))
        self.tokens, self.up, self.down = nn.Linear(tokens, tokens), nn.Linear(width, 64), nn.Linear(64, width)

    def forward(self, x: Tensor) -> Any:
        """Scores of the mean token."""
        x = self.first(x)
        y = torch.addcmul(self.shift, self.scale, x)
        x = x + self.small * self.tokens(y.transpose(1, 2)).transpose(1, 2)
        return self.last((x + self.small * self.down(F.gelu(self.up(x)))).mean(1))


class Partial(nn.Module):
    """Convolutions over what is known of a picture, scaled by how much that is (image inpainting)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Conv2d(3, 32, 3, 1, 1), nn.Conv2d(32, 32, 3, 1, 1), nn.Conv2d(32, 3, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Any:
        """A picture."""
        for layer in (self.a, self.b):
            share = F.conv2d(mask, torch.ones(1, 1, 3, 3), padding=1)
            x = F.relu(layer(x * mask) * (9 / share.clamp(min=1)) * (share > 0))
            mask = (share > 0).float()
        return self.last(x)


class Wavelet(nn.Module):
    """Halves of both directions by fixed filters, and back (wavelet pooling)."""

    filters: Tensor

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        low, high = torch.tensor([1.0, 1.0]), torch.tensor([1.0, -1.0])
        found = torch.stack([a[:, None] * b for a in (low, high) for b in (low, high)])[:, None] / 2
        self.register_buffer("filters", found.repeat(width, 1, 1, 1))
        self.inner, self.width = nn.Conv2d(4 * width, 4 * width, 3, 1, 1), width

    def forward(self, x: Tensor) -> Any:
        """As large as the input."""
        y = F.relu(self.inner(F.conv2d(x, self.filters, stride=2, groups=self.width)))
        return F.conv_transpose2d(y, self.filters, stride=2, groups=self.width)


class Painted(nn.Module):
    """Normalised features, scaled and shifted at each place by what a map of labels says (SPADE)."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, width, 3, 1, 1), nn.InstanceNorm2d(width)
        self.shared, self.scale = nn.Conv2d(4, 32, 3, 1, 1), nn.Conv2d(32, width, 3, 1, 1)
        self.shift, self.last = nn.Conv2d(32, width, 3, 1, 1), nn.Conv2d(width, 3, 3, 1, 1)

    def forward(self, x: Tensor, labels: Tensor) -> Any:
        """A picture."""
        y = self.first(x)
        seen = F.relu(self.shared(F.interpolate(labels, size=y.shape[2:], mode="nearest")))
        return self.last(F.leaky_relu(self.norm(y) * (1 + self.scale(seen)) + self.shift(seen), 0.2))


class Sampled(nn.Module):
    """Features of a picture read at places that queries choose (deformable attention)."""

    def __init__(self, width: int = 32, points: int = 4) -> None:
        super().__init__()
        self.value, self.query = nn.Conv2d(3, width, 3, 2, 1), nn.Linear(8, width)
        self.places, self.weights = nn.Linear(width, 2 * points), nn.Linear(width, points)
        self.out, self.last = nn.Linear(width, width), nn.Linear(width, 5)

    def forward(self, x: Tensor, asked: Tensor) -> Any:
        """Scores of each query."""
        q = F.relu(self.query(asked))
        where = self.places(q).tanh().view(*q.shape[:2], -1, 2)
        seen = F.grid_sample(F.relu(self.value(x)), where, align_corners=False)
        y = (seen * self.weights(q).softmax(-1)[:, None]).sum(-1).transpose(1, 2)
        return self.last(F.relu(self.out(y)))


class Circulant(nn.Module):
    """A matrix whose rows are one vector, each a step further, or a Kronecker product of two."""

    def __init__(self, width: int, kron: bool) -> None:
        super().__init__()
        self.row, self.kron = nn.Parameter(torch.randn(width) / 4), kron
        self.a, self.b = nn.Parameter(torch.randn(4, 4) / 2), nn.Parameter(torch.randn(width // 4, width // 4) / 3)

    def forward(self, x: Tensor) -> Any:
        """Of the channels of a picture."""
        if self.kron:
            weight = torch.kron(self.a, self.b)
        else:
            at = torch.arange(len(self.row))
            weight = self.row[(at[None] - at[:, None]) % len(self.row)]
        return torch.einsum("oc,nchw->nohw", weight, x)


class Ternary(nn.Conv2d):
    """Weights of three values, by thresholds of their mean (ternary networks)."""

    def forward(self, input: Tensor) -> Tensor:
        """As a convolution."""
        near = 0.7 * self.weight.abs().mean((1, 2, 3), keepdim=True)
        weight = torch.where(self.weight.abs() > near, self.weight.sign(), torch.zeros(()))
        return F.conv2d(input, weight * 0.1, self.bias, padding=self.padding)


class Causal(nn.Conv2d):
    """A mask that lets a place see those before it alone (PixelCNN), written into the weight in each call."""

    mask: Tensor

    def __init__(self, width: int) -> None:
        super().__init__(width, width, 3, 1, 1)
        mask = torch.ones(3, 3)
        mask[1, 1:], mask[2] = 0, 0
        self.register_buffer("mask", mask)

    def forward(self, input: Tensor) -> Tensor:
        """As a convolution."""
        return F.conv2d(input, self.weight * self.mask, self.bias, padding=self.padding)


class Places(nn.Module):
    """Each place's coordinates as further channels (CoordConv)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(width + 2, width, 3, 1, 1)

    def forward(self, x: Tensor) -> Any:
        """As a convolution."""
        rows, columns = (torch.linspace(-1, 1, n) for n in x.shape[2:])
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).expand(x.shape[0], -1, -1, -1)
        return self.layer(torch.cat([x, grid], 1))


def _edges(vertices: int, count: int) -> Arguments:
    return torch.randn(vertices, 8), torch.randint(0, vertices, (2, count))


_P, _O = normal((2, 3, 16, 16)), normal((1, 3, 24, 20))
_S, _L, _T = normal((2, 16, 6)), normal((1, 16, 6)), normal((2, 10, 6))

KINDS = (
    Kind("graph_edges", lambda: Edges(False), lambda: _edges(6, 14), lambda: _edges(9, 21), batch=False),
    Kind("graph_edges_attended", lambda: Edges(True), lambda: _edges(6, 14), lambda: _edges(9, 21), batch=False),
    Kind("mix_spatial_gate", SpatialGate, _T),
    Kind("mix_affine_tokens", Affine, _T),
    Kind("attention_sampled", Sampled, normal((2, 3, 16, 16), (2, 5, 8)), normal((1, 3, 24, 20), (1, 7, 8))),
    Kind("conv_partial", Partial, lambda: (torch.randn(2, 3, 16, 16), (torch.rand(2, 1, 16, 16) > 0.3).float()),
         lambda: (torch.randn(1, 3, 24, 20), (torch.rand(1, 1, 24, 20) > 0.3).float())),
    Kind("conv_wavelet", lambda: between(Wavelet(), 16), _P, _O),
    Kind("conv_places", lambda: between(Places(32), 32), _P, _O),
    Kind("conv_causal_mask", lambda: between(Causal(32), 32), _P, _O),
    Kind("gen_painted", Painted, normal((2, 3, 16, 16), (2, 4, 8, 8)), normal((1, 3, 24, 20), (1, 4, 12, 10))),
    Kind("weight_circulant", lambda: between(Circulant(32, False), 32), _P, _O),
    Kind("weight_kronecker", lambda: between(Circulant(32, True), 32), _P, _O),
    Kind("weight_ternary", lambda: between(Ternary(32, 32, 3, 1, 1), 32), _P, _O),
)  # fmt: skip
