"""Tunes common networks and writes the records that come with secateur (``codegen/shipped/TARGET.jsonl``).

    python -m bench.speed.ship_records                all networks, one and two threads; this takes many minutes
    python -m bench.speed.ship_records --time 80      go on for at most 80 seconds; call it again to go on further
    python -m bench.speed.ship_records --share 0.9    measure only while all cores give 0.9 of what each gives alone
    python -m bench.speed.ship_records --passes 2     measure all twice

What was measured stays in a file of its own (``--records``), from which the shipped file is written anew each time: a
line for each kernel of these networks that there is a measurement for, without the timings of the choices that lost.
Records of kernels that have changed since are measured again. The machine must be one that runs the target. A virtual
machine's cores may share one core of their host for minutes: what is measured on two threads then is worthless, so
``--share`` has every half minute of measuring begin with a look at the cores (cores.py), and of several ``--passes``
that one counts which was the fastest, for all kernels that compute the same.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.lib import common, cores
from bench.nets import networks
from secateur import codegen
from secateur.codegen.build import workloads
from secateur.codegen.records import Key, Record, Records, key_of
from secateur.codegen.tune.tuner import SHIPPED, Outcome, Tuner, contests, open_records

NETWORKS = (
    "ref/resnet50", "tv/resnet18", "ref/resnext50_32x4d", "ref/se_resnet50", "ref/mobilenet_v1", "tv/mobilenet_v2",
    "tv/mobilenet_v3_large", "timm/efficientnet_lite0", "ref/shufflenet_v1_g1", "ref/shufflenet_v1_g3",
    "ref/shufflenet_v1_g8", "tv/shufflenet_v2_x1_0", "tv/densenet121",
)  # fmt: skip
THREADS = (1, 2)
MATERIAL = common.MATERIAL
SLICE, PAUSE = 30.0, 2.0  # seconds
KEPT = ("apache-tvm",)  # of the versions, what decides whether a record still holds


def wanted(names: Iterable[str], target: codegen.Target, seed: int) -> dict[int, list[Any]]:
    """The kernels of all networks by number of threads, each once."""
    found: dict[int, dict[Any, None]] = {threads: {} for threads in THREADS}
    for name in names:
        graph = networks.capture(name, seed).graph
        for threads, kernels in found.items():
            kernels.update(dict.fromkeys(workloads(graph, target, threads)))
    return {threads: list(kernels) for threads, kernels in found.items()}


def fastest(passes: Sequence[Records], target: str, kernels: Sequence[Any]) -> dict[Key, Record]:
    """The records of kernels by key, those that compute the same from the pass that has the fastest of them."""
    found: dict[Key, Record] = {}
    for contest in contests(kernels):
        keys = [key_of(target, kernel) for kernel in contest]
        held = [{k: one.table[k] for k in keys if k in one.table} for one in passes]
        most = max(map(len, held))
        whole = [records for records in held if len(records) == most > 0]
        seconds = [min(r.seconds for r in records.values()) for records in whole]
        if whole:
            found |= whole[seconds.index(min(seconds))]
    return found


def write(path: Path, passes: Sequence[Records], target: str, kernels: Iterable[Any]) -> int:
    """The shipped file, in an order that stays; how many records it holds."""
    found = fastest(passes, target, list(kernels))
    short = [replace(found[k], timings=(), versions=_kept(found[k].versions)) for k in sorted(found)]
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(record.line() for record in short), encoding="utf-8")
    return len(short)


def _kept(versions: Any) -> dict[str, str]:
    return {name: versions[name] for name in KEPT}


def tune(tuner: Tuner, kernels: list[Any], share: float, end: float) -> Outcome:
    """Measure until all is measured or the time is up, slice by slice, each when the cores give their share."""
    while (left := end - time.monotonic()) > 0:
        if share and tuner.threads > 1 and cores.share() < share:
            time.sleep(PAUSE)
            continue
        outcome = tuner.tune(kernels, min(left, SLICE) if share and tuner.threads > 1 else left, tell)
        if not outcome.left or outcome.interrupted:
            return outcome
    return tuner.tune(kernels, 0.0)


def tell(done: int, total: int | None, what: str) -> None:
    """Progress, on a terminal."""
    if sys.stderr.isatty():
        print(f"\r{done}/{total} {what:40}", end="\n" if done == total else "", file=sys.stderr)


def _numbered(file: Path, number: int) -> Path:
    return file.with_stem(f"{file.stem}-{number}")


def main() -> int:
    """Tune what is not measured yet, write the file."""
    parser = common.parser(__doc__, "ship_records.jsonl")
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--time", type=float, default=7200.0, help="seconds for all of it")
    parser.add_argument("--passes", type=int, default=1, help="how often all is measured")
    parser.add_argument("--share", type=float, default=0.0, help="of the cores, without which two threads wait")
    parser.add_argument("--records", type=Path, default=MATERIAL / "ship_records.jsonl", help="what was measured")
    parser.add_argument("--shipped", type=Path, default=SHIPPED, help="folder of the file that is written")
    options = parser.parse_args()
    target = codegen.get_target("native")
    options.records.parent.mkdir(exist_ok=True)
    files = [options.records, *(_numbered(options.records, i) for i in range(2, options.passes + 1))]
    passes, end = [open_records(target, file) for file in files], time.monotonic() + options.time
    kernels = wanted(options.networks, target, options.seed)
    row: common.Row = {
        **common.circumstances(options.seed), "target": target.name, "networks": options.networks,
        "passes": options.passes, "share": options.share,
    }  # fmt: skip
    for threads, those in kernels.items():
        left = [tune(Tuner(target, threads, one), those, options.share, end).left for one in passes]
        print(f"threads {threads}: {len(those)} kernels, {left} left", flush=True)
        row[f"left_{threads}"] = sum(left)
    path = options.shipped / f"{target.name}.jsonl"
    row["records"] = write(path, passes, target.name, (k for those in kernels.values() for k in those))
    row["bytes"] = path.stat().st_size
    common.append(options.output, [row])
    print(f"wrote {path}: {row['records']} records, {row['bytes'] / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
