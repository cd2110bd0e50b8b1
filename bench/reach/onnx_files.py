"""Trained ONNX files of packages through every command, each judged by ONNX Runtime alone.

    python -m bench.reach.onnx_files                       all of onnx_files.csv, one after the other
    python -m bench.reach.onnx_files --only 'silero*'      some of them
    python -m bench.reach.onnx_files --build               a library of each as well, run next to the file
    python -m bench.reach.onnx_files --stages build        that alone, next to what the newest rows say of the rest
    python -m bench.reach.onnx_files --summary             the table alone, from the rows there are

Each file is inspected, written again unchanged (`--policy none`) and pruned to half of its multiply-accumulates. What
is written runs next to the original (its missing columns at zero, from the recipe) at three sizes of each dynamic axis
(onnx_sizes.py). Every command is a process of its own that is stopped at a time and a memory limit. A command is
**right**, **refused** in a sentence, **wrong** where the numbers differ, **missed** where the budget was out of reach,
or **broken**: a crash, a traceback, an "unexpected" error or one called a fault, or a limit.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import re
import statistics
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

from bench.data import material
from bench.lib import common

MEMORY = 4 << 30
BROKEN = re.compile(r"unexpected \w+Error|fault in secateur|Traceback")
STAGES = ("inspect", "none", "half", "build")


def measure(file: material.OnnxFile, folder: Path, arguments: argparse.Namespace) -> common.Row:
    """What the stages asked for say of one file."""
    source = material.path(f"{file.name}.onnx")
    row: common.Row = {"file": file.name, "package": f"{file.package} {file.version}", "bytes": source.stat().st_size}
    if "inspect" in arguments.stages:
        row["inspect"] = call(["inspect", source, "--json", folder / "inspect.json"], arguments.timeout)
    for stage, options in (("none", ["--policy", "none"]), ("half", ["--macs", "50%"])):
        if stage not in arguments.stages:
            continue
        written, recipe = folder / f"{stage}.onnx", folder / f"{stage}.recipe.json"
        report = folder / f"{stage}.json"
        command = ["compile", source, written, *options, "--recipe", recipe, "--json", report]
        row[stage] = call(command, arguments.timeout)
        if row[stage]["status"] != "right":
            continue
        row[stage] |= told(json.loads(report.read_text()))
        given = ["--recipe", recipe] if stage == "half" else []
        row[stage] |= judge([source, written, *given], file, arguments.timeout)
    if "build" in arguments.stages:
        library = folder / "library.so"
        row["build"] = call(["build", source, library], arguments.timeout)
        if row["build"]["status"] == "right":
            row["build"] |= {"runtime": by_runtime(library)} | judge([source, library], file, arguments.timeout)
    return row


def by_runtime(library: Path) -> list[str]:
    """What of a library ONNX Runtime computes, because it has no code."""
    with zipfile.ZipFile(library) as archive:
        table = json.loads(archive.read("parts.json")) if "parts.json" in archive.namelist() else {"parts": []}
    return [what for part in table["parts"] for what in part["what"]]


def call(command: list[object], timeout: float) -> common.Row:
    """What became of a command: its status, the message where it did not do its work, CPU seconds and memory."""
    done = common.run(common.secateur(*map(str, command)), timeout=timeout, threads=1, memory=MEMORY)
    row: common.Row = {"status": "right", "cpu_s": round(done.cpu_seconds, 1), "peak_mb": done.peak_bytes >> 20}
    if done.code == 0:
        return row
    folders = {f"{Path(part).parent}/" for part in map(str, command) if "/" in part}
    message = " ".join(done.stderr.split())
    for folder in folders:  # rows say what any machine would
        message = message.replace(folder, "")
    said = message[message.rfind("secateur: ") :][:600] if "secateur: " in message else message[-600:]
    if done.code is None:
        return row | {"status": "broken", "reason": f"stopped at {timeout:g} s or {MEMORY >> 30} GiB"}
    if done.code not in (1, 2) or BROKEN.search(message):
        return row | {"status": "broken", "reason": f"exit code {done.code}: {said}"}
    return row | {"status": "missed" if done.code == 1 and "budget" in said else "refused", "reason": said}


def told(report: common.Row) -> common.Row:
    """What the report says: its own checks, shares and frozen groups."""
    frozen = sum(g["size"] for g in report["groups"] if g["frozen"])
    channels = sum(g["size"] for g in report["groups"])
    return {
        "reading": report.get("reading"),
        "written": report.get("written"),
        "law": report["verification"]["max_rel_err"],
        "macs": [report["before"]["macs"], report["after"]["macs"]],
        "frozen": round(frozen / channels, 3) if channels else None,
        "frozen_macs": frozen_macs(report),
        "remarks": report["remarks"],
    }


def frozen_macs(report: common.Row) -> float | None:
    """The share of multiply-accumulates in layers that nothing makes cheaper, though they are no outputs' own."""
    rows = [r for r in report["layers"] if r["state"] == "frozen" and r["macs"][0] == r["macs"][1]]
    stuck = sum(r["macs"][0] for r in rows if "graph output" not in (r["reason"] or ""))
    total = report["before"]["macs"]
    return round(stuck / total, 3) if total else None


def judge(paths: list[object], file: material.OnnxFile, timeout: float) -> common.Row:
    """What ONNX Runtime says of a written file next to the original."""
    settings = [part for pair in file.values.split() for part in ("--set", pair)]
    command = [sys.executable, "-m", "bench.reach.onnx_sizes", *map(str, paths), *settings]
    done = common.run(command, timeout=timeout, threads=1, memory=MEMORY)
    if done.code != 0 or not done.stdout.startswith("{"):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"status": "broken", "reason": f"the judge: exit code {done.code}: {last}"[:600]}
    found: common.Row = json.loads(done.stdout)
    if "max_rel_err" in found:
        if found["differ"]:
            return {"judged": found, "status": "wrong", "reason": f"differs: {found['differ'][0]}"}
        if found["refused"]:
            return {"judged": found, "status": "wrong", "reason": f"does not take {found['refused'][0]}"}
    return {"judged": found}


def line(row: common.Row) -> str:
    """One file: the status of each command, CPU seconds of the second, and the first reason."""
    states = "  ".join(f"{row[s]['status'] if s in row else '-':8}" for s in STAGES)
    reason = next((row[s]["reason"] for s in STAGES if s in row and "reason" in row[s]), "")
    spent = sum(row[s]["cpu_s"] for s in STAGES if s in row)
    return f"{row['file']:24} {states} {spent:6.1f} s  {reason}"[:250].rstrip()


def summary(rows: list[common.Row]) -> str:
    """Counts by command, then a line for each file."""
    states = ("right", "missed", "refused", "wrong", "broken")
    counts = [(stage, Counter(row[stage]["status"] for row in rows if stage in row)) for stage in STAGES]
    table = [[stage, count.total(), *(count[s] for s in states)] for stage, count in counts]
    shares = [row["half"]["frozen_macs"] for row in rows if row.get("half", {}).get("frozen_macs") is not None]
    frozen = f"median share of MACs frozen: {statistics.median(shares):g} of {len(shares)} files" if shares else ""
    return "\n\n".join([common.table(["command", "files", *states], table), frozen, "\n".join(map(line, rows))])


def main() -> int:
    """Measure the files asked for, then print the summary of the newest rows."""
    parser = common.parser(__doc__, "onnx_files.jsonl")
    parser.add_argument("--only", default="*", metavar="GLOB", help="files by name, such as 'silero*'")
    parser.add_argument("--timeout", type=float, default=300, metavar="S", help="seconds of a command (default 300)")
    parser.add_argument("--build", action="store_true", help="also build a library of each and run it")
    parser.add_argument(
        "--stages", nargs="+", choices=STAGES, default=None, help="these alone; the rest stays as it is"
    )
    parser.add_argument("--summary", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    arguments.stages = arguments.stages or (STAGES if arguments.build else STAGES[:-1])
    files = material.listed()
    here = common.circumstances(arguments.seed)
    for file in files if not arguments.summary else ():
        if fnmatch.fnmatch(file.name, arguments.only):
            with tempfile.TemporaryDirectory() as folder:
                row = measure(file, Path(folder), arguments)
            before = next((r for r in reversed(common.read(arguments.output)) if r["file"] == file.name), {})
            older = {s: before[s] for s in STAGES if s in before and s not in arguments.stages}
            sources = {s: before.get("commits", {}).get(s, before.get("git")) for s in older}
            commits = sources | dict.fromkeys(arguments.stages, here["git"])
            row = older | row
            common.append(arguments.output, [row | {"commits": commits} | here])
            print(line(row), flush=True)
    newest = {row["file"]: row for row in common.read(arguments.output)}
    rows = [newest[f.name] for f in files if f.name in newest]
    print(summary(rows))
    return int(any(row[s]["status"] in ("wrong", "broken") for row in rows for s in STAGES if s in row))


if __name__ == "__main__":
    sys.exit(main())
