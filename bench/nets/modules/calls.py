"""Calls that few networks make: functions, writing to places, orders, fake quantisation, regions of autocast."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .kind import Arguments, Kind, between, normal, stem


class Filterbank(nn.Module):
    """Learnt filters, the logarithm of their energies, and pictures of it: channels become a height."""

    def __init__(self) -> None:
        super().__init__()
        self.bank, self.a, self.b = nn.Conv1d(1, 40, 16, 4), nn.Conv2d(1, 16, 3, 1, 1), nn.Conv2d(16, 24, 3, 2, 1)
        self.norm, self.last = nn.BatchNorm2d(24), nn.Linear(24 * 20, 5)

    def forward(self, x: Tensor) -> Any:
        """Scores of a wave."""
        y = torch.log1p(self.bank(x).abs()).unsqueeze(1)
        return self.last(F.relu(self.norm(self.b(F.relu(self.a(y))))).mean(3).flatten(1))


class Quantised(nn.Module):
    """Activations and weights as they will be in eight bits (training aware of quantisation)."""

    scale: Tensor
    zero: Tensor

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, width, 3, 1, 1), nn.Conv2d(width, width, 3, 1, 1), nn.Conv2d(width, 5, 1)
        self.register_buffer("scale", torch.full((width,), 0.02))
        self.register_buffer("zero", torch.zeros(width, dtype=torch.int32))

    def forward(self, x: Tensor) -> Any:
        """Scores of each pixel."""
        y = torch.fake_quantize_per_tensor_affine(F.relu(self.a(x)), 0.05, 0, 0, 255)
        weight = torch.fake_quantize_per_channel_affine(self.b.weight, self.scale, self.zero, 0, -128, 127)
        return self.c(F.relu(F.conv2d(y, weight, self.b.bias, padding=1)))


class Splines(nn.Module):
    """Sums of learnt functions of each number (KAN)."""

    knots: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.a, self.last = nn.Linear(12, 24), nn.Linear(16, 5)
        self.weight = nn.Parameter(torch.randn(16, 24, 5) / 10)
        self.register_buffer("knots", torch.linspace(-2, 2, 5))

    def forward(self, x: Tensor) -> Any:
        """Scores."""
        near = torch.exp(-((torch.tanh(self.a(x))[..., None] - self.knots) ** 2))
        return self.last(F.relu(torch.einsum("...ig,oig->...o", near, self.weight)))


class Chosen(nn.Module):
    """The largest entry as a vector of zeros and a one, by which a row of a table is picked."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.table, self.last = nn.Linear(12, 24), nn.Embedding(24, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Any:
        """Scores."""
        return self.last(F.one_hot(self.a(x).argmax(-1), 24).float() @ self.table.weight)


class Edges(nn.Module):
    """Features sent along edges and added up, or their maximum (graph networks)."""

    def __init__(self, sums: bool) -> None:
        super().__init__()
        self.a, self.b, self.c, self.sums = nn.Linear(8, 24), nn.Linear(24, 24), nn.Linear(24, 4), sums

    def forward(self, x: Tensor, sources: Tensor, targets: Tensor) -> Any:
        """Scores of each vertex."""
        y = F.relu(self.a(x))
        sent, zeros = self.b(y)[sources], torch.zeros(6, 24)
        if self.sums:
            return self.c(F.relu(y + zeros.index_add(0, targets, sent)))
        index = targets[:, None].expand(-1, 24)
        return self.c(F.relu(y + zeros.scatter_reduce(0, index, sent, "amax", include_self=False)))


class Windows(nn.Module):
    """Overlapping windows taken apart, each changed by a network, and added up again."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.c = nn.Conv2d(3, 16, 3, 1, 1), nn.Conv2d(16, 5, 1)
        self.up, self.down = nn.Linear(256, 64), nn.Linear(64, 256)

    def forward(self, x: Tensor) -> Any:
        """Scores of each pixel."""
        y = F.unfold(self.a(x), 4, stride=2, padding=1).transpose(1, 2)
        y = self.down(F.relu(self.up(y))).transpose(1, 2)
        return self.c(F.fold(y, x.shape[2:], 4, stride=2, padding=1))


class Along(nn.Module):
    """The product of all channels so far, or all less the one in the middle."""

    def __init__(self, product: bool) -> None:
        super().__init__()
        self.product = product

    def forward(self, x: Tensor) -> Tensor:
        """As large."""
        return torch.cumprod(x.clamp(0.5, 1.5), 1) if self.product else x - x.median(1, keepdim=True)[0]


class Halved(nn.Module):
    """Half as high and wide by means of areas."""

    def forward(self, x: Tensor) -> Tensor:
        """Smaller."""
        return F.interpolate(x, scale_factor=0.5, mode="area")


class Lower(nn.Module):
    """A region in which torch computes products in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(stem(24), nn.Conv2d(24, 24, 3, 1, 1), nn.ReLU(), nn.Conv2d(24, 5, 1))

    def forward(self, x: Tensor) -> Any:
        """Scores of each pixel."""
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.inner(x).float()


def _edges() -> Arguments:
    return torch.randn(6, 8), torch.randint(0, 6, (10,)), torch.randint(0, 6, (10,))


_P, _O, _V = normal((2, 3, 16, 16)), normal((1, 3, 24, 20)), normal((3, 12))

KINDS = (
    Kind("call_filterbank", Filterbank, normal((2, 1, 256)), normal((1, 1, 320))),
    Kind("call_fake_quantised", Quantised, _P, _O),
    Kind("call_splines", Splines, _V),
    Kind("call_one_hot", Chosen, _V),
    Kind("call_edges_added", lambda: Edges(True), _edges, batch=False),
    Kind("call_edges_largest", lambda: Edges(False), _edges, batch=False),
    Kind("call_windows_added", Windows, _P, _O),
    Kind("call_products", lambda: between(Along(True), 24), _P, _O),
    Kind("call_medians", lambda: between(Along(False), 24), _P, _O),
    Kind("call_halved", lambda: between(Halved(), 24), _P, _O),
    Kind("call_autocast", Lower, _P, _O),
)  # fmt: skip
