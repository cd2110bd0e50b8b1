"""Attention in the forms that networks write it: torch's own, fused, by hand, linear, windowed, over channels."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .kind import Kind, between, normal, tokens


class Heads(nn.Module):
    """Self-attention by one projection; ``form`` is how scores and values meet."""

    def __init__(self, width: int, heads: int, form: str = "matmul") -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads, self.form = heads, form

    def forward(self, x: Tensor) -> Any:
        """Of tokens ``[N, L, C]``."""
        n, length, c = x.shape
        q, k, v = self.qkv(x).reshape(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if self.form == "fused":
            y = F.scaled_dot_product_attention(q, k, v)
        elif self.form == "causal":
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        elif self.form == "einsum":
            scores = torch.einsum("nhqd,nhkd->nhqk", q, k) / math.sqrt(q.shape[-1])
            y = torch.einsum("nhqk,nhkd->nhqd", scores.softmax(-1), v)
        elif self.form == "linear":
            y = _linear(q, k, v)
        else:
            y = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1) @ v
        return self.out(y.transpose(1, 2).reshape(n, length, c))


def _linear(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention without a matrix of scores (Katharopoulos et al., ICML 2020)."""
    q, k = F.elu(q) + 1, F.elu(k) + 1
    context = torch.einsum("nhld,nhle->nhde", k, v)
    share = 1 / (torch.einsum("nhld,nhd->nhl", q, k.sum(2)) + 1e-6)
    return torch.einsum("nhld,nhde,nhl->nhle", q, context, share)


class Encoder(nn.Module):
    """A transformer block of any attention over embedded tokens, with a classifier."""

    def __init__(self, attention: nn.Module, width: int = 32) -> None:
        super().__init__()
        self.embed, self.attention = nn.Linear(16, width), attention
        self.one, self.two = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Any:
        """Scores of the mean token."""
        x = self.embed(x)
        x = x + self.attention(self.one(x))
        return self.head((x + self.mlp(self.two(x))).mean(1))


class TorchHeads(nn.Module):
    """nn.MultiheadAttention, as self-attention or over a memory."""

    def __init__(self, width: int, weights: bool = False, memory: int = 0, mask: bool = False) -> None:
        super().__init__()
        options = {"kdim": memory, "vdim": memory} if memory else {}
        self.inner = nn.MultiheadAttention(width, 4, batch_first=True, **options)
        self.memory = nn.Linear(width, memory) if memory else None
        self.weights, self.mask = weights, mask

    def forward(self, x: Tensor) -> Any:
        """Of tokens ``[N, L, C]``."""
        other = x if self.memory is None else self.memory(x)
        mask = torch.full((x.shape[1], x.shape[1]), float("-inf")).triu(1) if self.mask else None
        found, _ = self.inner(x, other, other, need_weights=self.weights, attn_mask=mask)
        return found


class Window(nn.Module):
    """Attention in windows with a table of relative positions (Liu et al., ICCV 2021)."""

    index: Tensor

    def __init__(self, width: int, side: int = 4, heads: int = 4, shift: int = 0) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.table = nn.Parameter(torch.randn((2 * side - 1) ** 2, heads) * 0.02)
        at = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")).flatten(1)
        away = (at[:, :, None] - at[:, None]) + side - 1
        self.register_buffer("index", away[0] * (2 * side - 1) + away[1])
        self.side, self.heads, self.shift = side, heads, shift

    def forward(self, x: Tensor) -> Tensor:
        """Of pictures ``[N, C, H, W]``."""
        n, c, h, w = x.shape
        s = self.side
        x = torch.roll(x, (-self.shift, -self.shift), (2, 3))
        windows = x.view(n, c, h // s, s, w // s, s).permute(0, 2, 4, 3, 5, 1).reshape(-1, s * s, c)
        q, k, v = self.qkv(windows).view(-1, s * s, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        bias = self.table[self.index.view(-1)].view(s * s, s * s, -1).permute(2, 0, 1)
        y = ((q @ k.transpose(-2, -1)) * (c // self.heads) ** -0.5 + bias).softmax(-1) @ v
        y = self.out(y.transpose(1, 2).reshape(-1, s * s, c))
        y = y.view(n, h // s, w // s, s, s, c).permute(0, 5, 1, 3, 2, 4).reshape(n, c, h, w)
        return torch.roll(y, (self.shift, self.shift), (2, 3))


class Channels(nn.Module):
    """Attention over channels, whose matrix of scores has channels along both axes (Restormer)."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.qkv, self.out, self.heads = nn.Conv2d(width, 3 * width, 1), nn.Conv2d(width, width, 1), heads
        self.heat = nn.Parameter(torch.ones(heads, 1, 1))

    def forward(self, x: Tensor) -> Any:
        """Of pictures."""
        n, c, h, w = x.shape
        q, k, v = (y.reshape(n, self.heads, -1, h * w) for y in self.qkv(x).chunk(3, 1))
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        return self.out((((q @ k.transpose(-2, -1)) * self.heat).softmax(-1) @ v).reshape(n, c, h, w))


class NonLocal(nn.Module):
    """Every position looks at every other (Wang et al., CVPR 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.theta, self.phi, self.value = (
            nn.Conv2d(width, half, 1),
            nn.Conv2d(width, half, 1),
            nn.Conv2d(width, half, 1),
        )
        self.out = nn.Conv2d(half, width, 1)

    def forward(self, x: Tensor) -> Any:
        """With a shortcut."""
        n, _, h, w = x.shape
        scores = torch.bmm(self.theta(x).flatten(2).transpose(1, 2), self.phi(x).flatten(2)).softmax(-1)
        found = torch.bmm(scores, self.value(x).flatten(2).transpose(1, 2)).transpose(1, 2)
        return x + self.out(found.reshape(n, -1, h, w))


class Gated(nn.Module):
    """Squeeze and excitation, over channels, over positions, or both (SE, CBAM)."""

    def __init__(self, width: int, positions: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(width, width // 4), nn.ReLU(), nn.Linear(width // 4, width), nn.Sigmoid())
        self.place = nn.Conv2d(2, 1, 7, padding=3) if positions else None

    def forward(self, x: Tensor) -> Tensor:
        """The input, weighted."""
        x = x * self.body(F.adaptive_avg_pool2d(x, 1).flatten(1)).view(*x.shape[:2], 1, 1)
        if self.place is None:
            return x
        return x * torch.sigmoid(self.place(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)))


class Efficient(nn.Module):
    """Channel attention by a convolution along the channels (ECA)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Any:
        """The input, weighted."""
        share = self.conv(x.mean((2, 3)).unsqueeze(1)).squeeze(1).sigmoid()
        return x * share[:, :, None, None]


class Coordinates(nn.Module):
    """Attention along both axes of the picture (Hou et al., CVPR 2021)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.Conv2d(width, 8, 1), nn.BatchNorm2d(8), nn.Hardswish())
        self.rows, self.columns = nn.Conv2d(8, width, 1), nn.Conv2d(8, width, 1)

    def forward(self, x: Tensor) -> Any:
        """The input, weighted."""
        h, w = x.shape[2:]
        along, across = x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)
        y = self.squeeze(torch.cat([along, across], 2))
        rows, columns = torch.split(y, [h, w], 2)
        return x * self.rows(rows).sigmoid() * self.columns(columns.transpose(2, 3)).sigmoid()


class Decoder(nn.Module):
    """Learnt queries attend to a picture (DETR)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 4, 4)
        self.body = nn.Transformer(width, 4, 1, 1, 64, batch_first=True)
        self.queries, self.head = nn.Parameter(torch.rand(6, width)), nn.Linear(width, 11)

    def forward(self, x: Tensor) -> Any:
        """Scores of every query."""
        memory = self.stem(x).flatten(2).transpose(1, 2)
        return self.head(self.body(memory, self.queries.expand(x.shape[0], -1, -1)))


class Rotary(nn.Module):
    """A language model's block: embedding, rotary positions, RMS norm, gated MLP, tied head."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed, self.norm, self.last = nn.Embedding(50, width), nn.RMSNorm(width), nn.RMSNorm(width)
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out, self.gate, self.up = nn.Linear(width, width, bias=False), nn.Linear(width, 96), nn.Linear(width, 96)
        self.down = nn.Linear(96, width)

    def forward(self, index: Tensor) -> Tensor:
        """Scores of the next token at each place."""
        x = self.embed(index)
        y = self.norm(x)
        n, length, c = y.shape
        angle = torch.arange(length)[:, None] / 100.0 ** (torch.arange(0, 8, 2) / 8)
        q, k = (_turned(p(y).view(n, length, 4, c // 4).transpose(1, 2), angle) for p in (self.q, self.k))
        v = self.v(y).view(n, length, 4, c // 4).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(n, length, c)
        x = x + self.out(y)
        y = self.last(x)
        return F.linear(x + self.down(F.silu(self.gate(y)) * self.up(y)), self.embed.weight)


def _turned(x: Tensor, angle: Tensor) -> Tensor:
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)


def _encoder(form: str) -> nn.Module:
    return Encoder(Heads(32, 4, form))


_TOKENS, _LONGER = normal((2, 6, 16)), normal((1, 9, 16))
_PICTURE, _OTHER = normal((2, 3, 16, 16)), normal((1, 3, 24, 20))

KINDS = (
    Kind("attention_by_hand", lambda: _encoder("matmul"), _TOKENS, _LONGER),
    Kind("attention_fused", lambda: _encoder("fused"), _TOKENS, _LONGER),
    Kind("attention_causal", lambda: _encoder("causal"), _TOKENS, _LONGER),
    Kind("attention_einsum", lambda: _encoder("einsum"), _TOKENS, _LONGER),
    Kind("attention_linear", lambda: _encoder("linear"), _TOKENS, _LONGER),
    Kind("attention_torch", lambda: Encoder(TorchHeads(32)), _TOKENS, _LONGER),
    Kind("attention_torch_weights", lambda: Encoder(TorchHeads(32, True)), _TOKENS, _LONGER),
    Kind("attention_torch_memory", lambda: Encoder(TorchHeads(32, memory=24)), _TOKENS, _LONGER),
    Kind("attention_torch_mask", lambda: Encoder(TorchHeads(32, mask=True)), _TOKENS, _LONGER),
    Kind("attention_encoder_layer",
         lambda: Encoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)), _TOKENS, _LONGER),
    Kind("attention_windows", lambda: between(Window(32), 32), _PICTURE, normal((1, 3, 24, 20))),
    Kind("attention_windows_shifted", lambda: between(Window(32, shift=2), 32), _PICTURE, normal((1, 3, 24, 20))),
    Kind("attention_over_channels", lambda: between(Channels(32), 32), _PICTURE, _OTHER),
    Kind("attention_non_local", lambda: between(NonLocal(32), 32), _PICTURE, _OTHER),
    Kind("attention_squeeze", lambda: between(Gated(32), 32), _PICTURE, _OTHER),
    Kind("attention_squeeze_positions", lambda: between(Gated(32, True), 32), _PICTURE, _OTHER),
    Kind("attention_efficient", lambda: between(Efficient(), 32), _PICTURE, _OTHER),
    Kind("attention_coordinates", lambda: between(Coordinates(32), 32), _PICTURE, _OTHER),
    Kind("attention_decoder", Decoder, _PICTURE, _OTHER),
    Kind("attention_rotary", Rotary, tokens(2, 7), tokens(1, 12)),
)  # fmt: skip
