"""The networks of benchmarks for GPUs: of the zoo, some pruned, some with zeros in blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from bench.lib import common

if TYPE_CHECKING:
    from torch import nn

    from secateur.ir import Graph

SHARES: Mapping[str, float] = MappingProxyType(  # of the multiply-accumulates that are left
    {
        "tv/mobilenet_v2": 1.0, "tv/resnet18": 1.0, "tv/resnet50": 1.0, "tv/shufflenet_v2_x1_0": 1.0,
        "tv/resnext50_32x4d": 1.0, "timm/seresnet18": 1.0, "tv/densenet121": 1.0, "tv/squeezenet1_1": 1.0,
        "tv/regnet_y_400mf": 1.0, "tv/efficientnet_b0": 1.0, "tv/resnet18, half": 0.5, "tv/mobilenet_v2, half": 0.5,
    }
)  # fmt: skip
ZEROS: Mapping[str, tuple[float, str]] = MappingProxyType(  # the share of the weights, and in which pattern
    {"tv/resnet50, 70 % zeros": (0.7, "32x1"), "tv/resnet50, 2:4": (0.5, "2:4"), "tv/resnet50, 1:2": (0.5, "1:2")}
)
LSTM = "LSTM of 256 units, 100 steps"


@dataclass(frozen=True, eq=False)
class Subject:
    """A network as a graph and as PyTorch runs it, and an input."""

    name: str
    graph: Graph
    module: nn.Module
    x: Any


def recurrent(seed: int, batch: int) -> Subject:
    """An LSTM of 256 units over 100 steps."""
    import torch

    from bench.reach.emulated_cases import First
    from secateur.ir.frontends.torch.trace import trace

    torch.manual_seed(seed)
    module, x = First(torch.nn.LSTM(80, 256)).eval(), torch.randn(100, batch, 80)
    return Subject(LSTM, trace(module, (x,), name=LSTM, dynamic_batch=False), module, x.numpy())


def subject(name: str, seed: int, side: int, batch: int = 1) -> Subject:
    """A network by name, pruned as it says, on drawn images of ``side`` x ``side``. Raises secateur's errors."""
    if name == LSTM:
        return recurrent(seed, batch)
    import torch

    import secateur
    from bench.data import zoo
    from secateur.ir.exporters.torch.module import to_module
    from secateur.ir.frontends.torch.trace import trace

    kind, _, model = name.partition(",")[0].partition("/")
    module = zoo.build(kind, model, seed)
    x = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(seed))
    if name not in ZEROS and SHARES.get(name, 1.0) == 1.0:
        return Subject(name, trace(module, (x,), name=name, dynamic_batch=False), module, x.numpy())
    options: common.Row = {"target": "opencl", "macs": SHARES.get(name, 1.0)}
    if name in ZEROS:
        options |= {"target": "cuda:sm_90", "sparsity": ZEROS[name][0], "block": ZEROS[name][1]}
    graph = secateur.compile(module, "l1", example_inputs=(x,), seed=seed, **options).graph
    return Subject(name, graph, to_module(graph), x.numpy())
