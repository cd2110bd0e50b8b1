"""Modules that people bring, each through the whole journey, judged leg by leg.

    python -m bench.reach.modules                      all kinds that this commit has no row for yet
    python -m bench.reach.modules --only 'conv_*'      some of them; --again those that have rows as well
    python -m bench.reach.modules --summary            the table alone, from the rows there are

Legs: `prune`, captured and cut to half of the MACs under the law; `alone`: the recipe laid over the module in torch;
`train`: a step; `onnx`: written and run in ONNX Runtime; other `sizes` and another `batch` where the original takes
them; `build`: a library of shipped records next to the module. **ok**; **expected**: refused by the sentence that the
kind states; **none**: the leg says nothing of this kind; **skipped** after a leg that failed. The others are faults:
**refused** otherwise, **wrong**, **crash** (a foreign exception, or the process died), **slow**.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import select
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from bench.lib import common
from bench.nets.modules import (
    attention,
    calls,
    convolutions,
    detectors,
    generators,
    interfaces,
    mixing,
    norms,
    recurrent,
    sequences,
    structured,
    weights,
)
from bench.nets.modules.kind import Kind
from bench.reach.names import MODULE_FAULTS

VERDICTS = ("ok", "expected", "none", "skipped")
KINDS: Sequence[Kind] = tuple(
    kind
    for module in (
        attention,
        calls,
        convolutions,
        detectors,
        sequences,
        structured,
        generators,
        interfaces,
        mixing,
        norms,
        recurrent,
        weights,
    )
    for kind in module.KINDS
)


def travel(kind: Kind, seed: int, tell: IO[str], wanted: Sequence[str] = ()) -> None:
    """All legs, or those that are wanted, each told as a JSON line when it begins and when it ends."""
    from bench.reach.module_journey import LEGS, Journey

    journey: Journey | None = None
    for name, leg in LEGS.items():
        if wanted and name not in wanted and name != "prune":
            continue
        print(json.dumps({"begin": name}), file=tell, flush=True)
        start = time.perf_counter()
        try:
            journey = journey or Journey(kind, seed)
            leg(journey)
            found = ("ok", "")
        except Exception as error:
            found = verdict(error, kind.expect.get(name))
        row = {"leg": name, "verdict": found[0], "detail": found[1][:400]}
        print(json.dumps(row | {"seconds": round(time.perf_counter() - start, 2)}), file=tell, flush=True)
        if found[0] not in ("ok", "none") and name == "prune":
            break
    if journey is not None:
        print(json.dumps({"facts": journey.facts}, default=str), file=tell, flush=True)


def verdict(error: Exception, expected: str | None) -> tuple[str, str]:
    """What an exception means for the leg that raised it."""
    from bench.reach.module_journey import Inapt, Wrong
    from secateur.ir import Error

    text = f"{type(error).__name__}: {error}"
    if expected is not None and expected in text:
        return "expected", text
    if isinstance(error, Inapt):
        return "none", str(error)
    if isinstance(error, Wrong):
        return "wrong", str(error)
    if type(error).__name__ in ("LawError", "PassError", "VerifyError"):
        return "wrong", text
    if isinstance(error, Error) or type(error).__name__ == "SizeError":
        return "refused", text
    last = traceback.extract_tb(error.__traceback__)[-1]
    return "crash", f"{text.splitlines()[0]} @{Path(last.filename).name}:{last.lineno}"


def apart(kind: Kind, seed: int, wanted: Sequence[str] = (), limit: float = 240.0) -> common.Row:
    """The row of a kind from a process of its own, ended at the limit (seconds)."""
    start = time.monotonic()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        warnings.simplefilter("ignore")
        with os.fdopen(writing, "w") as pipe:
            travel(kind, seed, pipe, wanted)
        os._exit(0)
    os.close(writing)
    text = b""
    with os.fdopen(reading, "rb", 0) as pipe:
        while True:
            ready, _, _ = select.select([pipe], [], [], max(0.0, limit - (time.monotonic() - start)))
            if not ready:
                os.kill(child, signal.SIGKILL)
            part = os.read(pipe.fileno(), 1 << 16)
            if not part:
                break
            text += part
    os.waitpid(child, 0)
    lines = [json.loads(line) for line in text.decode().splitlines()]
    legs = {r["leg"]: {"verdict": r["verdict"], "detail": r["detail"], "s": r["seconds"]} for r in lines if "leg" in r}
    begun = [r["begin"] for r in lines if "begin" in r]
    if begun and begun[-1] not in legs:
        late = time.monotonic() - start >= limit
        legs[begun[-1]] = {"verdict": "slow" if late else "crash", "detail": "the process ended", "s": 0}
    facts: common.Row = next((r["facts"] for r in lines if "facts" in r), {})
    return {"kind": kind.name, "legs": legs, **facts, "seconds": round(time.monotonic() - start, 1)}


def faults(row: common.Row) -> Iterator[tuple[str, str, str]]:
    """Legs that are neither right nor rightly refused."""
    for name, leg in row["legs"].items():
        if leg["verdict"] in MODULE_FAULTS:
            yield name, leg["verdict"], leg["detail"]


def summary(rows: Sequence[common.Row]) -> str:
    """Verdicts by leg, what is frozen without need, and every fault."""
    names = list(dict.fromkeys(name for row in rows for name in row["legs"]))
    lines = []
    for name in names:
        found = Counter(row["legs"].get(name, {"verdict": "skipped"})["verdict"] for row in rows)
        lines.append([name, sum(found.values()), *(found[v] for v in (*VERDICTS, *MODULE_FAULTS))])
    text = common.table(["leg", "kinds", *VERDICTS, *MODULE_FAULTS], lines)
    clean = sum(not any(faults(row)) for row in rows)
    frozen = [(row["kind"], row["frozen"], row["frozen_by"]) for row in rows if row.get("frozen")]
    text += f"\n{clean} of {len(rows)} kinds without a fault; {len(frozen)} with layers frozen without need\n"
    text += "\n".join(f"{row['kind']} {name}: {v}: {detail[:220]}" for row in rows for name, v, detail in faults(row))
    return text + "".join(f"\n{kind}: {share:.0%} of the MACs frozen: {by}"[:300] for kind, share, by in frozen)


def main() -> int:
    """Run the kinds that are asked for, append their rows, print the summary."""
    parser = common.parser(__doc__, "modules.jsonl")
    parser.add_argument("--only", default="*", metavar="GLOB", help="kinds such as 'conv_*'")
    parser.add_argument("--legs", default="", help="some of the legs alone, by commas; prune is always one")
    parser.add_argument("--limit", type=float, default=240.0, help="seconds for one kind")
    parser.add_argument("--again", action="store_true", help="also run those that this commit has a row for")
    parser.add_argument("--summary", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    here = common.circumstances(arguments.seed)
    names = [kind.name for kind in KINDS if fnmatch.fnmatch(kind.name, arguments.only)]
    if not arguments.summary:
        run(arguments, here)
    rows = {row["kind"]: row for row in common.read(arguments.output)}
    print(summary([rows[name] for name in names if name in rows]))
    return int(any(any(faults(rows[name])) for name in names if name in rows))


def run(arguments: argparse.Namespace, here: common.Row) -> None:
    """A row for each kind that is asked for."""
    import torch

    import bench.data.torchvision_shim
    import bench.reach.module_journey  # noqa: F401  once, before the processes part
    import secateur.api
    import secateur.deploy
    import secateur.ir.exporters.onnx.write  # noqa: F401
    from secateur.codegen.emit.loading import load_tvm

    load_tvm()
    torch.set_num_threads(1)
    torch.export.export(torch.nn.Identity(), (torch.ones(1),), strict=False)  # what it imports takes seconds
    fresh = {row["kind"] for row in common.read(arguments.output) if row["git"] == here["git"] and not arguments.again}
    for kind in KINDS:
        if fnmatch.fnmatch(kind.name, arguments.only) and kind.name not in fresh:
            row = apart(kind, arguments.seed, [leg for leg in arguments.legs.split(",") if leg], arguments.limit)
            common.append(arguments.output, [row | here])
            bad = "; ".join(f"{name} {v}: {detail[:100]}" for name, v, detail in faults(row))
            print(
                f"{kind.name:32} {row['seconds']:6.1f} s  frozen {row.get('frozen', 0):4.0%}  {bad or 'ok'}", flush=True
            )


if __name__ == "__main__":
    sys.exit(main())
