"""Whole networks, small, against the torch executor."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.data import zoo
from secateur import codegen
from secateur.ir.exporters.torch.module import evaluate
from secateur.ir.frontends.torch.trace import trace

NETWORKS = {
    "tv/resnet18": 0, "tv/mobilenet_v2": 0, "tv/shufflenet_v2_x1_0": 0, "tv/densenet121": 0, "tv/squeezenet1_1": 0,
    "timm/legacy_seresnet18": 0, "tv/mobilenet_v3_small": 0, "tv/regnet_y_400mf": 0,
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_network(name: str) -> None:
    kind, _, model = name.partition("/")
    torch.manual_seed(0)
    module = zoo.BUILDERS[kind](model).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        zoo.redraw(module, generator)
        zoo.calibrate(module, torch.randn(2, 3, 64, 64, generator=generator), generator)
    x = torch.randn(1, 3, 64, 64, generator=generator)
    graph = trace(module, (x,), name=model)
    lib = codegen.build(graph)
    got, want = lib(x.numpy()), evaluate(graph, {graph.inputs[0].name: x.numpy()})[0]
    assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()
    assert len(lib.metadata.notes) == NETWORKS[name], lib.metadata.notes
