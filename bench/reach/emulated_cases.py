"""A case for every kernel family and what is special about it with four lanes: small modules with drawn weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """A module, the shapes of its inputs, and the kernel families that its library must have."""

    make: Callable[[], nn.Module]
    shapes: tuple[Shape, ...]
    families: tuple[str, ...]

    def module(self) -> nn.Module:
        """The module in eval mode, always with the same weights."""
        torch.manual_seed(0)
        return self.make().eval()

    def inputs(self) -> tuple[Tensor, ...]:
        """Normally distributed."""
        generator = torch.Generator().manual_seed(1)
        return tuple(torch.randn(shape, generator=generator) for shape in self.shapes)


class Apply(nn.Module):
    """A function of the inputs."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


class First(nn.Module):
    """A recurrent layer's outputs without its last state."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(x)[0]
        return found


class Attention(nn.Module):
    """Two heads over rows of 24."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(24), nn.Linear(24, 72), nn.Linear(24, 24)

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, t, 3, 2, 12).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(-2, -1) / 12**0.5).softmax(-1) @ v
        found: Tensor = x + self.out(mixed.transpose(1, 2).reshape(n, t, c))
        return found


class Gated(nn.Module):
    """Squeeze and excite, and a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(6, 22, 3, padding=1), nn.Conv2d(22, 22, 1)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(22, 5, 1), nn.ReLU(), nn.Conv2d(5, 22, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = F.hardswish(self.a(x))
        return F.relu(self.b(y) * torch.sigmoid(self.gate(y)) + y)


class Halves(nn.Module):
    """A split whose second half begins inside a vector, a shuffle, and convolutions that read across both."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(5, 36, 1), nn.Conv2d(18, 18, 1)
        self.c, self.d = nn.Conv2d(18, 18, 3, padding=1, groups=18), nn.Conv2d(36, 14, 3, padding=1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.a(x).chunk(2, 1)
        y = torch.cat([left, self.c(F.relu(self.b(right)))], 1)
        n, c, h, w = y.shape
        found: Tensor = self.d(y.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))
        return found


def conv(i: int, o: int, kernel: int = 3, groups: int = 1, stride: int = 1) -> Callable[[], nn.Module]:
    """A convolution after another one, as in a network."""
    return lambda: nn.Sequential(
        nn.Conv2d(3, i, 1), nn.ReLU(), nn.Conv2d(i, o, kernel, stride, kernel // 2, groups=groups), nn.ReLU6()
    )


def sparse(
    module: Callable[[], nn.Module], share: float = 0.8, block: int = 4, whole: bool = False
) -> Callable[[], nn.Module]:
    """The same with zeros in blocks of some outputs, in all weights of at least 32 outputs and inputs.

    ``whole``: blocks of all taps of an input.
    """

    def made() -> nn.Module:
        found = module()
        with torch.no_grad():
            for weight in found.parameters():
                if weight.dim() > 1 and min(weight.shape[:2]) >= 32:
                    taps = [1] * (weight.dim() - 2) if whole else weight.shape[2:]
                    kept = torch.rand(-(-weight.shape[0] // block), weight.shape[1], *taps) >= share
                    weight.mul_(kept.repeat_interleave(block, 0)[: weight.shape[0]])
        return found

    return made


def sequence(*layers: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """These layers in a row."""
    return lambda: nn.Sequential(*(layer() for layer in layers))


RGB, ROWS = (1, 3, 10, 13), (2, 9, 24)
CASES: Mapping[str, Case] = MappingProxyType(
    {
        "dense 1x1": Case(conv(24, 44, 1), (RGB,), ("conv",)),
        "dense 3x3, stride 2": Case(conv(24, 36, 3, 1, 2), ((2, 3, 15, 17),), ("conv",)),
        "dense 5x5, odd widths": Case(conv(7, 13, 5), (RGB,), ("conv",)),
        "image of three channels": Case(lambda: nn.Conv2d(3, 20, 7, 2, 3), ((1, 3, 31, 29),), ("conv",)),
        "signal": Case(
            sequence(lambda: nn.Conv1d(6, 20, 3), lambda: nn.Conv1d(20, 8, 5, groups=4)), ((2, 6, 33),), ("conv",)
        ),
        "Winograd": Case(conv(32, 40), ((1, 3, 14, 14),), ("winograd",)),
        "Winograd, odd widths": Case(conv(30, 27), ((1, 3, 13, 18),), ("winograd",)),
        "Strassen": Case(conv(128, 256, 1), ((1, 3, 14, 14),), ("strassen",)),
        "depthwise": Case(conv(22, 22, 3, 22), (RGB,), ("window",)),
        "depthwise 5x5, stride 2": Case(conv(12, 12, 5, 12, 2), (RGB,), ("window",)),
        "groups of 2": Case(conv(24, 24, 3, 12), (RGB,), ("window",)),
        "groups of 4": Case(conv(32, 32, 3, 8), (RGB,), ("grouped",)),
        "groups of 5 to 10": Case(conv(15, 30, 3, 3, 2), (RGB,), ("conv",)),
        "groups of 8, 1x1": Case(conv(32, 16, 1, 4), (RGB,), ("grouped",)),
        "groups of 16": Case(conv(48, 48, 3, 3, 2), (RGB,), ("grouped",)),
        "shuffle, split, concat": Case(Halves, ((2, 5, 8, 9),), ("conv", "window")),
        "gates and residuals": Case(Gated, ((1, 6, 9, 11),), ("conv", "elementwise")),
        "block-sparse 1x1": Case(sparse(conv(64, 64, 1)), ((1, 3, 12, 12),), ("block_sparse",)),
        "block-sparse 3x3": Case(sparse(conv(48, 48)), ((1, 3, 9, 12),), ("block_sparse",)),
        "block-sparse, stride 2": Case(sparse(conv(48, 48, 3, 1, 2)), ((2, 3, 9, 12),), ("block_sparse",)),
        "zeros that make no blocks": Case(sparse(conv(64, 64, 1), 0.9, 1), ((1, 3, 12, 12),), ("block_sparse",)),
        "Winograd without kernels of zeros": Case(sparse(conv(64, 64), 0.8, whole=True), ((1, 3, 14, 14),),
                                                  ("sparse_winograd",)),
        "transposed": Case(lambda: nn.ConvTranspose2d(6, 10, 4, 2, 1), ((1, 6, 7, 5),), ("conv",)),
        "pools": Case(
            sequence(lambda: nn.MaxPool2d(3, 2, 1), lambda: nn.AvgPool2d(2), lambda: nn.AdaptiveAvgPool2d(1)),
            ((2, 11, 17, 20),), ("window",),
        ),
        "linear layers": Case(
            sequence(lambda: nn.Linear(37, 50), nn.GELU, lambda: nn.Linear(50, 9), lambda: nn.Softmax(1)), ((3, 37),),
            ("conv", "rows"),
        ),
        "attention": Case(Attention, (ROWS,), ("matmul", "rows")),
        "group norm": Case(sequence(conv(24, 24, 1), lambda: nn.GroupNorm(6, 24)), (RGB,), ("norms",)),
        "instance norm": Case(lambda: nn.InstanceNorm2d(10, affine=True), ((2, 10, 7, 6),), ("norms",)),
        "LSTM": Case(lambda: First(nn.LSTM(24, 22, batch_first=True, bidirectional=True)), (ROWS,), ("recurrent",)),
        "GRU": Case(lambda: First(nn.GRU(24, 20, batch_first=True)), (ROWS,), ("recurrent",)),
        "LSTM, block-sparse": Case(sparse(lambda: First(nn.LSTM(24, 64)), 0.9), (ROWS,), ("recurrent",)),
        "resize": Case(
            sequence(lambda: nn.Conv2d(3, 10, 1), lambda: nn.Upsample(scale_factor=2, mode="bilinear")), (RGB,),
            ("resize",),
        ),
        "activations": Case(
            sequence(nn.SiLU, nn.Mish, nn.ELU, nn.Tanh, nn.Softsign, nn.Hardswish, nn.Sigmoid, nn.GELU, nn.SELU),
            ((2, 9, 6, 5),), ("elementwise",),
        ),
        "moves": Case(
            lambda: Apply(lambda x: F.pad(x.flip(2).transpose(1, 3), (1, 2)) * 2), ((2, 5, 6, 7),), ("copies",)
        ),
        "TVM's own operators": Case(
            lambda: Apply(lambda x: x.cumsum(1) + x.amax(1, keepdim=True)), ((2, 9, 6, 5),), ("tvm",)
        ),
    }
)  # fmt: skip
