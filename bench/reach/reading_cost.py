"""What share of `secateur compile` goes into running the file next to what was read from it, and what is written.

A file of about 100 MB (a VGG of 11 layers with random weights, 224x224) is compiled with and without `--trust` by
turns; the share is 1 - without / with, of the medians. The two sides of a check run side by side on two cores, so a
busy machine shows a larger share: rows state its load.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bench.lib.common import append, circumstances, parser, run, secateur, table

WIDTHS = ((64,), (128,), (256, 256), (512, 512), (512, 512))  # a pooling follows each group
HIDDEN = 600  # units of the fully connected layer, which bring the file to 100 MB
MOST = 0.25


def vgg(seed: int) -> onnx.ModelProto:
    """The network, with a dynamic batch."""
    rng = np.random.default_rng(seed)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def weight(*shape: int) -> str:
        array = rng.standard_normal(shape) * (2 / np.prod(shape[1:])) ** 0.5
        weights.append(numpy_helper.from_array(array.astype(np.float32), f"w{len(weights)}"))
        return weights[-1].name

    def node(op: str, *inputs: str, **attrs: Any) -> str:
        nodes.append(helper.make_node(op, list(inputs), [f"v{len(nodes)}"], name=f"{op}_{len(nodes)}", **attrs))
        return str(nodes[-1].output[0])

    x, channels = "x", 3
    for group in WIDTHS:
        for width in group:
            x = node("Relu", node("Conv", x, weight(width, channels, 3, 3), pads=[1] * 4))
            channels = width
        x = node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = node("Relu", node("Gemm", node("Flatten", x), weight(HIDDEN, channels * 7 * 7), transB=1))
    node("Gemm", x, weight(1000, HIDDEN), transB=1)
    info = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 3, 224, 224)),
            helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, ("N", 1000))]  # fmt: skip
    graph = helper.make_graph(nodes, "vgg", info[:1], info[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main() -> None:
    """Compile by turns, print the table, append a row."""
    options = parser(__doc__, "reading_cost.jsonl")
    options.add_argument("--rounds", type=int, default=3, help="how often each is run (default 3)")
    given = options.parse_args()
    seconds: dict[str, list[float]] = {"checked": [], "trusted": []}
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder, "vgg.onnx"), Path(folder, "slim.onnx")
        onnx.save(vgg(given.seed), source)
        size = source.stat().st_size
        for _ in range(given.rounds):
            for kind, extra in (("checked", []), ("trusted", ["--trust"])):
                done = run(secateur("compile", source, out, "--macs", "50%", *extra))
                if done.code:
                    raise SystemExit(done.stderr)
                seconds[kind].append(done.seconds)
    medians = {kind: statistics.median(found) for kind, found in seconds.items()}
    share = 1 - medians["trusted"] / medians["checked"]
    print(table(("command", "seconds, median"), list(medians.items())))
    print(f"share of the checks: {share:.1%} of the command, on a file of {size / 1e6:.0f} MB")
    append(given.output, [{"bench": "reading_cost", "bytes": size, "seconds": seconds, "share": share, "most": MOST,
                           "load": os.getloadavg()[0], **circumstances(given.seed)}])  # fmt: skip


if __name__ == "__main__":
    main()
