"""Generators: restoration, GANs, autoencoders, diffusion, flows."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .kind import Apply, Arguments, Kind, between, normal


class Residual(nn.Module):
    """Two convolutions and a shortcut, scaled."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(width, width, 3, 1, 1), nn.Conv2d(width, width, 3, 1, 1)

    def forward(self, x: Tensor) -> Any:
        """The input and a tenth of the rest."""
        return x + 0.1 * self.b(F.relu(self.a(x)))


class Larger(nn.Module):
    """Super resolution: residual blocks, pixel shuffle, a bicubic shortcut (EDSR)."""

    mean: Tensor

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.first, self.body = nn.Conv2d(3, width, 3, 1, 1), nn.Sequential(Residual(width), Residual(width))
        self.up = nn.Sequential(nn.Conv2d(width, 4 * width, 3, 1, 1), nn.PixelShuffle(2), nn.Conv2d(width, 3, 3, 1, 1))
        self.register_buffer("mean", torch.tensor([0.4, 0.45, 0.5]).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Any:
        """Twice as high and wide."""
        y = self.first(x - self.mean)
        large = F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)
        return self.up(y + self.body(y)) + self.mean + large


class Padded(nn.Module):
    """Pads to a multiple, halves and doubles, crops back: what restoration networks do."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.first, self.down = nn.Conv2d(3, width, 3, 1, 1), nn.Conv2d(width, 2 * width, 2, 2)
        self.up, self.last = (
            nn.Sequential(nn.Conv2d(2 * width, 4 * width, 1), nn.PixelShuffle(2)),
            nn.Conv2d(width, 3, 1),
        )

    def forward(self, x: Tensor) -> Any:
        """As high and wide as it came."""
        h, w = x.shape[2:]
        y = self.first(F.pad(x, (0, -w % 4, 0, -h % 4)))
        return self.last(y + self.up(self.down(y)))[..., :h, :w]


class Dense(nn.Module):
    """Every layer reads all before it (DenseNet, RDB)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(32 + i * width, width, 3, 1, 1) for i in range(3))
        self.join = nn.Conv2d(32 + 3 * width, 32, 1)

    def forward(self, x: Tensor) -> Any:
        """With a shortcut."""
        y = x
        for layer in self.layers:
            y = torch.cat([y, F.leaky_relu(layer(y), 0.2)], 1)
        return x + self.join(y)


class FromNoise(nn.Module):
    """A linear layer, a view, transposed convolutions (DCGAN)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.up = nn.Linear(16, 64 * 16), nn.ConvTranspose2d(64, 32, 4, 2, 1)
        self.norm, self.last = nn.BatchNorm2d(32), nn.ConvTranspose2d(32, 3, 3, 2, 1, 1)

    def forward(self, z: Tensor) -> Tensor:
        """A picture."""
        x = F.relu(self.first(z)).view(-1, 64, 4, 4)
        return torch.tanh(self.last(F.relu(self.norm(self.up(x)))))


class Modulated(nn.Module):
    """Weights scaled by each example's style, normalised, grouped over the batch (StyleGAN2)."""

    def __init__(self, inputs: int, outputs: int, style: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, 3, 3) / (9 * inputs) ** 0.5)
        self.style = nn.Linear(style, inputs)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """One convolution of all examples."""
        n, c, h, w = x.shape
        weight = self.weight * (self.style(z) + 1).view(n, 1, c, 1, 1)
        weight = weight * torch.rsqrt(weight.pow(2).sum((2, 3, 4), keepdim=True) + 1e-8)
        y = F.conv2d(x.reshape(1, n * c, h, w), weight.flatten(0, 1), padding=1, groups=n)
        return y.view(n, -1, h, w)


class Styled(nn.Module):
    """A mapping, a learnt constant, two modulated convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Sequential(nn.Linear(16, 32), nn.LeakyReLU(0.2), nn.Linear(32, 16))
        self.start = nn.Parameter(torch.randn(1, 32, 4, 4))
        self.a, self.b, self.last = Modulated(32, 32, 16), Modulated(32, 24, 16), nn.Conv2d(24, 3, 1)

    def forward(self, z: Tensor) -> Any:
        """A picture."""
        z = self.map(z * torch.rsqrt(z.pow(2).mean(1, keepdim=True) + 1e-8))
        x = F.leaky_relu(self.a(self.start.repeat(z.shape[0], 1, 1, 1), z), 0.2)
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return self.last(F.leaky_relu(self.b(x, z), 0.2))


class Adaptive(nn.Module):
    """Statistics of each channel replaced by a style's (AdaIN), or features scaled by it (FiLM)."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 24, 3, 1, 1), nn.Conv2d(24, 32, 3, 1, 1), nn.Conv2d(32, 3, 3, 1, 1)
        self.style, self.norm = nn.Linear(8, 64), norm

    def forward(self, x: Tensor, z: Tensor) -> Any:
        """A picture."""
        y = self.b(F.relu(self.a(x)))
        scale, shift = self.style(z).chunk(2, 1)
        if self.norm:
            spread = y.var((2, 3), keepdim=True, unbiased=False).add(1e-5).sqrt()
            y = (y - y.mean((2, 3), keepdim=True)) / spread
        return self.c(F.relu(y * (1 + scale[..., None, None]) + shift[..., None, None]))


class Codes(nn.Module):
    """An autoencoder whose codes are the nearest of a book (VQ-VAE)."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1), nn.ReLU(), nn.Conv2d(24, 8, 3, 2, 1))
        self.book = nn.Embedding(16, 8)
        self.decode = nn.Sequential(nn.ConvTranspose2d(8, 24, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(24, 3, 4, 2, 1))

    def forward(self, x: Tensor) -> Any:
        """The picture, restored, and the codes."""
        z = self.encode(x).permute(0, 2, 3, 1)
        flat = z.reshape(-1, 8)
        book = self.book.weight
        away = flat.pow(2).sum(1, keepdim=True) + book.pow(2).sum(1) - 2 * flat @ book.t()
        index = away.argmin(1)
        found = self.book(index).view(z.shape)
        return self.decode((z + (found - z).detach()).permute(0, 3, 1, 2)), index


class Variational(nn.Module):
    """An autoencoder with a mean and a variance, drawn from or not."""

    def __init__(self, draws: bool) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1), nn.ReLU(), nn.Flatten())
        self.mean, self.spread = nn.Linear(24 * 64, 8), nn.Linear(24 * 64, 8)
        self.first, self.last = nn.Linear(8, 24 * 64), nn.ConvTranspose2d(24, 3, 4, 2, 1)
        self.draws = draws

    def forward(self, x: Tensor) -> Any:
        """The picture, restored, and both."""
        y = self.encode(x)
        mean, spread = self.mean(y), self.spread(y)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * spread) if self.draws else mean
        return self.last(F.relu(self.first(z)).view(-1, 24, 8, 8)), mean, spread


class Step(nn.Module):
    """A residual block with group norm and the time added or as scale and shift."""

    def __init__(self, inputs: int, outputs: int, time: int, scale: bool, again: str) -> None:
        super().__init__()
        self.one, self.a = nn.GroupNorm(4, inputs), nn.Conv2d(inputs, outputs, 3, 1, 1)
        self.two, self.b = nn.GroupNorm(4, outputs), nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.time = nn.Linear(time, 2 * outputs if scale else outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.scale, self.again = scale, again

    def forward(self, x: Tensor, t: Tensor) -> Any:
        """Of a picture and an embedded time; computed again for gradients where that is asked for."""
        if self.again:
            return checkpoint(self._inner, x, t, use_reentrant=self.again == "reentrant")
        return self._inner(x, t)

    def _inner(self, x: Tensor, t: Tensor) -> Any:
        y, time = self.a(F.silu(self.one(x))), self.time(F.silu(t))[:, :, None, None]
        if self.scale:
            a, b = time.chunk(2, 1)
            y = self.two(y) * (1 + a) + b
        else:
            y = self.two(y + time)
        return self.skip(x) + self.b(F.silu(y))


class Denoiser(nn.Module):
    """A UNet with time embeddings and attention in the middle (diffusion)."""

    def __init__(self, scale: bool = False, again: str = "", width: int = 16) -> None:
        super().__init__()
        time = 4 * width
        self.time, self.first = (
            nn.Sequential(nn.Linear(width, time), nn.SiLU(), nn.Linear(time, time)),
            nn.Conv2d(3, width, 3, 1, 1),
        )
        self.down = Step(width, 2 * width, time, scale, again)
        self.norm, self.qkv, self.out = (
            nn.GroupNorm(4, 2 * width),
            nn.Conv1d(2 * width, 6 * width, 1),
            nn.Conv1d(2 * width, 2 * width, 1),
        )
        self.up, self.last, self.width = Step(3 * width, width, time, scale, again), nn.Conv2d(width, 3, 3, 1, 1), width

    def forward(self, x: Tensor, t: Tensor) -> Any:
        """The noise in a picture at these steps."""
        rate = torch.exp(-math.log(1e4) * torch.arange(self.width // 2) / (self.width // 2))
        angle = t[:, None].float() * rate[None]
        time = self.time(torch.cat([angle.sin(), angle.cos()], -1))
        kept = self.first(x)
        y = self.down(F.avg_pool2d(kept, 2), time)
        n, c, h, w = y.shape
        q, k, v = self.qkv(self.norm(y).flatten(2)).chunk(3, 1)
        share = torch.softmax(torch.einsum("ncq,nck->nqk", q, k) * c**-0.5, -1)
        y = y + self.out(torch.einsum("nqk,nck->ncq", share, v)).view(n, c, h, w)
        return self.last(self.up(torch.cat([F.interpolate(y, scale_factor=2), kept], 1), time))


class Coupling(nn.Module):
    """One half moves the other (RealNVP), channels turned over between."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(width // 2, 24, 3, 1, 1), nn.ReLU(), nn.Conv2d(24, width, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """As many channels."""
        a, b = x.chunk(2, 1)
        scale, shift = self.body(a).chunk(2, 1)
        return torch.cat([a, b * torch.exp(torch.tanh(scale)) + shift], 1).flip(1)


def _steps() -> Arguments:
    return torch.randn(2, 3, 16, 16), torch.tensor([3, 77])


_P, _O = normal((2, 3, 16, 16)), normal((1, 3, 24, 20))

KINDS = (
    Kind("gen_super_resolution", Larger, _P, _O),
    Kind("gen_padded_and_cropped", Padded, normal((2, 3, 18, 21)), _O),
    Kind("gen_dense", lambda: between(Dense(), 32), _P, _O),
    Kind("gen_shuffled", lambda: between(nn.PixelShuffle(2), 32, 8), _P, _O),
    Kind("gen_unshuffled", lambda: between(nn.PixelUnshuffle(2), 8, 32), _P, _O),
    Kind("gen_channel_shuffle", lambda: between(nn.ChannelShuffle(4), 32), _P, _O),
    Kind("gen_resized_bilinear", lambda: between(nn.Upsample(scale_factor=2, mode="bilinear"), 32), _P, _O),
    Kind("gen_resized_corners",
         lambda: between(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), 32), _P, _O),
    Kind("gen_resized_odd", lambda: between(Apply(lambda x: F.interpolate(x, scale_factor=1.5)), 32), _P, _O),
    Kind("gen_resized_antialias",
         lambda: between(Apply(lambda x: F.interpolate(x, size=8, mode="bilinear", antialias=True)), 32), _P),
    Kind("gen_from_noise", FromNoise, normal((2, 16))),
    Kind("gen_modulated", Styled, normal((2, 16))),
    Kind("gen_adaptive_norm", lambda: Adaptive(True), normal((2, 3, 16, 16), (2, 8))),
    Kind("gen_film", lambda: Adaptive(False), normal((2, 3, 16, 16), (2, 8))),
    Kind("gen_codes", Codes, _P, _O),
    Kind("gen_variational", lambda: Variational(False), _P),
    Kind("gen_variational_drawn", lambda: Variational(True), _P, expect={"prune": "is random"}),
    Kind("gen_denoiser", Denoiser, _steps),
    Kind("gen_denoiser_scaled", lambda: Denoiser(True), _steps),
    Kind("gen_denoiser_checkpoint", lambda: Denoiser(again="plain"), _steps),
    Kind("gen_denoiser_reentrant", lambda: Denoiser(again="reentrant"), _steps),
    Kind("gen_coupling", lambda: between(nn.Sequential(Coupling(), Coupling()), 32), _P, _O),
)  # fmt: skip
