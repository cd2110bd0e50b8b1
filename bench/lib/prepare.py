"""Writes a network for every runtime: what latency.py starts in a process of its own before it takes turns.

    python -m bench.lib.prepare NETWORK FOLDER [--threads 1 2] [--tune 60] \
        [--records FILE] [--round-to auto] [--classes]

FOLDER receives model.onnx, module.pt, program.pt2 (of torch.export), input.npy, for each number of threads a library
secateur-N.so, and for a pruned network the libraries of the unpruned one under dense/. prepared.json says what it took:
seconds of building, notes, and with --classes what the layer classes cost on one thread.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.data.classes import classes
from bench.nets import networks
from secateur import codegen
from secateur.ir import Graph
from secateur.ir.exporters.onnx.write import to_onnx


def write(network: networks.Network, folder: Path) -> None:
    """The network as the peers read it."""
    (folder / "model.onnx").write_bytes(to_onnx(network.graph).SerializeToString())
    torch.save(network.module, folder / "module.pt")
    torch.export.save(torch.export.export(network.module, (torch.from_numpy(network.x),)), folder / "program.pt2")
    np.save(folder / "input.npy", network.x)


def build(graph: Graph, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Libraries for each number of threads, and what building them took."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    for threads in options.threads:
        start = time.perf_counter()
        library = codegen.build(
            graph, tune=options.tune, threads=threads, records=options.records,
            precision=codegen.Precision(options.precision),
        )  # fmt: skip
        found[str(threads)] = {"build_s": time.perf_counter() - start, "notes": list(library.metadata.notes)}
        library.save(folder / f"secateur-{threads}.so")
    return found


def main() -> None:
    """Write one network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", help="as ref/resnet50 or tv/mobilenet_v2@50%%")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, nargs="*", default=[1], help="of the libraries; none: no library")
    parser.add_argument("--tune", type=float, default=None, help="seconds a library (default: do not tune)")
    parser.add_argument("--records", type=Path, default=None, help="tuning records to use and to extend")
    parser.add_argument("--round-to", type=lambda t: t if t == "auto" else int(t), default="auto")
    parser.add_argument("--batch", type=int, default=1, help="pictures a run")
    parser.add_argument("--precision", default="f32", help="of our libraries: f32, bf16 or auto")
    parser.add_argument("--classes", action="store_true", help="time single kernels")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    name, _, share = options.network.partition("@")
    network = networks.capture(name, options.seed, batch=options.batch)
    options.folder.mkdir(parents=True, exist_ok=True)
    if share:
        build(network.graph, options.folder / "dense", options)
        np.save(options.folder / "dense" / "input.npy", network.x)
        network = networks.prune(network, share, options.round_to)
    write(network, options.folder)
    prepared = {"libraries": build(network.graph, options.folder, options)}
    if options.classes:
        prepared["classes"] = classes(network.graph, options.records, 1)
    (options.folder / "prepared.json").write_text(json.dumps(prepared))


if __name__ == "__main__":
    main()
