"""Do kernels in bfloat16 for ARM compute what they should, with the instructions themselves? Run under qemu.

    python -m bench.reach.bf16_emulated

Layers and a network are built here for ``aarch64:neoverse-v1`` and run by an emulated processor that has bfloat16
(qemu's ``max``), with an arena that holds NaN first. Layers are compared with torch in double precision on rounded
numbers (``error``, of the largest output). The network is compared with the same kernels in plain arithmetic on this
machine (``error``), and with float32 (``distance``). Needs what ``bench.reach.emulated`` needs.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import nn

from bench.lib import common, emulated
from bench.nets import networks
from secateur import codegen
from secateur.codegen.targets import Target, target_for
from secateur.ir import Array, Graph
from secateur.ir.exporters.torch.module import evaluate
from secateur.ir.frontends.torch.trace import trace

TARGET, PROCESSOR = "aarch64:neoverse-v1", "max"
BF16 = codegen.Precision("bf16")
Case = tuple[Callable[[], nn.Module], tuple[int, ...]]

LAYERS: Mapping[str, Case] = MappingProxyType(
    {
        "1x1, 32 to 48, batch 2, 7x9": (lambda: nn.Conv2d(32, 48, 1), (2, 32, 7, 9)),
        "1x1, 37 to 20, stride 2, 9x9": (lambda: nn.Conv2d(37, 20, 1, 2), (1, 37, 9, 9)),
        "3x3, 40 to 24, 9x11": (lambda: nn.Conv2d(40, 24, 3, 1, 1), (1, 40, 9, 11)),
        "3x3, stride 2, 64 to 64, 13x15": (lambda: nn.Conv2d(64, 64, 3, 2, 1), (1, 64, 13, 15)),
        "5x5, dilation 2, 16 to 16, 12x12": (lambda: nn.Conv2d(16, 16, 5, 1, 4, 2), (1, 16, 12, 12)),
        "3x3, 128 to 128, 14x14": (lambda: nn.Conv2d(128, 128, 3, 1, 1), (1, 128, 14, 14)),
        "1x7, 64 to 32, 8x8": (lambda: nn.Conv2d(64, 32, (1, 7), 1, (0, 3)), (1, 64, 8, 8)),
    }
)
NETWORKS = ("tv/mobilenet_v2",)
SIDE = 96  # of the pictures of networks, which are slow under emulation


def rounded(layer: nn.Module, x: torch.Tensor) -> Array:
    """What a layer computes of numbers rounded to bfloat16, in double precision."""
    assert isinstance(layer, nn.Conv2d)
    w, given = (t.detach().to(torch.bfloat16).double() for t in (layer.weight, x))
    bias = None if layer.bias is None else layer.bias.detach().double()
    padding = (int(layer.padding[0]), int(layer.padding[1]))
    made: Array = nn.functional.conv2d(given, w, bias, layer.stride, padding, layer.dilation).numpy()
    return made


def off(want: Array, have: Array) -> float:
    """The largest difference over the largest number."""
    return float(np.abs(np.asarray(have, np.float64) - want).max() / np.abs(want).max())


def emulated_outputs(graph: Graph, target: Target, x: Array) -> tuple[codegen.Library, Array]:
    """The library, and what it computes there."""
    library = codegen.build(graph, target, precision=BF16)
    with tempfile.TemporaryDirectory(prefix="secateur-") as folder:
        (outputs,) = emulated.run([emulated.Job(library, (x,))], Path(folder), PROCESSOR)
    return library, outputs[0]


def main() -> int:
    """Each layer and network: build, run, compare, append the row."""
    options = common.parser(__doc__, "bf16_emulated.jsonl").parse_args()
    emulated.require()
    here, target = common.circumstances(options.seed), target_for(TARGET, "bf16")
    bad = 0
    for name, (make, shape) in LAYERS.items():
        torch.manual_seed(options.seed)
        layer, x = make().eval(), torch.randn(*shape)
        library, have = emulated_outputs(trace(layer, (x,)), target, x.numpy())
        error = off(rounded(layer, x), have)
        bad += not error <= 2e-6
        row = {"case": name, "error": error, "kernels": dict(library.metadata.kernels)}
        common.append(options.output, [row | {"target": TARGET} | here])
        print(f"{name:36} {error:.1e}", flush=True)
    for name in NETWORKS:
        x = torch.randn(1, 3, SIDE, SIDE)
        graph = trace(networks.capture(name, options.seed).module, (x,))
        library, have = emulated_outputs(graph, target, x.numpy())
        twin = codegen.build(graph, codegen.for_here(target), precision=BF16)(x.numpy())
        want = evaluate(graph, {graph.inputs[0].name: x.numpy()})[0]
        error, distance = off(twin, have), off(want, have)
        bad += not error <= distance
        row = {
            "case": f"{name}, {SIDE}x{SIDE}", "error": error, "distance": distance,
            "kernels": dict(library.metadata.kernels),
        }  # fmt: skip
        common.append(options.output, [row | {"target": TARGET} | here])
        print(f"{row['case']:36} {error:.1e}, from float32 {distance:.1e}", flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
