"""Networks for 28x28 pictures of one channel in ten classes: a plain one to rewrite, and ShuffleNets of equal
complexity.

plain: a convolution of stride 2 to 14x14, two residual blocks of two 3x3, a stride-2 convolution to twice the width,
two more blocks. shufflenet: ShuffleNet v1's units (Zhang et al., CVPR 2018) on 14x14, 7x7 and 4x4, as wide as a
complexity allows at a number of groups: the deck's "more groups, more channels".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.nets.reference_nets import ShuffleUnit, conv
from secateur.ir import Graph
from secateur.ir.frontends.torch.trace import trace
from secateur.passes.analysis.cost import cost

WIDTH = 16  # of the plain network's first half
SHUFFLE_MACS = 560_000  # at which the five networks differ least: by 7 %
SHUFFLE_FIRST = 24


class Block(nn.Module):
    """Two 3x3 and the shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(width, width, 3), conv(width, width, 3, relu=False))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = nn.functional.relu(x + self.body(x))
        return out


def classifier(layers: list[nn.Module], width: int) -> nn.Sequential:
    """The layers, the mean over the picture, and ten scores."""
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def plain(width: int = WIDTH) -> nn.Sequential:
    """The network that is rewritten."""
    layers: list[nn.Module] = [conv(1, width, 3, 2), Block(width), Block(width)]
    layers += [conv(width, 2 * width, 3, 2), Block(2 * width), Block(2 * width)]
    return classifier(layers, 2 * width)


def shufflenet(groups: int, width: int) -> nn.Sequential:
    """Two stages of three units; the first has ``width`` channels, the second twice as many."""
    inner = SHUFFLE_FIRST
    layers: list[nn.Module] = [conv(1, inner, 3, 2)]
    for stage in range(2):
        outer = width * 2**stage
        for block in range(3):
            first = stage == 0 and block == 0
            layers.append(ShuffleUnit(inner, outer, groups, 2 if block == 0 else 1, 1 if first else groups))
            inner = outer
    return classifier(layers, inner)


def graph_of(module: nn.Module) -> Graph:
    """The graph of a network here."""
    return trace(module.eval(), (torch.zeros(1, 1, 28, 28),))


def macs(module: nn.Module) -> int:
    """Multiply-accumulates for one picture."""
    return cost(graph_of(module)).macs


def plain_width(target: int) -> int:
    """The width at which the plain network comes nearest to so many multiply-accumulates."""
    return min(range(4, 2 * WIDTH), key=lambda w: abs(_plain_macs(w) - target))


def _plain_macs(width: int) -> int:
    """Counted by hand, since the network is simple: checked against the cost pass by the script that uses it."""
    return 196 * 9 * width + 4 * 196 * 9 * width**2 + 49 * 9 * 2 * width**2 + 4 * 49 * 9 * 4 * width**2 + 20 * width


def shuffle_width(groups: int, target: int = SHUFFLE_MACS) -> int:
    """The widest first stage whose network stays nearest to the target; whole groups in every layer."""
    steps = [w for w in range(4 * groups, 1000, 4 * groups) if w > SHUFFLE_FIRST and (w - SHUFFLE_FIRST) % groups == 0]
    best, known = steps[0], abs(macs(shufflenet(groups, steps[0])) - target)
    for width in steps[1:]:
        off = abs(macs(shufflenet(groups, width)) - target)
        if off > known:
            break
        best, known = width, off
    return best
