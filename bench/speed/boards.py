"""How much faster two boards tune than one: servers on the loopback, one core each, behind a tracker of TVM's.

    python -m bench.speed.boards [NETWORK..] [--kernels 24] [--rounds 2]

The first kernels of a network, the most expensive first, are tuned from nothing on one server and on two, by turns,
each bound to a core of its own. A process here compiles for each board, and waits while it measures. Seconds are
those of ``Tuner.tune``, the start of its processes included. Needs tornado, and two cores that nobody else uses.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from functools import partial
from typing import Any

from bench.lib import common, local_boards
from bench.nets import networks
from secateur.codegen.build import workloads
from secateur.codegen.plan.family import Workload
from secateur.codegen.records import Records
from secateur.codegen.targets import get_target
from secateur.codegen.tune.boards import Boards
from secateur.codegen.tune.tracker import Tracker
from secateur.codegen.tune.tuner import Tuner, contests

KEY = "loop"
LONG = 600.0


def seconds(tracker: Tracker, count: int, kernels: list[Workload]) -> float:
    """Of tuning these kernels on so many of the tracker's boards, from nothing."""
    target = get_target("native")
    team = partial(Boards, tracker=tracker, workers=count)
    start = time.perf_counter()
    outcome = Tuner(target, 1, Records(), team).tune(kernels, LONG)
    taken = time.perf_counter() - start
    if outcome.left or outcome.failed:
        raise SystemExit(f"{outcome.left} kernels were not measured, {outcome.failed} failed")
    return taken


def measured(name: str, many: int, rounds: int, seed: int) -> dict[str, Any]:
    """A row: seconds on one board and on two, by turns."""
    target, graph = get_target("native"), networks.capture(name, seed).graph
    kernels = [k for contest in list(contests(workloads(graph, target, 1)))[:many] for k in contest]
    found: dict[int, list[float]] = {1: [], 2: []}
    with local_boards.started(KEY, 2) as (first, *servers):
        tracker = Tracker(local_boards.HOST, first.port, KEY)
        for core, server in zip(sorted(os.sched_getaffinity(0)), servers, strict=False):
            server.bind(core)
        while tracker.boards() < len(servers):  # they register after they listen, and nobody says when
            time.sleep(0.05)
        for _ in range(rounds):
            for count in found:
                found[count].append(seconds(tracker, count, kernels))
                print(f"{name}: {count} of {len(servers)} boards took {found[count][-1]:.1f} s", flush=True)
    one, two = (statistics.median(found[count]) for count in (1, 2))
    return {"network": name, "kernels": len(kernels), "one_s": found[1], "two_s": found[2], "ratio": one / two}


def main() -> int:
    """Measure, print, append a row for each network."""
    parser = common.parser(__doc__, "boards.jsonl")
    parser.add_argument("networks", nargs="*", default=["ref/resnet50"])
    parser.add_argument("--kernels", type=int, default=24, help="kernels with their alternatives")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        parser.error("two boards need two cores")
    for name in options.networks:
        row = {**common.circumstances(options.seed), "load": os.getloadavg()[0],
               **measured(name, options.kernels, options.rounds, options.seed)}  # fmt: skip
        common.append(options.output, [row])
        print(f"{name}: {row['kernels']} kernels, one board {statistics.median(row['one_s']):.1f} s, two "
              f"{statistics.median(row['two_s']):.1f} s: {row['ratio']:.2f} times as fast", flush=True)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
