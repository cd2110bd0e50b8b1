"""Whole networks, small, against the torch executor."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.data import zoo
from bench.data.torchvision_shim import models
from secateur import codegen
from secateur.ir.exporters.torch.module import evaluate
from secateur.ir.frontends.torch.trace import trace

NETWORKS = (
    "tv/shufflenet_v2_x1_0", "densenet", "resnext", "tv/squeezenet1_1", "timm/legacy_seresnet18",
    "tv/mobilenet_v3_small",
)  # fmt: skip


def made(name: str) -> torch.nn.Module:
    """A network of the zoo, or one of a deep kind with fewer layers: each layer is a kernel more to compile."""
    kind, _, model = name.partition("/")
    if model:
        return zoo.BUILDERS[kind](model)
    if name == "resnext":
        grouped: torch.nn.Module = models.ResNet(models.resnet.Bottleneck, [1, 1, 1, 1], groups=32, width_per_group=4)
        return grouped
    dense: torch.nn.Module = models.DenseNet(growth_rate=16, block_config=(2, 4, 3, 2), num_init_features=32)
    return dense


@pytest.mark.parametrize("name", NETWORKS)
def test_network(name: str) -> None:
    torch.manual_seed(0)
    module = made(name).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        zoo.redraw(module, generator)
        zoo.calibrate(module, torch.randn(2, 3, 64, 64, generator=generator), generator)
    x = torch.randn(1, 3, 64, 64, generator=generator)
    graph = trace(module, (x,), name=name)
    lib = codegen.build(graph)
    got, want = lib(x.numpy()), evaluate(graph, {graph.inputs[0].name: x.numpy()})[0]
    assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()
    assert not lib.metadata.notes


class Shuffled(torch.nn.Module):
    """Shuffles of one spatial axis and of two, in two parts and in three."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = torch.nn.Conv1d(8, 32, 3, padding=1), torch.nn.Conv1d(32, 32, 3, padding=1, groups=4)
        self.c, self.d = torch.nn.Conv2d(4, 32, 3, padding=1), torch.nn.Conv2d(32, 16, 1, groups=2)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = torch.relu(self.a(x))
        n, c, length = h.shape
        h = h.reshape(n, 4, c // 4, length).transpose(1, 2).reshape(n, c, length)
        g = self.c(y)
        n, c, rows, columns = g.shape
        g = g.reshape(n, 2, 4, 4, rows, columns).permute(0, 3, 2, 1, 4, 5).reshape(n, c, rows, columns)
        return self.b(h), self.d(g)


def test_shuffles_of_any_rank_and_number_of_parts() -> None:
    torch.manual_seed(0)
    module = Shuffled().eval()
    x, y = torch.randn(2, 8, 20), torch.randn(2, 4, 6, 6)
    lib = codegen.build(trace(module, (x, y)))
    for got, want in zip(lib(x.numpy(), y.numpy()), module(x, y), strict=True):
        np.testing.assert_allclose(got, want.detach().numpy(), rtol=1e-4, atol=1e-5)
