"""Hidden units of layers over tokens, which lie along another axis than the channels (MLP-Mixer)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import secateur


class Mixing(nn.Module):
    """Two layers over tokens between layers over channels."""

    def __init__(self, act: nn.Module, last: nn.Module) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 16), nn.LayerNorm(16), last
        self.up, self.act, self.down = nn.Linear(10, 24), act, nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Mean scores of the tokens."""
        y = self.first(x)
        result: Tensor = self.last(y + self.down(self.act(self.up(self.norm(y).transpose(1, 2)))).transpose(1, 2))
        return result.mean(1)


X = torch.randn(2, 10, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("act", [nn.GELU(approximate="tanh"), nn.SiLU()])
def test_the_hidden_units_go_and_the_channels_too(act: nn.Module) -> None:
    torch.manual_seed(0)
    module = Mixing(act, nn.Linear(16, 3)).eval()
    slim = secateur.compile(module, widths={"up": 0.25, "first": 0.5}, example_inputs=(X,))
    widths = {layer.name: layer.widths[1] for layer in slim.report.layers}
    assert widths["up"] == (10, 6) and widths["down"] == (6, 10) and widths["first"] == (6, 8)
    assert slim.report.verification is not None and slim.report.verification.passed


def test_what_needs_all_tokens_is_named() -> None:
    module = Mixing(nn.Softmax(-1), nn.Linear(16, 3)).eval()
    slim = secateur.compile(module, macs=0.6, example_inputs=(X,))
    up = next(layer for layer in slim.report.layers if layer.name == "up")
    assert up.widths == ((10, 24), (10, 24)) and up.macs[1] is not None and up.macs[1] < up.macs[0]
    assert up.state == "pruned" and str(up.reason).startswith("over fewer channels, all outputs stay: ")
    assert "softmax act reads all of it" in str(up.reason)


@pytest.mark.parametrize("criterion", ["nisp", "taylor", "apoz"])
def test_criteria_know_units_along_another_axis(criterion: str) -> None:
    data = [(torch.randn(4, 10, 6), torch.randint(0, 3, (4,))) for _ in range(2)]
    scores = secateur.scores(
        Mixing(nn.ReLU(), nn.Linear(16, 3)).eval(), criterion, example_inputs=(X,), calibration=data
    )
    hidden = next(s for s in scores.values() if len(s) == 24)
    assert np.isfinite(hidden).all() and len(np.unique(hidden)) > 12
