"""Layers and networks with zeros in other runtimes, next to our libraries: the same ONNX file in each.

    python -m bench.speed.sparse_peers layers [--densities 20 10] [--rounds 41]
    python -m bench.speed.sparse_peers networks       MobileNet v1 and ResNet-50, with 80 % zeros

Layers are 1x1 convolutions of ResNet-50, with zeros in balanced blocks of a vector of outputs and with irregular ones,
in ONNX Runtime, OpenVINO and DeepSparse (its best case are irregular ones); the same product by scipy (CSR) and torch
(BSR: its blocks are square, so all are full) on inputs that lie [channels, pixels]. Ours are built without tuning; a
library of one layer turns its input into blocks and its output back, as whole networks do once. One thread. Each is the
minimum of its rounds: those in this process by turns, the engines of environments of their own (`bench.lib.engines`)
after them, as their processes start. A row states what failed.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import secateur
from bench.lib import common
from bench.lib.turns import Worker, WorkerError
from bench.nets.networks import capture
from bench.speed.sparse import minima
from secateur import codegen
from secateur.ir.exporters.onnx.write import save
from secateur.passes.sparsify import Sparsify
from secateur.passes.sparsify.balanced import Balanced
from secateur.passes.sparsify.irregular import Irregular

SIZES = ((512, 256, 28), (256, 1024, 14), (1024, 256, 14))  # inputs, outputs, rows
NETWORKS = ("ref/mobilenet_v1", "ref/resnet50")
PATTERNS = {"balanced": "auto", "irregular": "irregular"}  # zeros, and how ``--block`` spells them
APART = ("openvino", "deepsparse")
Floats = NDArray[np.float32]


def model_of(weight: Floats, rows: int) -> onnx.ModelProto:
    """A 1x1 convolution."""
    shapes = [(1, weight.shape[1], rows, rows), (1, weight.shape[0], rows, rows)]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip("xy", shapes, strict=True))
    node = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[1, 1])
    stored = numpy_helper.from_array(np.ascontiguousarray(weight[:, :, None, None]), "w")
    graph = helper.make_graph([node], "layer", [x], [y], [stored])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def here(path: Path, weight: Floats, x: Floats, lanes: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What runs in this process."""
    import scipy.sparse
    import torch

    yield "secateur", partial(codegen.build(secateur.load(path)), x)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    yield "onnxruntime", partial(session.run, None, {"x": x})
    pixels = np.ascontiguousarray(x.reshape(x.shape[1], -1))
    rows = scipy.sparse.csr_array(weight)
    yield "scipy csr", lambda: rows @ pixels
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of BSR being young
        blocks, given = torch.from_numpy(weight).to_sparse_bsr((lanes, lanes)), torch.from_numpy(pixels)
    yield "torch bsr", lambda: blocks @ given


def apart(engine: str, folder: Path, rounds: int) -> float | str:
    """Milliseconds in an environment of its own of the network and input in a folder, or why there are none."""
    try:
        worker = Worker(engine, folder, threads=1)
    except WorkerError as error:
        return str(error)
    try:
        worker.ready()
        return min(worker.turn(0, 0.0).wall for _ in range(rounds))
    except WorkerError as error:
        return str(error)
    finally:
        worker.stop()


def rows_of(options: Any) -> Iterator[common.Row]:
    """A row for each layer, density and pattern."""
    target = codegen.get_target("native")
    rng = np.random.default_rng(options.seed)
    for ci, co, size in SIZES[:1] if options.quick else SIZES:
        dense = (rng.standard_normal((co, ci)) / ci**0.5).astype(np.float32)
        x = rng.standard_normal((1, ci, size, size)).astype(np.float32)
        for percent in options.densities:
            for name, pattern in (("balanced", Balanced(target.lanes)), ("irregular", Irregular())):
                weight = np.where(pattern.mask(dense.astype(np.float64) ** 2, 1 - percent / 100), dense, np.float32(0))
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / "model.onnx"
                    onnx.save(model_of(weight, size), path)
                    np.save(path.with_name("input.npy"), x)
                    calls = dict(here(path, weight, x, target.lanes))
                    times = minima(dict(enumerate(calls.values())), options.rounds)
                    found: dict[str, float | str] = {n: times[i] * 1e3 for i, n in enumerate(calls)}
                    for engine in APART:
                        found[engine] = apart(engine, path.parent, options.rounds)
                yield {
                    "layer": f"{ci}>{co} {size}x{size}", "density": percent / 100, "pattern": name, "threads": 1,
                    "ms": found, "load": os.getloadavg()[0],
                }  # fmt: skip


def networks(options: Any) -> Iterator[common.Row]:
    """A row for each network and pattern: the same ONNX file in every engine, ours by default choices."""
    target = codegen.get_target("native")
    for name in NETWORKS[:1] if options.quick else NETWORKS:
        network = capture(name, options.seed)
        dense = codegen.build(network.graph, threads=1)
        for pattern, block in PATTERNS.items():
            sparse = Sparsify(options.sparsity, block, lanes=target.lanes)(network.graph)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.onnx"
                save(sparse, path)
                np.save(path.with_name("input.npy"), network.x)
                library = codegen.build(sparse, threads=1)
                calls = {0: partial(dense, network.x), 1: partial(library, network.x)}
                times = minima(calls, options.rounds)
                found: dict[str, float | str] = {"secateur": times[1] * 1e3, "secateur dense": times[0] * 1e3}
                for engine in APART:
                    found[engine] = apart(engine, path.parent, options.rounds)
            yield {
                "part": "networks", "network": name, "density": 1 - options.sparsity, "pattern": pattern,
                "threads": 1, "ms": found, "load": os.getloadavg()[0],
            }  # fmt: skip


PARTS = {"layers": rows_of, "networks": networks}


def main() -> None:
    """Append JSON lines, print a table a part."""
    parser = common.parser(__doc__, "sparse_peers.jsonl")
    parser.add_argument("parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--sparsity", type=float, default=0.8, help="of whole networks")
    parser.add_argument("--densities", type=int, nargs="*", default=[50, 20, 10], help="per cent that are kept")
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--quick", action="store_true", help="one layer")
    options = parser.parse_args()
    around = common.circumstances(options.seed)
    for part in options.parts:
        shown, names = [], list[str]()
        for row in PARTS[part](options):
            common.append(options.output, [{**around, **row}])
            cells = [f"{v:.2f}" if isinstance(v, float) else "–" for v in row["ms"].values()]
            shown.append([row.get("layer", row.get("network")), f"{row['density']:.2f}", row["pattern"], *cells])
            names = list(row["ms"])
        print(common.table([part, "density", "zeros", *names], shown), flush=True)


if __name__ == "__main__":
    main()
