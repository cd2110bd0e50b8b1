"""The tables of the efficient-architecture papers, counted by the cost pass on the reference networks.

    python bench/tables.py

ResNeXt's table 1 (ResNet-50 and ResNeXt-50), MobileNet's table 2 (shares by kind of layer) and the complexities of
ShuffleNet's table 2. A multiply-accumulate counts 1. As in the papers, parameters are those of convolutions and fully
connected layers, without batch norm; MobileNet's table leaves biases out too.
"""

from __future__ import annotations

import sys
from collections import Counter
from functools import cache

import torch

import common
from reference_nets import REFERENCES, SHUFFLENET_WIDTH
from secateur.ir import Graph
from secateur.ir.frontends.torch import trace
from secateur.passes.analysis.cost import Costs, cost

KINDS = ("conv 1x1", "depthwise 3x3", "conv 3x3", "fully connected")


def graph_of(name: str) -> Graph:
    """The reference network's graph at 224x224, batch 1; weights do not matter here."""
    return trace(REFERENCES[name].make().eval(), (torch.zeros(1, 3, 224, 224),), dynamic_batch=False)


@cache
def costs_of(name: str) -> Costs:
    """What the reference network costs."""
    return cost(graph_of(name))


def layers_of(costs: Costs) -> int:
    """Parameters of convolutions and fully connected layers."""
    return sum(layer.params for layer in costs.layers)


def residual_table() -> list[tuple[str, str, str]]:
    """Network, millions of parameters, billions of multiply-accumulates."""
    found = []
    for name in ("resnet50", "resnext50_32x4d", "se_resnet50"):
        costs = costs_of(name)
        found.append((name, f"{layers_of(costs) / 1e6:.1f}", f"{costs.macs / 1e9:.1f}"))
    return found


def mobilenet_table() -> list[tuple[str, str, str]]:
    """Kind of layer, its share of the multiply-accumulates and of the weights in per cent."""
    graph = graph_of("mobilenet_v1")
    macs: Counter[str] = Counter()
    weights: Counter[str] = Counter()
    for layer in cost(graph).layers:
        node = graph.producer[layer.node]
        shape = graph.weights[str(node.inputs[1])].shape
        window = 3 if node.op == "linear" else 0 if shape[-1] == 1 else 1 if node.attrs["groups"] > 1 else 2
        macs[KINDS[window]] += layer.macs
        weights[KINDS[window]] += graph.weights[str(node.inputs[1])].size
    return [
        (kind, f"{100 * macs[kind] / macs.total():.2f}", f"{100 * weights[kind] / weights.total():.2f}")
        for kind in KINDS
    ]


def shufflenet_table() -> list[tuple[str, ...]]:
    """Scale, then millions of multiply-accumulates for each number of groups."""
    found = []
    for scale in ("", "_x0.5", "_x0.25"):
        names = [f"shufflenet_v1_g{g}{scale}" for g in SHUFFLENET_WIDTH]
        found.append((scale[2:] or "1", *(f"{costs_of(n).macs / 1e6:.1f}" for n in names)))
    return found


def text() -> str:
    """All three tables."""
    groups = [f"g = {g}" for g in SHUFFLENET_WIDTH]
    return "\n\n".join(
        (
            common.table(["network", "params, M", "MACs, G"], residual_table()),
            common.table(["MobileNet v1", "mult-adds, %", "parameters, %"], mobilenet_table()),
            common.table(["ShuffleNet v1", *groups], shufflenet_table()),
        )
    )


def main() -> int:
    """Print the tables."""
    print(text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
