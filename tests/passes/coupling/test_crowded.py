"""Ties that would keep most of what they tie: shifted copies, overlapping windows, channels next to padding."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import secateur


class Harmonics(nn.Module):
    """A filter bank whose bands lie along the height, next to copies of itself shifted by some bands."""

    def __init__(self) -> None:
        super().__init__()
        self.bank, self.body, self.last = nn.Conv1d(1, 24, 5), nn.Conv2d(3, 16, 3), nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Two maps over bands and time."""
        y = self.bank(x)[:, None]
        moved = [F.pad(y[:, :, by:], (0, 0, 0, by)) for by in (3, 7)]
        result: Tensor = self.last(torch.relu(self.body(torch.cat([y, *moved], 1))))
        return result


class Windows(nn.Module):
    """Overlapping windows of three features each, taken along the features."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(12, 24), nn.Linear(72, 3)
        self.register_buffer("at", torch.arange(24)[:, None] + torch.arange(3))

    def forward(self, x: Tensor) -> Tensor:
        """Three scores."""
        y = F.pad(torch.relu(self.first(x)), (1, 1))
        result: Tensor = self.last(y[:, self.at].flatten(1))
        return result


class Widening(nn.Module):
    """A shortcut that is padded with channels of zeros (option A of the ResNets for CIFAR)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.body, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 32, 3, 1, 1), nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Four maps."""
        y = torch.relu(self.first(x))
        result: Tensor = self.last(F.pad(y, (0, 0, 0, 0, 8, 8)) + self.body(y))
        return result


@pytest.mark.parametrize(("module", "shape"), [(Harmonics(), (1, 1, 40)), (Windows(), (2, 12))])
def test_no_layer_is_frozen_but_for_the_output(module: nn.Module, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    slim = secateur.compile(module.eval(), "l1", example_inputs=(torch.randn(*shape),), macs=0.5)
    reasons = {layer.name: layer.reason for layer in slim.report.layers if layer.state == "frozen"}
    assert not {name: why for name, why in reasons.items() if "graph output" not in str(why)}
    assert slim.report.verification is not None and slim.report.verification.law == "exact"


def test_padding_goes_with_what_it_is_added_to() -> None:
    torch.manual_seed(0)
    slim = secateur.compile(Widening().eval(), widths={"body": 0.25}, example_inputs=(torch.randn(1, 3, 8, 8),))
    body = next(layer for layer in slim.report.layers if layer.name == "body")
    assert body.widths[1] is not None and body.widths[1][1] == 8
