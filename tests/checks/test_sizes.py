"""At which other sizes a captured network is run: at none that its own shapes refuse."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from secateur.checks.sizes import Resizing  # noqa: E402
from secateur.ir.frontends.torch.trace import trace  # noqa: E402


class Halves(nn.Module):
    """Joins what was halved and doubled to what was not: only even sizes go."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x: Any) -> Any:
        y = self.a(x)
        return self.b(torch.cat([y, F.interpolate(F.avg_pool2d(y, 2), scale_factor=2)], 1))


def test_only_sizes_that_the_network_takes_are_offered() -> None:
    graph = trace(Halves().eval(), (torch.randn(2, 3, 16, 16),))
    offered = [shapes["x"] for choices in Resizing(graph).others() for shapes in choices]
    assert any(shape[2:] != (16, 16) for shape in offered)
    assert all(height % 2 == 0 and width % 2 == 0 for _, _, height, width in offered)


def test_no_axis_is_so_long_that_positions_between_pixels_are_rounded() -> None:
    """At 16,001 rows two runtimes' own bilinear resizing differs by 8e-4: single precision, and no fault."""
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=True))
    graph = trace(network.eval(), (torch.randn(2, 3, 16, 1),))
    sizes = [shapes["input"][2:] for choices in Resizing(graph).others() for shapes in choices]
    assert max(max(pair) for pair in sizes) in range(293, 513)
