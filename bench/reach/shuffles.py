"""How many channel shuffles are left as copies: in the graph after `fold_shuffle`, and in the generated code.

    python -m bench.reach.shuffles [--networks light/shufflenet,tv/shufflenet_v2_x1_0]

*absorbed*: those that `fold_shuffle` puts into the weights around them. *copies*: copying kernels in the program that
is generated for the network, less those for the same network without its shuffles. *error*: the library's outputs
after `fold_shuffle` against the network as it was, in ONNX Runtime for ONNX files and in torch for modules, relative.
"""

from __future__ import annotations

import dataclasses
import sys

import torch

from bench.lib import common
from bench.nets import networks
from secateur.codegen.backends import backend_for
from secateur.codegen.plan.copy_specs import CopySpec, MoveSpec, TableCopySpec
from secateur.codegen.plan.lower import lower
from secateur.codegen.targets import get_target
from secateur.codegen.tune.tuner import Tuner, open_records
from secateur.deploy import build
from secateur.ir import Graph, prune_dead
from secateur.ir.numeric import relative_error
from secateur.passes.rewrite.canonicalize import Canonicalize
from secateur.passes.rewrite.fold_shuffle import FoldShuffle, permutation
from secateur.run import evaluate

NAMES = (
    "light/shufflenet", "tv/shufflenet_v2_x1_0",
    *(f"ref/shufflenet_v1_g{g}" for g in (2, 3, 4, 8)),
)  # fmt: skip


def shuffles(graph: Graph) -> int:
    """Permutations of channels, once chains of movement are index maps."""
    return sum(permutation(graph, node) is not None for node in graph.nodes)


def without(graph: Graph) -> Graph:
    """The same network with its permutations left out: another function, as many other kernels."""
    alias: dict[str, str] = {}
    nodes = []
    for node in graph.nodes:
        node = dataclasses.replace(node, inputs=tuple(alias.get(i, i) if i else i for i in node.inputs))
        if permutation(graph, node) is None:
            nodes.append(node)
        else:
            alias[node.name] = str(node.inputs[0])
    return prune_dead(graph.rewrite(nodes=nodes))


def copies(graph: Graph) -> int:
    """Kernels in the network's program that only move data."""
    target = get_target("native")
    calls = lower(graph, target, 1, Tuner(target, 1, open_records(target, None)).choose, backend_for(target)).calls
    return sum(isinstance(call.spec, CopySpec | MoveSpec | TableCopySpec) for call in calls)


def measure(name: str, seed: int) -> common.Row:
    """One network."""
    network = networks.capture(name, seed)
    feed = {network.graph.inputs[0].name: network.x}
    plain, folded = Canonicalize()(network.graph), FoldShuffle()(network.graph)
    library = build(folded)
    return {
        "network": name, "shuffles": shuffles(plain), "absorbed": shuffles(plain) - shuffles(folded),
        "index_maps": shuffles(folded), "copies": copies(folded) - copies(without(plain)),
        "error": relative_error(evaluate(network.graph, feed)[0], library(network.x)),
    }  # fmt: skip


def main() -> int:
    """Measure each network, print and append."""
    parser = common.parser(__doc__, "shuffles.jsonl")
    parser.add_argument("--networks", default=",".join(NAMES), help="names as in networks.py")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in arguments.networks.split(","):
        rows.append(measure(name, arguments.seed))
        common.append(arguments.output, [rows[-1] | common.circumstances(arguments.seed)])
    columns = ["network", "shuffles", "absorbed", "index_maps", "copies", "error"]
    print(common.table(columns, [[r[c] for c in columns] for r in rows]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
