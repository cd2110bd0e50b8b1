"""Does it matter where a kernel's weights come from while it is timed?

    python -m bench.speed.cold_weights [NETWORK...] [--rounds N]

A network reads each weight once a run, so its kernels find them in memory; a kernel that is timed alone, again and
again, finds them in the cache. Each network is tuned from nothing both ways (``codegen.measure.arguments``), and the
two libraries and the one that nothing was measured for run by turns: milliseconds, and the time over that of the
library tuned on weights from memory. One thread.
"""

from __future__ import annotations

import statistics
import sys
import time
from functools import partial
from typing import Any

from bench.lib import common
from bench.nets import networks
from secateur import codegen
from secateur.codegen.build import workloads
from secateur.codegen.records import Records
from secateur.codegen.tune.pool import Pool
from secateur.codegen.tune.timing import MEMORY, interleaved
from secateur.codegen.tune.tuner import Tuner

NETWORKS = ("ref/resnet50", "tv/mobilenet_v2")
LIMIT = 300.0  # seconds that no tuning takes
WAYS = {"memory": MEMORY, "cache": 0}


def measure(name: str, options: Any) -> common.Row:
    """The row of a network."""
    network = networks.capture(name, options.seed)
    target = codegen.get_target("native")
    libraries = {}
    row: common.Row = {"network": name}
    chosen: dict[str, Records] = {"nothing": Records()}
    for way, memory in WAYS.items():
        start = time.perf_counter()
        tuner = Tuner(target, 1, Records(), partial(Pool, memory=memory))
        tuner.tune(workloads(network.graph, target, 1), LIMIT)
        chosen[way] = tuner.records
        row[f"tune_{way}_s"] = round(time.perf_counter() - start, 1)
    for way, records in chosen.items():
        libraries[way] = codegen.build(network.graph, records=records)
    row["differ"] = sum(
        record.choice != chosen["cache"].table[key].choice for key, record in chosen["memory"].table.items()
    )
    row["kernels"] = len(chosen["memory"].table)
    calls = {i: partial(library, network.x) for i, library in enumerate(libraries.values())}
    times = [interleaved(calls, options.rounds) for _ in range(3)]
    for i, way in enumerate(libraries):
        row[f"{way}_ms"] = statistics.median(t[i] for t in times) * 1e3
        row[f"{way}_ratio"] = statistics.median(t[i] / t[list(libraries).index("memory")] for t in times)
    return row


def main() -> int:
    """Measure, print, append."""
    parser = common.parser(__doc__, "cold_weights.jsonl")
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    around = common.circumstances(options.seed)
    for name in options.networks:
        row = {**around, "rounds": options.rounds, **measure(name, options)}
        common.append(options.output, [row])
        print(
            f"{name}: {row['differ']} of {row['kernels']} choices differ; {row['memory_ms']:.2f} ms tuned on weights "
            f"from memory, {row['cache_ratio']:.3f} of that from the cache, {row['nothing_ratio']:.3f} untuned",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
