"""The networks that speed is measured on, by name, each with drawn weights and an input.

A name is `COLLECTION/MODEL`, with `@50%` after it where secateur removes channels until that share of the
multiply-accumulates remains: `ref/` is reference_nets, `light/` the onnx wheel's zoo graphs, the others are zoo's
collections. Inputs are f32[1, 3, 224, 224], and graphs are captured for that batch alone: a network whose batch may
vary costs OpenVINO its static shapes and TVM its schedules.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import secateur
from bench.data import light_models, zoo
from bench.nets.reference_nets import REFERENCES
from secateur.ir import Graph
from secateur.ir.exporters.torch.module import to_module
from secateur.ir.frontends.onnx.load import load
from secateur.ir.frontends.torch.trace import trace


@dataclass(frozen=True)
class Network:
    """A graph, the module that a user of torch would compile, and an input."""

    graph: Graph
    module: nn.Module
    x: NDArray[np.float32]


def capture(name: str, seed: int, *, dynamic_batch: bool = False, batch: int = 1) -> Network:
    """The network of this name, unpruned. The same seed gives the same weights on the same machine.

    With ``dynamic_batch`` the graph takes any number of pictures, else ``batch`` (those of ``light/`` one).
    """
    torch.set_num_threads(1)  # sums in one order: what is cached by content is found again
    collection, _, model = name.partition("/")
    generator = torch.Generator().manual_seed(seed)
    if collection == "light":
        graph = load(light_models.light(model, seed))
        shape = tuple(map(int, graph.inputs[0].shape))
        return Network(graph, to_module(graph), torch.randn(shape, generator=generator).numpy())
    torch.manual_seed(seed)
    module = (REFERENCES[model].make() if collection == "ref" else zoo.BUILDERS[collection](model)).eval()
    x = torch.randn(batch, 3, 224, 224, generator=generator)
    with torch.no_grad():
        zoo.redraw(module, generator)
        zoo.calibrate(module, torch.randn(2, 3, 224, 224, generator=generator), generator)
    return Network(trace(module, (x,), dynamic_batch=dynamic_batch, name=model), module, x.numpy())


def prune(network: Network, share: str, round_to: int | str) -> Network:
    """The network with channels removed until ``share`` of its multiply-accumulates remains."""
    graph = secateur.compile(network.graph, macs=share, round_to=round_to).graph
    return Network(graph, to_module(graph), network.x)
