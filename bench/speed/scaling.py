"""How the time of coupling and slim grows with the graph: synthetic networks of 1,000, 5,000 and 20,000 nodes.

    python -m bench.speed.scaling [--sizes 1000,5000,20000] [--repeats 3]

The graphs are written in the IR itself: residual blocks of convolution, batch norm and ReLU, a split whose one half
goes on through a convolution, and a concat, over and over, 8 channels wide, so that only the graph's size counts.
The exponent is the slope of log(CPU seconds) over log(nodes); 1 is linear.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import numpy as np

from bench.lib import common

if TYPE_CHECKING:
    from secateur.ir import Graph, Node

CHANNELS, SIDE = 8, 4
CONV = {"stride": (1, 1), "dilation": (1, 1), "pad": (1, 1, 1, 1), "groups": 1}


class Builder:
    """Collects nodes and weights."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[Node] = []
        self.weights: dict[str, np.ndarray] = {}
        self.generator = np.random.default_rng(seed)

    def add(self, op: str, inputs: list[str], channels: list[int], **attrs: object) -> list[str]:
        """A node over maps of SIDE x SIDE with these output channels; the names of its outputs."""
        from secateur.ir import Node, Source, Value

        base = f"{op}{len(self.nodes)}"
        outputs = tuple(Value(f"{base}.{i}", (1, c, SIDE, SIDE)) for i, c in enumerate(channels))
        self.nodes.append(Node(op, tuple(inputs), outputs, attrs, Source(base)))
        return [v.name for v in outputs]

    def draw(self, name: str, *shape: int) -> str:
        """A new weight."""
        self.weights[name] = self.generator.normal(0, 0.1, shape).astype(np.float32)
        return name

    def conv(self, x: str, inner: int, outer: int) -> str:
        """A 3x3 convolution."""
        w = self.draw(f"conv{len(self.nodes)}.weight", outer, inner, 3, 3)
        return self.add("conv", [x, w], [outer], **CONV)[0]

    def norm(self, x: str, channels: int) -> str:
        """Batch norm."""
        at = len(self.nodes)
        parts = [self.draw(f"bn{at}.{p}", channels) for p in ("weight", "bias", "mean", "var")]
        self.weights[parts[3]] = np.abs(self.weights[parts[3]]) + 1
        return self.add("batch_norm", [x, *parts], [channels], eps=1e-5, momentum=0.1)[0]

    def block(self, x: str) -> str:
        """Eleven nodes: a residual unit, then a split, a convolution of one half, and a concat."""
        y = self.add("relu", [self.norm(self.conv(x, CHANNELS, CHANNELS), CHANNELS)], [CHANNELS])[0]
        y = self.norm(self.conv(y, CHANNELS, CHANNELS), CHANNELS)
        y = self.add("relu", [self.add("add", [x, y], [CHANNELS])[0]], [CHANNELS])[0]
        half = CHANNELS // 2
        a, b = self.add("split", [y], [half, half], axis=1, sizes=(half, half))
        a = self.add("relu", [self.conv(a, half, half)], [half])[0]
        return self.add("concat", [b, a], [CHANNELS], axis=1)[0]


def synthetic(nodes: int, seed: int = 0) -> Graph:
    """A graph of about this many nodes."""
    from secateur.ir import Graph, Value

    builder = Builder(seed)
    x = builder.conv("x", 3, CHANNELS)
    while len(builder.nodes) < nodes - 1:
        x = builder.block(x)
    x = builder.conv(x, CHANNELS, CHANNELS)
    inputs = (Value("x", (1, 3, SIDE, SIDE)),)
    return Graph(f"synthetic{nodes}", inputs, tuple(builder.nodes), (x,), builder.weights)


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """The slope of log(seconds) over log(sizes), least squares."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def main() -> int:
    """Measure each size, fit, print and append one row."""
    parser = common.parser(__doc__, "scaling.jsonl")
    parser.add_argument("--sizes", default="1000,5000,20000", help="numbers of nodes, separated by commas")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each size; the fastest counts (default 3)")
    arguments = parser.parse_args()
    from bench.reach.zoos import prune

    rows: list[common.Row] = []
    for size in map(int, arguments.sizes.split(",")):
        graph = synthetic(size, arguments.seed)
        start = time.perf_counter()
        times = [prune(graph).seconds for _ in range(arguments.repeats)]
        wall = (time.perf_counter() - start) / arguments.repeats
        rows.append({"nodes": len(graph.nodes), "cpu_s": min(times), "all_cpu_s": times, "wall_s": wall})
    slope = exponent([r["nodes"] for r in rows], [r["cpu_s"] for r in rows]) if len(rows) > 1 else None
    columns = ["nodes", "cpu_s", "wall_s"]
    print(common.table(columns, [[r[c] for c in columns] for r in rows]))
    print(f"exponent {slope:.2f}" if slope is not None else "one size only: no exponent")
    common.append(arguments.output, [{"sizes": rows, "exponent": slope} | common.circumstances(arguments.seed)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
