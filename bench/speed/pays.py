"""Does pruning pay? Networks pruned by secateur's default policies next to the whole ones, in every runtime.

    python -m bench.speed.pays                                    all networks, runtimes and policies
    python -m bench.speed.pays tv/mobilenet_v2 --runtimes torch   one network in one runtime

Each network is pruned to 25, 50 and 75 % of its multiply-accumulates by uniform and by global allocation, widths as
`round_to=auto` chooses them for this machine. A process of its own times the whole network and all pruned ones in one
runtime on one thread, in turn, round after round; what is shown is the median of a pruned network over that of the
whole one in the same run. A ratio above 1 is marked SLOWER, and the exit code is 1.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import secateur
from bench.lib import common
from bench.nets import networks
from secateur.ir import Graph
from secateur.timing.runtimes import RUNTIMES, measure

NETWORKS = ("ref/resnet50", "tv/mobilenet_v2", "ref/shufflenet_v1_g3", "tv/shufflenet_v2_x1_0")
METHODS = ("uniform", "global")
SHARES = (0.25, 0.5, 0.75)
WHOLE = "whole"


def pruned(graph: Graph) -> Iterator[tuple[str, Graph, dict[str, Any]]]:
    """A name, the network and what is known of it, for every policy."""
    for method in METHODS:
        for share in SHARES:
            done = secateur.compile(graph, f"l1,{method}", macs=share, verify=False)
            about = {"method": method, "macs": share, "policy": done.report.policy, "remarks": done.report.remarks}
            assert done.report.budget is not None
            yield f"{method} {share:.0%}", done.graph, {**about, "achieved": done.report.budget.achieved}


def time_one(name: str, runtime: str, repeats: int, seed: int) -> list[dict[str, Any]]:
    """A row for each policy: this network in this runtime."""
    graph = networks.capture(name, seed).graph
    models, about = {WHOLE: graph}, {}
    for label, slim, known in pruned(graph):
        models[label], about[label] = slim, known
    first, *others = measure(models, (runtime,), threads=1, repeats=repeats, seed=seed)
    return [
        {
            "network": name, "runtime": runtime, **about[t.model], "whole_ms": first.median, "ms": t.median,
            "p10": t.p10, "p90": t.p90, "of_whole": t.median / first.median, "slower_rounds": t.slower,
        }
        for t in others
    ]  # fmt: skip


def in_a_process(name: str, runtime: str, options: Any) -> list[dict[str, Any]]:
    """The same in a process of its own, so that runtimes' threads and caches stay apart."""
    command = [
        sys.executable,
        "-m",
        "bench.speed.pays",
        name,
        "--runtimes",
        runtime,
        "--repeats",
        str(options.repeats),
        "--rows",
    ]
    done = common.run([*command, "--seed", str(options.seed)])
    if done.code != 0:
        raise SystemExit(f"{name} in {runtime} ended with {done.code}:\n{done.stderr[-2000:]}")
    rows: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """A line for each network and policy, a column for each runtime."""
    runtimes = list(dict.fromkeys(r["runtime"] for r in rows))
    cells: dict[tuple[str, str, float], dict[str, str]] = {}
    for row in rows:
        shown = f"{row['of_whole']:.2f}" + (" SLOWER" if row["of_whole"] > 1 else "")
        cells.setdefault((row["network"], row["method"], row["macs"]), {})[row["runtime"]] = shown
    lines = [[n, m, f"{s:.0%}", *(found.get(r, "-") for r in runtimes)] for (n, m, s), found in cells.items()]
    return common.table(["network", "allocation", "MACs", *runtimes], lines)


def main() -> int:
    """Measure, append JSON lines, print the table."""
    parser = common.parser(__doc__, "pays.jsonl")
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--runtimes", nargs="*", default=list(RUNTIMES), choices=list(RUNTIMES))
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--rows", action="store_true", help="print the rows as JSON and write nothing")
    options = parser.parse_args()
    if options.rows:
        found = [
            row
            for name in options.networks
            for runtime in options.runtimes
            for row in time_one(name, runtime, options.repeats, options.seed)
        ]
        print(json.dumps(found))
        return 0
    around, rows = {**common.circumstances(options.seed), "repeats": options.repeats}, []
    for name in options.networks:
        for runtime in options.runtimes:
            found = in_a_process(name, runtime, options)
            common.append(options.output, ({**around, **row} for row in found))
            rows += found
    print(table(rows))
    return int(any(row["of_whole"] > 1 for row in rows))


if __name__ == "__main__":
    sys.exit(main())
