"""Sampling from pictures stays torch's own operator in the IR, keeps its channels, and is written as GridSample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import secateur
from bench.reach import onnx_reference


class Warp(nn.Module):
    def __init__(self, mode: str, padding: str, corners: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 24, 3, padding=1), nn.Conv2d(24, 4, 3, padding=1)
        self.how = {"mode": mode, "padding_mode": padding, "align_corners": corners}

    def forward(self, x: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.last(F.grid_sample(torch.relu(self.first(x)), grid, **self.how))
        return found


@pytest.mark.parametrize(
    ("mode", "padding", "corners"),
    [("bilinear", "zeros", False), ("nearest", "border", True), ("bicubic", "reflection", False)],
)
def test_a_warped_network_is_cut_and_written(mode: str, padding: str, corners: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    x, grid = torch.randn(1, 3, 9, 11), torch.rand(1, 6, 7, 2) * 2.2 - 1.1
    slim = secateur.compile(Warp(mode, padding, corners).eval(), macs="60%", example_inputs=(x, grid))
    assert slim.graph.nodes[0].out.shape[1] < 24
    assert not any(n.op == "gather" for n in slim.graph.nodes)
    slim.save(tmp_path / "slim.onnx")
    feeds = dict(zip((v.name for v in slim.graph.inputs), (x.numpy(), grid.numpy()), strict=True))
    (found,) = onnx_reference.answer(str(tmp_path / "slim.onnx"), feeds).values()
    with torch.no_grad():
        assert np.abs(found - slim.module()(x, grid).numpy()).max() < 1e-4
