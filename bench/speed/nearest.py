"""Is a kernel that nobody measured better tiled like its nearest measured shape, or by default?

    python -m bench.speed.nearest                     five networks at half of their work

The widths of pruned networks are in no record. Each network is built twice: with the shipped records as a user's own
file, whose nearest shapes are taken, and without, where the default is. Both run by turns on one thread.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

from bench.lib import common
from bench.nets import networks
from secateur import codegen
from secateur.codegen.tune.tuner import SHIPPED

NETWORKS = (
    "ref/resnet50", "tv/mobilenet_v2", "ref/shufflenet_v1_g3", "ref/shufflenet_v1_g8", "tv/shufflenet_v2_x1_0",
)  # fmt: skip
SHARE, CALLS = "50%", 5


def compare(name: str, rounds: int, seed: int) -> dict[str, Any]:
    """Milliseconds of both, and the nearest shapes' over the defaults': the median of the rounds."""
    network = networks.prune(networks.capture(name, seed), SHARE, "auto")
    shipped = SHIPPED / f"{codegen.get_target('native').name}.jsonl"
    libraries = {"nearest": codegen.build(network.graph, records=shipped), "default": codegen.build(network.graph)}
    samples: dict[str, list[float]] = {what: [] for what in libraries}
    for _ in range(rounds):
        for what, library in libraries.items():
            library(network.x)
            start = time.perf_counter()
            for _ in range(CALLS):
                library(network.x)
            samples[what].append((time.perf_counter() - start) / CALLS * 1e3)
    ratios = [a / b for a, b in zip(samples["nearest"], samples["default"], strict=True)]
    return {"ms": {w: statistics.median(s) for w, s in samples.items()}, "ratio": statistics.median(ratios)}


def main() -> int:
    """Measure, append JSON lines, print the table."""
    parser = common.parser(__doc__, "nearest.jsonl")
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    around, lines = common.circumstances(options.seed), []
    for name in options.networks:
        row = {"network": f"{name}@{SHARE}", "rounds": options.rounds, **compare(name, options.rounds, options.seed)}
        common.append(options.output, [{**around, **row}])
        lines.append([row["network"], *(f"{ms:.3f}" for ms in row["ms"].values()), f"{row['ratio']:.3f}"])
    print(common.table(["network", "nearest ms", "default ms", "ratio"], lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
