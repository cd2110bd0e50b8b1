"""Tunes common networks and writes the records that come with secateur (``codegen/shipped/TARGET.jsonl``).

    python bench/ship_records.py                all networks, one and two threads; this takes many minutes
    python bench/ship_records.py --time 80      go on for at most 80 seconds; call it again to go on further

What was measured stays in a file of its own (``--records``), from which the shipped file is written anew each time: a
line for each kernel of these networks that there is a measurement for, without the timings of the choices that lost.
Records of kernels that have changed since are measured again. The machine must be one that runs the target.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import common
import networks
from secateur import codegen
from secateur.codegen.build import workloads
from secateur.codegen.records import Records, key_of
from secateur.codegen.tune import SHIPPED, Tuner, open_records

NETWORKS = (
    "ref/resnet50", "tv/resnet18", "ref/resnext50_32x4d", "ref/se_resnet50", "ref/mobilenet_v1", "tv/mobilenet_v2",
    "tv/mobilenet_v3_large", "timm/efficientnet_lite0", "ref/shufflenet_v1_g1", "ref/shufflenet_v1_g3",
    "ref/shufflenet_v1_g8", "tv/shufflenet_v2_x1_0", "tv/densenet121",
)  # fmt: skip
THREADS = (1, 2)
MATERIAL = Path(__file__).resolve().parent / ".material"
KEPT = ("apache-tvm",)  # of the versions, what decides whether a record still holds


def wanted(names: Iterable[str], target: codegen.Target, seed: int) -> dict[int, list[Any]]:
    """The kernels of all networks by number of threads, each once."""
    found: dict[int, dict[Any, None]] = {threads: {} for threads in THREADS}
    for name in names:
        graph = networks.capture(name, seed).graph
        for threads, kernels in found.items():
            kernels.update(dict.fromkeys(workloads(graph, target, threads)))
    return {threads: list(kernels) for threads, kernels in found.items()}


def write(path: Path, measured: Records, target: str, kernels: Iterable[Any]) -> int:
    """The shipped file, in an order that stays; how many records it holds."""
    keys = {key_of(target, kernel) for kernel in kernels} & measured.table.keys()
    short = [replace(measured.table[k], timings=(), versions=_kept(measured.table[k].versions)) for k in sorted(keys)]
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(record.line() for record in short), encoding="utf-8")
    return len(short)


def _kept(versions: Any) -> dict[str, str]:
    return {name: versions[name] for name in KEPT}


def tell(done: int, total: int, what: str) -> None:
    """Progress, on a terminal."""
    if sys.stderr.isatty():
        print(f"\r{done}/{total} {what:40}", end="\n" if done == total else "", file=sys.stderr)


def main() -> int:
    """Tune what is not measured yet, write the file."""
    parser = common.parser(__doc__, "ship_records.jsonl")
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--time", type=float, default=7200.0, help="seconds for all of it")
    parser.add_argument("--records", type=Path, default=MATERIAL / "ship_records.jsonl", help="what was measured")
    parser.add_argument("--shipped", type=Path, default=SHIPPED, help="folder of the file that is written")
    options = parser.parse_args()
    target = codegen.get_target("native")
    options.records.parent.mkdir(exist_ok=True)
    measured, end = open_records(target, options.records), time.monotonic() + options.time
    kernels = wanted(options.networks, target, options.seed)
    row: common.Row = {**common.circumstances(options.seed), "target": target.name, "networks": options.networks}
    for threads, those in kernels.items():
        outcome = Tuner(target, threads, measured).tune(those, end - time.monotonic(), tell)
        print(f"threads {threads}: {len(those)} kernels, {outcome.measured} measured now, {outcome.left} left")
        row[f"left_{threads}"] = outcome.left
    path = options.shipped / f"{target.name}.jsonl"
    row["records"] = write(path, measured, target.name, (k for those in kernels.values() for k in those))
    row["bytes"] = path.stat().st_size
    common.append(options.output, [row])
    print(f"wrote {path}: {row['records']} records, {row['bytes'] / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
