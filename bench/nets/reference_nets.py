"""The networks of the efficient-architecture papers, each from one readable description.

ResNet-50 (He et al., CVPR 2016, stride in the 3x3), ResNeXt-50 32x4d (Xie et al., CVPR 2017), SE-ResNet-50 (Hu et
al., CVPR 2018), MobileNet v1 (Howard et al., 2017) and ShuffleNet v1 (Zhang et al., CVPR 2018, table 1) for every
number of groups and every scale of its table 2. Weights are random; inputs are f32[N, 3, 224, 224], outputs
f32[N, 1000].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv(inner: int, outer: int, kernel: int, stride: int = 1, groups: int = 1, relu: bool = True) -> nn.Sequential:
    """Convolution without bias, batch norm and, if asked for, ReLU; the map shrinks by the stride alone."""
    layers: list[nn.Module] = [
        nn.Conv2d(inner, outer, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outer),
    ]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if relu else nn.Sequential(*layers)


class SqueezeExcite(nn.Module):
    """Channel gates from the global average, through a bottleneck of a sixteenth."""

    def __init__(self, width: int, reduction: int = 16) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, width // reduction), nn.Linear(width // reduction, width)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3))))))
        return x * gate[:, :, None, None]


class Bottleneck(nn.Module):
    """1x1, 3x3 (grouped in ResNeXt), 1x1 to four times the width, gates if asked for, and the shortcut."""

    def __init__(self, inner: int, middle: int, outer: int, stride: int, groups: int, gates: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(inner, middle, 1), conv(middle, middle, 3, stride, groups), conv(middle, outer, 1, relu=False)
        )
        self.gates = SqueezeExcite(outer) if gates else nn.Identity()
        changed = stride != 1 or inner != outer
        self.shortcut = conv(inner, outer, 1, stride, relu=False) if changed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.gates(self.body(x)) + self.shortcut(x))


def residual(groups: int = 1, group_width: int = 64, gates: bool = False) -> nn.Sequential:
    """ResNet-50 and its relatives: stages of 3, 4, 6 and 3 bottlenecks."""
    layers: list[nn.Module] = [conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    inner = 64
    for stage, depth in enumerate((3, 4, 6, 3)):
        middle, outer = groups * group_width * 2**stage, 256 * 2**stage
        for block in range(depth):
            stride = 2 if block == 0 and stage > 0 else 1
            layers.append(Bottleneck(inner, middle, outer, stride, groups, gates))
            inner = outer
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inner, 1000))


MOBILENET = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))


def mobilenet_v1() -> nn.Sequential:
    """Thirteen pairs of depthwise 3x3 and 1x1, from 32 channels to 1024."""
    layers: list[nn.Module] = [conv(3, 32, 3, 2)]
    inner = 32
    for outer, stride in MOBILENET:
        layers += [conv(inner, inner, 3, stride, groups=inner), conv(inner, outer, 1)]
        inner = outer
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inner, 1000))


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Channel c of group g goes to place c * groups + g."""
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class ShuffleUnit(nn.Module):
    """Grouped 1x1, shuffle, depthwise 3x3, grouped 1x1; added to the input, or joined with its average pool."""

    def __init__(self, inner: int, outer: int, groups: int, stride: int, first_groups: int) -> None:
        super().__init__()
        middle = whole(outer / 4, groups)
        branch = outer - inner if stride == 2 else outer
        self.groups, self.stride = groups, stride
        self.squeeze = conv(inner, middle, 1, groups=first_groups)
        self.depthwise = conv(middle, middle, 3, stride, groups=middle, relu=False)
        self.expand = conv(middle, branch, 1, groups=groups, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(self.depthwise(shuffle(self.squeeze(x), self.groups)))
        if self.stride == 2:
            return F.relu(torch.cat([F.avg_pool2d(x, 3, 2, 1), y], 1))
        return F.relu(x + y)


SHUFFLENET_WIDTH = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}  # output channels of the first stage, by groups


SHUFFLENET_FIRST = {1: 24, 0.5: 12, 0.25: 12}  # of the first layer, by scale


def whole(width: float, groups: int) -> int:
    """The width, rounded down to whole groups."""
    return round(width) // groups * groups


def shufflenet_v1(groups: int, scale: float = 1) -> nn.Sequential:
    """Stages of 4, 8 and 4 units, each twice as wide as the one before; the first 1x1 of all is not grouped.

    ``scale`` multiplies the widths of all units. The paper does not say how wide the first layer is then: 12 gives its
    38 and 13 million multiply-accumulates (6 would give 11 at 0.25x).
    """
    inner = whole(SHUFFLENET_FIRST[scale], groups)
    layers: list[nn.Module] = [conv(3, inner, 3, 2), nn.MaxPool2d(3, 2, 1)]
    for stage, depth in enumerate((4, 8, 4)):
        outer = whole(SHUFFLENET_WIDTH[groups] * scale, groups) * 2**stage
        for block in range(depth):
            first = stage == 0 and block == 0
            layers.append(ShuffleUnit(inner, outer, groups, 2 if block == 0 else 1, 1 if first else groups))
            inner = outer
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inner, 1000))


@dataclass(frozen=True)
class Reference:
    """A network and what its paper says of it: parameters and multiply-accumulates, None where it says nothing."""

    make: Callable[[], nn.Module]
    params: float | None
    macs: float | None


REFERENCES: dict[str, Reference] = {
    "resnet50": Reference(residual, 25.5e6, 4.1e9),
    "resnext50_32x4d": Reference(lambda: residual(32, 4), 25.0e6, 4.2e9),
    "se_resnet50": Reference(lambda: residual(gates=True), None, None),
    "mobilenet_v1": Reference(mobilenet_v1, 4.2e6, 569e6),
    **{f"shufflenet_v1_g{g}": Reference(partial(shufflenet_v1, g), None, 140e6) for g in SHUFFLENET_WIDTH},
    **{
        f"shufflenet_v1_g{g}_x{scale:g}": Reference(partial(shufflenet_v1, g, scale), None, macs)
        for scale, macs in ((0.5, 38e6), (0.25, 13e6))
        for g in SHUFFLENET_WIDTH
    },
}
