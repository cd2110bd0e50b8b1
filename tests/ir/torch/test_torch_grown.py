"""Constants and paddings that follow the sizes of the inputs: the graph gives them at any size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur
from secateur.ir.exporters.torch.module import to_module


class Apply(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *x: Tensor) -> Any:
        return self.function(*x)


def _grid(x: Tensor) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(x.shape[2]), torch.arange(x.shape[3]), indexing="xy")
    return x + torch.stack([rows, columns]).sum(0).T / torch.tensor([x.shape[3] - 1])


def _relative(x: Tensor) -> Tensor:
    away = torch.arange(x.shape[2])[:, None] - torch.arange(x.shape[3])[None]
    return x + torch.arange(7.0)[away.clamp(-3, 3) + 3]


CASES: dict[str, Callable[..., Any]] = {
    "line": lambda x: x + torch.linspace(-1, 1, x.shape[3]),
    "unit": lambda x: x @ torch.eye(x.shape[3]),
    "triangle": lambda x: x * torch.ones(x.shape[2], x.shape[3]).triu(-2) + x.tril(1),
    "grid": _grid,
    "relative": _relative,
    "stepped": lambda x: x + torch.arange(0, 2 * x.shape[3], 2),
    "both ways": lambda x: x + torch.arange(-x.shape[3] + 1, x.shape[3]).float().mean(),
    "indexed": lambda x: x[:, :, torch.arange(x.shape[2])[:, None], torch.arange(x.shape[3])[None] - 1],
    "area": lambda x: x / (x.shape[2] * x.shape[3]) + x * (1.0 / x.shape[2]),
    "padded": lambda x: F.pad(x, (0, -x.shape[3] % 2, 0, -x.shape[2] % 4)),
    "windowed": lambda x: F.pad(x, (0, -x.shape[3] % 7, 0, -x.shape[2] % 8)),
    "causal": lambda x: F.scaled_dot_product_attention(*[x[..., :8]] * 3, is_causal=True),
    "affine": lambda x: F.affine_grid(x[:, :2, :3, 0].sin(), list(x.shape), align_corners=False),
    "batch norm": lambda x: F.batch_norm(x, None, None, torch.ones(3), torch.zeros(3), True),
    "bilinear": lambda x: F.bilinear(x[..., :4], x[..., 4:8], torch.arange(48.0).view(3, 4, 4).cos()),
    "threshold": lambda x: F.threshold(x, 0.2, -3.0),
    "turned": lambda x: torch.rot90(x, -1, (3, 2)).repeat_interleave(2, 1),
    "unfolded": lambda x: F.unfold(x, (2, 3), dilation=(2, 1), padding=(1, 0), stride=(2, 3)),
}


@pytest.mark.parametrize("name", CASES)
def test_constants_follow_the_sizes(name: str) -> None:
    module = Apply(CASES[name])
    graph = secateur.trace(module, (torch.randn(2, 3, 12, 14),))
    assert not any(node.op == "opaque" for node in graph.nodes)
    read = to_module(graph)
    for shape in ((2, 3, 12, 14), (1, 3, 9, 17), (3, 3, 23, 10)):
        x = torch.randn(shape)
        assert torch.allclose(read(x), module(x), atol=1e-5)


def test_sizes_that_inputs_share_are_open() -> None:
    graph = secateur.trace(Apply(lambda x, a: torch.relu(a @ x)), (torch.randn(2, 6, 8), torch.randn(2, 6, 6)))
    assert [[getattr(d, "name", d) for d in value.shape] for value in graph.inputs] == [
        ["N", "d1", 8],
        ["N", "d1", "d1"],
    ]


def test_where_maxima_were_is_handed_on() -> None:
    module = Apply(lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2))
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(to_module(secateur.trace(module, (x,)))(x), module(x))
