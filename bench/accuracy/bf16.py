"""How far do the answers of trained networks move in bfloat16? Ours next to torch's own.

    python -m bench.accuracy.bf16 [SUBJECT ..]

The kernels are those for ``x86-avx512-bf16``, with their products in plain arithmetic where this machine lacks the
instructions: inputs and weights are rounded alike, activations stay in float32. Next to them torch's autocast, which
also stores activations in bfloat16. On 25 photos: ``error`` is the largest difference from float32 over the largest
score, ``agreement`` the share of photos with the same most likely class.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from bench.data import material, photos
from bench.data.trained_subjects import CHOOSING, bgr
from bench.lib import common
from secateur import codegen
from secateur.checks.narrow import rows
from secateur.codegen.targets import target_for
from secateur.ir import Array, Graph
from secateur.ir.exporters.torch.module import to_module
from secateur.ir.frontends.onnx.load import load
from secateur.ir.frontends.torch.trace import trace
from secateur.run import Runner

SUBJECTS = ("mobilenet_v2", "open_nsfw")
TARGET = "x86-avx512-bf16"


def compared(want: Array, have: Array) -> Mapping[str, float]:
    """How far scores are off, and how many of the answers are the same."""
    error = float(np.abs(np.asarray(have, np.float64) - want).max() / np.abs(want).max())
    return {"error": error, "agreement": float((want.argmax(axis=1) == have.argmax(axis=1)).mean())}


def autocast(graph: Graph, x: Array) -> Array:
    """The scores of torch where it multiplies in bfloat16."""
    module = to_module(graph)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        scores: Array = torch.cat([module(torch.from_numpy(part[None])) for part in x]).float().numpy()
    return scores


def trained(name: str) -> Graph:
    """The network up to its scores."""
    if name == "mobilenet_v2":
        return trace(photos.mobilenet_v2(), (torch.zeros(1, 3, 224, 224),))
    graph = load(material.path("open-nsfw.onnx"))
    last = graph.producer[graph.outputs[0]]
    return graph.rewrite(outputs=[str(last.inputs[0])]) if last.op == "softmax" else graph


def row(name: str) -> dict[str, Any]:
    """One network on the photos."""
    graph = trained(name)
    files = [*(path for path, _ in material.photos()), *(material.path(f"natural_{name}") for name in CHOOSING)]
    pictures = torch.stack([photos.load(path) for path in files])
    x: Array = (pictures if graph.inputs[0].shape[1] == 3 else bgr(pictures)).contiguous().numpy()
    target = codegen.for_here(target_for(TARGET, "bf16"))
    library = codegen.build(graph, target, precision=codegen.Precision("bf16"))
    run = Runner()
    want = np.concatenate([run(graph, {graph.inputs[0].name: part[None]})[0] for part in x])
    return {
        "subject": name, "pictures": len(x), "ours": compared(want, rows(library, [x])[0]),
        "torch": compared(want, autocast(graph, x)), "kernels": dict(library.metadata.kernels),
    }  # fmt: skip


def main() -> int:
    """Each network: run in both precisions, print, append the row."""
    parser = common.parser(__doc__, "bf16_accuracy.jsonl")
    parser.add_argument("subjects", nargs="*", default=list(SUBJECTS))
    options = parser.parse_args()
    here = common.circumstances(options.seed)
    for name in options.subjects:
        found = row(name)
        common.append(options.output, [found | here])
        said = (f"{who} {found[who]['error']:.1e}, {found[who]['agreement']:.1%} the same" for who in ("ours", "torch"))
        print(f"{name:20} {found['pictures']} pictures: {'; '.join(said)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
