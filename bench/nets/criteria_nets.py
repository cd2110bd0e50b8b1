"""Five small networks, one for each way in which channels are bound: for 28x28 pictures of one channel, ten classes.

plain: nothing is bound. residual: sums. resnext: grouped convolutions between pointwise ones, and sums. shuffle:
split, concatenation and channel shuffle. mobile: inverted bottlenecks, depthwise convolutions and sums. All begin with
a convolution of stride 2, and none has more than 110,000 parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: bool = True) -> nn.Module:
    """Convolution, batch norm and, if asked for, ReLU."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, nn.ReLU()) if act else nn.Sequential(*layers)


def classifier(body: list[nn.Module], width: int) -> nn.Module:
    """The body, the mean over the picture, and ten scores."""
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


class Residual(nn.Module):
    """What ``branch`` computes, added to its input or, where shapes differ, to a pointwise convolution of it."""

    def __init__(self, inputs: int, outputs: int, stride: int, branch: nn.Module, act: bool = True) -> None:
        super().__init__()
        same = inputs == outputs and stride == 1
        self.branch = branch
        self.shortcut = nn.Identity() if same else conv(inputs, outputs, 1, stride, act=False)
        self.act = nn.ReLU() if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.branch(x) + self.shortcut(x))
        return out


class Shuffle(nn.Module):
    """ShuffleNet V2's unit: half of the channels pass, the others are computed, and both are shuffled."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        into = inputs // 2 if stride == 1 else inputs
        self.split = stride == 1
        self.passing = (
            nn.Identity()
            if stride == 1
            else nn.Sequential(conv(inputs, inputs, 3, stride, inputs, act=False), conv(inputs, half, 1))
        )
        self.computed = nn.Sequential(
            conv(into, half, 1), conv(half, half, 3, stride, half, act=False), conv(half, half, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1) if self.split else (x, x)
        both = torch.cat([self.passing(left), self.computed(right)], 1)
        n, c, h, w = both.shape
        return both.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def plain() -> nn.Module:
    """Five convolutions, as in VGG."""
    return classifier([conv(1, 16, 3, 2), conv(16, 24), conv(24, 32, 3, 2), conv(32, 48, 3, 2), conv(48, 64)], 64)


def residual() -> nn.Module:
    """ResNet-8: three blocks of two 3x3 convolutions."""

    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        branch = nn.Sequential(conv(inputs, outputs, 3, stride), conv(outputs, outputs, act=False))
        return Residual(inputs, outputs, stride, branch)

    return classifier([conv(1, 16, 3, 2), block(16, 16, 1), block(16, 32, 2), block(32, 64, 2)], 64)


def resnext() -> nn.Module:
    """Three bottlenecks with grouped 3x3 convolutions, 8 channels a group."""

    def block(inputs: int, width: int, outputs: int, stride: int) -> nn.Module:
        branch = nn.Sequential(
            conv(inputs, width, 1), conv(width, width, 3, stride, width // 8), conv(width, outputs, 1, act=False)
        )
        return Residual(inputs, outputs, stride, branch)

    return classifier([conv(1, 16, 3, 2), block(16, 32, 32, 2), block(32, 64, 64, 2), block(64, 128, 96, 1)], 96)


def shuffle() -> nn.Module:
    """Two stages of ShuffleNet V2, a unit of stride 2 and two of stride 1 in each."""
    body = [conv(1, 24, 3, 2)]
    for inputs, outputs in ((24, 64), (64, 128)):
        body += [Shuffle(inputs, outputs, 2), Shuffle(outputs, outputs, 1), Shuffle(outputs, outputs, 1)]
    return classifier([*body, conv(128, 128, 1)], 128)


def mobile() -> nn.Module:
    """Five inverted bottlenecks of MobileNetV2, expanded four times."""

    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        wide = inputs * 4
        branch = nn.Sequential(
            conv(inputs, wide, 1), conv(wide, wide, 3, stride, wide), conv(wide, outputs, 1, act=False)
        )
        if stride == 1 and inputs == outputs:
            return Residual(inputs, outputs, stride, branch, act=False)
        return branch

    shapes = ((16, 24, 2), (24, 24, 1), (24, 40, 2), (40, 40, 1), (40, 40, 1))
    return classifier([conv(1, 16, 3, 2), *(block(*shape) for shape in shapes), conv(40, 128, 1)], 128)


class Concatenated(nn.Module):
    """A layer of DenseNet: what it computes is put after what it read."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(
            nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, growth, 3, padding=1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.layer(x)], 1)


def dense() -> nn.Module:
    """Two blocks of DenseNet, four layers each that add 12 channels: every layer reads what all before it made."""
    first, second = ([Concatenated(inputs + 12 * k, 12) for k in range(4)] for inputs in (16, 32))
    narrower = [nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 32, 1, bias=False), nn.AvgPool2d(2)]
    return classifier([conv(1, 16, 3, 2), *first, *narrower, *second, nn.BatchNorm2d(80), nn.ReLU()], 80)


NETS: Mapping[str, Callable[[], nn.Module]] = MappingProxyType(
    {"plain": plain, "residual": residual, "resnext": resnext, "shuffle": shuffle, "mobile": mobile}
)
EVERY = MappingProxyType({**NETS, "dense": dense})  # with a network whose tensors all have many readers
