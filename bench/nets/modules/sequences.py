"""Sequences of numbers, sounds and words: spectra, long convolutions, decays, gates over steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .kind import Kind, normal, stem


class Conformer(nn.Module):
    """Half a feed-forward layer, attention, a gated depthwise convolution, half a feed-forward layer (Conformer)."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.first, self.attend = nn.Linear(8, width), nn.MultiheadAttention(width, 4, batch_first=True)
        self.one = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 64), nn.SiLU(), nn.Linear(64, width))
        self.norm, self.gate = nn.LayerNorm(width), nn.Conv1d(width, 2 * width, 1)
        self.depth, self.batch = nn.Conv1d(width, width, 5, padding=2, groups=width), nn.BatchNorm1d(width)
        self.point, self.last = nn.Conv1d(width, width, 1), nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Any:
        """Scores of each step."""
        x = self.first(x)
        x = x + 0.5 * self.one(x)
        x = x + self.attend(x, x, x, need_weights=False)[0]
        y = F.glu(self.gate(self.norm(x).transpose(1, 2)), 1)
        return self.last(x + self.point(F.silu(self.batch(self.depth(y)))).transpose(1, 2))


class LogMel(nn.Module):
    """A spectrum's energies in bands, their logarithm, and convolutions over them."""

    window: Tensor
    bands: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hamming_window(24))
        self.register_buffer("bands", torch.rand(17, 12))
        self.body, self.last = nn.Sequential(stem(24, 1), nn.Conv2d(24, 24, 3, 1, 1), nn.ReLU()), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Any:
        """Scores of a wave."""
        found = torch.stft(x, 32, 8, 24, self.window, center=True, pad_mode="constant", return_complex=True)
        energy = found.real.pow(2) + found.imag.pow(2)
        y = torch.log(torch.matmul(energy.transpose(1, 2), self.bands) + 1e-5)
        return self.last(self.body(y.unsqueeze(1)).mean((2, 3)))


class ComplexMask(nn.Module):
    """Real and imaginary parts as two channels, a complex mask, and the wave again (DCCRN)."""

    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(32))
        self.body = nn.Sequential(nn.Conv2d(2, 24, 3, 1, 1), nn.PReLU(), nn.Conv2d(24, 16, 3, 1, 1), nn.PReLU(),
                                  nn.Conv2d(16, 2, 1), nn.Tanh())  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """As long as the input."""
        found = torch.view_as_real(torch.stft(x, 32, 8, window=self.window, return_complex=True))
        mask = self.body(found.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).contiguous()
        wave = torch.view_as_complex(found) * torch.view_as_complex(mask)
        return torch.istft(wave, 32, 8, window=self.window, length=x.shape[-1])


class LongConvolution(nn.Module):
    """A filter as long as the sequence, by Fourier transforms of twice its length, between gates (Hyena, S4)."""

    def __init__(self, width: int = 24, length: int = 16) -> None:
        super().__init__()
        self.first, self.parts, self.last = nn.Linear(6, width), nn.Linear(width, 3 * width), nn.Linear(width, 5)
        self.filter = nn.Parameter(torch.randn(width, length) / 4)

    def forward(self, x: Tensor) -> Any:
        """Scores of each step."""
        u, v, z = self.parts(F.silu(self.first(x))).chunk(3, -1)
        steps = x.shape[1]
        y = (u * v).transpose(1, 2)
        spectrum = torch.fft.rfft(y, n=2 * steps) * torch.fft.rfft(self.filter, n=2 * steps)
        y = torch.fft.irfft(spectrum, n=2 * steps)[..., :steps].transpose(1, 2)
        return self.last(y * z)


class Decay(nn.Module):
    """Products of queries and keys that fade with the distance, without a softmax (retention)."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.first, self.parts, self.out = nn.Linear(6, width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm, self.last, self.heads = nn.GroupNorm(heads, width), nn.Linear(width, 5), heads

    def forward(self, x: Tensor) -> Any:
        """Scores of each step."""
        x = self.first(x)
        n, t, c = x.shape
        q, k, v = (y.view(n, t, self.heads, -1).transpose(1, 2) for y in self.parts(x).chunk(3, -1))
        at = torch.arange(t)
        away = (at[:, None] - at[None]).float()
        fade = torch.where(away >= 0, 0.9 ** away.clamp(min=0), torch.zeros(()))
        y = ((q @ k.transpose(-1, -2)) * fade @ v).transpose(1, 2).reshape(n * t, c)
        return self.last(x + self.out(self.norm(y).view(n, t, c)))


class Grouped(nn.Module):
    """Queries of several heads share keys and values (grouped-query attention), scores mixed between the heads."""

    def __init__(self, width: int = 32, heads: int = 4, shared: int = 2) -> None:
        super().__init__()
        self.first, self.q, self.out = nn.Linear(6, width), nn.Linear(width, width), nn.Linear(width, width)
        self.k, self.v = nn.Linear(width, width // heads * shared), nn.Linear(width, width // heads * shared)
        self.talk, self.last = nn.Conv2d(heads, heads, 1), nn.Linear(width, 5)
        self.heads, self.shared = heads, shared

    def forward(self, x: Tensor) -> Any:
        """Scores of each step."""
        x = self.first(x)
        n, t, c = x.shape
        q = self.q(x).view(n, t, self.heads, -1).transpose(1, 2)
        k, v = (f(x).view(n, t, self.shared, -1).transpose(1, 2).repeat_interleave(self.heads // self.shared, 1)
                for f in (self.k, self.v))  # fmt: skip
        weight = self.talk(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        return self.last(x + self.out((weight @ v).transpose(1, 2).reshape(n, t, c)))


class Statistics(nn.Module):
    """Means and deviations over time, weighted by attention for each channel (ECAPA-TDNN)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv1d(8, width, 5, padding=2), nn.ReLU(), nn.BatchNorm1d(width))
        self.attend = nn.Sequential(nn.Conv1d(3 * width, 16, 1), nn.Tanh(), nn.Conv1d(16, width, 1))
        self.norm, self.last = nn.BatchNorm1d(2 * width), nn.Linear(2 * width, 5)

    def forward(self, x: Tensor) -> Any:
        """Scores of a sequence."""
        y = self.first(x)
        mean, deviation = y.mean(2, keepdim=True), y.var(2, keepdim=True).clamp(min=1e-4).sqrt()
        w = self.attend(torch.cat([y, mean.expand_as(y), deviation.expand_as(y)], 1)).softmax(2)
        mean = (w * y).sum(2)
        deviation = ((w * y**2).sum(2) - mean**2).clamp(min=1e-4).sqrt()
        return self.last(self.norm(torch.cat([mean, deviation], 1)))


class Gated(nn.Module):
    """A recurrence without products between steps, written out over them (QRNN, SRU)."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.first, self.parts = nn.Conv1d(6, width, 1), nn.Conv1d(width, 3 * width, 2, padding=1)
        self.last = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Any:
        """Scores of the last step."""
        z, f, o = self.parts(F.relu(self.first(x)))[..., :-1].chunk(3, 1)
        z, f = z.tanh(), f.sigmoid()
        state = torch.zeros_like(z[..., 0])
        for i in range(z.shape[2]):
            state = f[..., i] * state + (1 - f[..., i]) * z[..., i]
        return self.last(state * o[..., -1].sigmoid())


class Highway(nn.Module):
    """Characters by convolutions of several widths, their maxima, and gates that let them pass (character CNN)."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 12)
        self.filters = nn.ModuleList(nn.Conv1d(12, 8 * k, k, padding=k // 2) for k in (1, 2, 3))
        self.gate, self.plain, self.last = nn.Linear(48, 48), nn.Linear(48, 48), nn.Linear(48, 5)

    def forward(self, x: Tensor) -> Any:
        """Scores of a word."""
        y = self.table(x).transpose(1, 2)
        y = torch.cat([torch.tanh(f(y)).amax(2) for f in self.filters], 1)
        gate = torch.sigmoid(self.gate(y))
        return self.last(gate * F.relu(self.plain(y)) + (1 - gate) * y)


_S, _L, _T = normal((2, 16, 6)), normal((1, 16, 6)), normal((2, 10, 6))
_W, _V = normal((2, 256)), normal((1, 512))

KINDS = (
    Kind("audio_conformer", Conformer, normal((2, 12, 8)), normal((1, 17, 8))),
    Kind("audio_log_bands", LogMel, _W, _V),
    Kind("audio_complex_mask", ComplexMask, _W, _V),
    Kind("seq_long_convolution", LongConvolution, _S),
    Kind("seq_decay", Decay, _S, normal((1, 11, 6))),
    Kind("seq_gated_steps", Gated, normal((2, 6, 9))),
    Kind("attention_grouped_queries", Grouped, _S, normal((1, 11, 6))),
    Kind("pool_statistics", Statistics, normal((2, 8, 20)), normal((1, 8, 33))),
    Kind("text_highway", Highway, lambda: (torch.randint(0, 50, (2, 9)),), lambda: (torch.randint(0, 50, (1, 14)),)),
)  # fmt: skip
