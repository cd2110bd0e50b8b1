"""The tables of the efficient-architecture papers, counted by the cost pass on the reference networks.

    python -m bench.reach.tables

ResNeXt's table 1 (ResNet-50 and ResNeXt-50), MobileNet's table 2 (shares by kind of layer) and the complexities of
ShuffleNet's table 2. A multiply-accumulate counts 1; only convolutions and fully connected layers have any: batch
norms, activations, additions and pooling count nothing. As in the papers, parameters are those of convolutions and
fully connected layers, without batch norm; MobileNet's table leaves biases out too.

*MobileNet*: the paper prints 1.19 % of the multiply-accumulates for conv 3x3. That is 1.91 with two digits exchanged:
the one dense 3x3 has 3*3*3*32*112*112 = 10.84 M of 568.74 M, which is 1.91 %; and 94.86 + 3.06 + 1.91 + 0.18 is 100.01,
while with 1.19 the column sums to 99.29.

*ShuffleNet*: the paper's 140, 38 and 13 MFLOPs are budgets that every number of groups comes near, since channels are
whole; the last table says by how many per cent each lies next to them. "1, convolutions" leaves out the fully connected
layer: so counted, the five are 143, 140, 137, 133 and 137 M, the complexities that the paper lists below its table 1.
"""

from __future__ import annotations

import sys
from collections import Counter
from functools import cache

import torch

from bench.lib import common
from bench.nets.reference_nets import REFERENCES, SHUFFLENET_WIDTH
from secateur.ir import Graph
from secateur.ir.frontends.torch.trace import trace
from secateur.passes.analysis.cost import Costs, cost

SCALES = {"1": "", "0.5": "_x0.5", "0.25": "_x0.25"}  # the ending of a reference network's name
PRINTED = {"1": 140, "0.5": 38, "0.25": 13}  # ShuffleNet's table 2, MFLOPs
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


def shufflenet_macs() -> dict[str, list[int]]:
    """Multiply-accumulates for each number of groups, by scale; and of scale 1 those of its convolutions alone."""
    names = {scale: [f"shufflenet_v1_g{g}{end}" for g in SHUFFLENET_WIDTH] for scale, end in SCALES.items()}
    found = {scale: [costs_of(n).macs for n in named] for scale, named in names.items()}
    classifiers = [costs_of(n).layers[-1].macs for n in names["1"]]
    found["1, convolutions"] = [a - b for a, b in zip(found["1"], classifiers, strict=True)]
    return found


def shufflenet_table() -> list[tuple[str, ...]]:
    """Scale, then millions of multiply-accumulates for each number of groups."""
    return [(scale, *(f"{macs / 1e6:.1f}" for macs in row)) for scale, row in shufflenet_macs().items()]


def beside_budgets() -> list[tuple[str, ...]]:
    """Scale and what the paper prints, then by how many per cent each number of groups lies next to it."""
    counted = shufflenet_macs()
    return [
        (scale, str(printed), *(f"{100 * (macs / 1e6 / printed - 1):+.1f}" for macs in counted[scale]))
        for scale, printed in PRINTED.items()
    ]


def text() -> str:
    """All tables."""
    groups = [f"g = {g}" for g in SHUFFLENET_WIDTH]
    return "\n\n".join(
        (
            common.table(["network", "params, M", "MACs, G"], residual_table()),
            common.table(["MobileNet v1", "mult-adds, %", "parameters, %"], mobilenet_table()),
            common.table(["ShuffleNet v1, M MACs", *groups], shufflenet_table()),
            common.table(["next to it, %", "printed", *groups], beside_budgets()),
        )
    )


def main() -> int:
    """Print the tables."""
    print(text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
