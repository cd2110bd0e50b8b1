"""Writes the measured tables of the README and of docs/criteria.md from the committed results, between their markers.

    python bench/readme.py

Reads bench/results/*.jsonl and nothing else: a number that no script measured cannot get into them this way.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import common
import criteria_tables
import readme_rewrites

README, CRITERIA = common.ROOT / "README.md", common.ROOT / "docs" / "criteria.md"
RESULTS = common.ROOT / "bench" / "results"
PEER = {"tv": (76, 63), "timm": (145, 100), "seg": (6, 6), "det": (6, 4)}
NAMES = {"tv": "torchvision classification", "timm": "timm", "seg": "segmentation", "det": "detection backbones"}


def newest(name: str, key: str) -> dict[str, common.Row]:
    """The newest row for each value of ``key``; empty where nothing was measured."""
    path = RESULTS / f"{name}.jsonl"
    return {str(row[key]): row for row in common.read(path)} if path.exists() else {}


def where(row: common.Row, *others: common.Row) -> str:
    """The circumstances of a measurement, in a line; every commit where rows come from several."""
    machine, versions = row["machine"], row["versions"]
    commits = list(dict.fromkeys(r["git"][:9] for r in (row, *others)))
    return (
        f"{machine['cpu']}, {machine['cores']} cores, Python {versions['python']}, torch {versions['torch']}, "
        f"commit{'s' if len(commits) > 1 else ''} {', '.join(commits)}"
    )


def coverage() -> str:
    """Networks done right, beside the peer measured under the same rules."""
    rows = newest("coverage", "network")
    if not rows:
        return ""
    lines = [
        "**Reach**: 233 networks with random weights, half of the channels removed, the law checked with randomised",
        "batch norm. *Right*: the law holds and at least 30 % of the parameters are gone. The peer is Torch-Pruning",
        "1.6.1 under the same rules.",
        "",
        "| networks | | right | wrong or broken | ≥ 90 % of layers cut | Torch-Pruning right |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for zoo in (*NAMES, "all"):
        of = [r for n, r in rows.items() if zoo in ("all", n.partition("/")[0])]
        right = [r for r in of if r["status"] == "right"]
        bad = sum(r["status"] in ("wrong", "broken") for r in of)
        deep = sum(r["layers_cut"] >= 0.9 * r["layers"] for r in right)
        peer = sum(p for _, p in PEER.values()) if zoo == "all" else PEER[zoo][1]
        lines.append(f"| {NAMES.get(zoo, '**all**')} | {len(of)} | {len(right)} | {bad} | {deep} | {peer} |")
    seconds = [r["cpu_s"] for r in rows.values() if "cpu_s" in r]
    lines += [
        "",
        f"Analysis and removal take {statistics.median(seconds):.2f} CPU seconds in the median and "
        f"{max(seconds):.2f} at most (the peer: 0.43 and 63, where it ends). `python bench/coverage.py`; "
        f"{where(next(iter(rows.values())))}.",
    ]
    return "\n".join(lines)


def real() -> str:
    """Trained and published files through the command line."""
    rows = {n: r for n, r in newest("real", "network").items() if r.get("verification")}
    if not rows:
        return ""
    lines = [
        "**Real files**, each through the command line to 50 % of its multiply-accumulates, then run in ONNX Runtime:",
        "",
        "| network | MACs | parameters | law, error | layers cut |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, r in sorted(rows.items()):
        macs, params = (f"{r['after'][k] / r['before'][k]:.1%}" for k in ("macs", "params"))
        states, law = r["layers"], r["verification"]
        cut, total = states.get("pruned", 0), sum(states.values())
        lines.append(f"| {name} | {macs} | {params} | {law['law']}, {law['max_rel_err']:.0e} | {cut}/{total} |")
    lines += ["", f"`python bench/real.py`; {where(next(iter(rows.values())))}."]
    return "\n".join(lines)


def command() -> str:
    """What the whole command costs on a file of 100 MB."""
    rows = newest("command", "model")
    if not rows:
        return ""
    row = rows["resnet50"]
    return (
        f"**The whole command** on a ResNet-50 of {row['model_bytes'] / 1e6:.0f} MB, load to written and verified "
        f"file: {row['wall_s']:.1f} s, and {row['times_over_bare']:.1f} times the model's size in memory over a bare "
        "Python's. `python bench/command.py`."
    )


COLUMNS = {
    "secateur": "secateur", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "torch.compile": "torch.compile",
    "tvm-default": "TVM", "tvm-metaschedule": "MetaSchedule",
}  # fmt: skip


def latency() -> str:
    """Our libraries beside the runtimes that people use, and the pruned networks beside their dense selves."""
    rows = speeds()
    if not rows:
        return ""
    first = rows[0]
    return "\n".join([
        "**Speed**: milliseconds at 224x224, batch 1, f32. Each runtime ran in a process of its own, by turns with the",
        "others, and stopped while they ran. *best/ours* is the fastest peer's time over ours, the median of the",
        "rounds; *memory* is the peak of a process that loads and runs the network, over ONNX Runtime's; *cores* how",
        "much of one core alone each gave when all worked (bench/cores.py: 1 is all that the machine promises).",
        _tuned(rows),
        "",
        "![Peers' times over ours](docs/latency.svg)",
        *(line for threads in sorted({r["threads"] for r in rows}) for line in _speed_table(rows, threads)),
        "",
        *_peak_shares(rows),
        "",
        f"`python bench/latency.py`; {where(*rows)}, ONNX Runtime {first['versions']['onnxruntime']}, OpenVINO "
        f"{first['versions'].get('openvino', '-')}, TVM {first['versions'].get('apache-tvm', '-')}.",
    ])  # fmt: skip


def speeds() -> list[common.Row]:
    """The newest row of each network and number of threads, in the order in which they were first measured."""
    rows = [r for r in common.read(RESULTS / "latency.jsonl") if "ms" in r]
    return list({(r["network"], r["threads"]): r for r in rows}.values())


def short(network: str) -> str:
    """A network's name for a table."""
    return str(network).partition("/")[2].replace("@", " at ")


def _tuned(rows: list[common.Row]) -> str:
    if {(r["tune"], r["records"]) for r in rows} == {(None, None)}:
        shipped = {r.get("shipped", 0) for r in rows}
        if shipped == {0}:
            return "Nothing was tuned for these networks: secateur's libraries took its own choices."
        return f"Nothing was tuned in this run: secateur comes with {max(shipped)} records of tuned kernels."
    return "secateur's libraries were tuned for these networks."


def _speed_table(rows: list[common.Row], threads: int) -> list[str]:
    of = [r for r in rows if r["threads"] == threads]
    columns = {k: title for k, title in COLUMNS.items() if any(k in r["ms"] for r in of)}
    lines = [
        "",
        f"| {threads} thread{'s' if threads > 1 else ''} | {' | '.join(columns.values())} | best/ours | "
        "of its dense time | memory |" + (" cores |" if threads > 1 else ""),
        f"|---|{'--:|' * (len(columns) + 3 + (threads > 1))}",
    ]
    for r in of:
        ms = [f"{r['ms'][k]['median']:.2f}" if k in r["ms"] else "" for k in columns]
        best = f"{r['best_peer_ratio']:.2f}" if r["best_peer_ratio"] else ""
        dense = f"{r['of_dense']:.0%}" if r["of_dense"] else ""
        memory = f"{r['memory']['ratio']:.2f}" if "ratio" in r["memory"] else ""
        given = f" {min(r['cores']):.2f} |" if threads > 1 and "cores" in r else " |" if threads > 1 else ""
        lines.append(f"| {short(r['network'])} | {' | '.join(ms)} | {best} | {dense} | {memory} |{given}")
    found = {r["network"]: r["best_peer_ratio"] for r in of if r["best_peer_ratio"]}
    dense_only = [v for n, v in found.items() if "@" not in n]
    means = [f"{statistics.geometric_mean(v):.2f} over {what}"
             for v, what in ((found.values(), f"all {len(found)}"), (dense_only, f"the {len(dense_only)} unpruned"))
             if v]  # fmt: skip
    return [*lines, "", f"Geometric mean of best/ours: {', '.join(means)}." if means else ""]


def _peak_shares(rows: list[common.Row]) -> list[str]:
    """Each layer class's share of the FMA peak: the median over the networks, and from where to where."""
    shares: dict[str, list[float]] = {}
    for r in rows:
        for name, found in r["classes"].items():
            if name != "peak" and found["ms"] > 0:
                shares.setdefault(name, []).append(found["share"])
    told = [
        f"{name} {statistics.median(of):.0%} ({min(of):.0%} to {max(of):.0%} in {len(of)} networks)"
        for name, of in sorted(shares.items(), key=lambda item: -statistics.median(item[1]))
        if len(of) > 1
    ]
    return textwrap.wrap(
        "Share of the peak of fused multiply-adds that the kernels of a class of layers reach by themselves on one "
        f"thread, padding not counted as work: {'; '.join(told)}.", 118,
    ) if told else []  # fmt: skip


def tuning() -> str:
    """What tuning costs, and what ten times of it brings."""
    rows = {r["network"]: r for r in common.read(RESULTS / "tuning.jsonl") if "kernels" in r}
    if not rows:
        return ""
    lines = ["**Tuning** on one thread of the machine above, every command as a user types it:", ""]
    for r in rows.values():
        if "after" in r:
            lines.append(
                f"- {short(r['network'])} with {short(r['after'])}'s records measures {r['measured']} of its "
                f"{r['kernels']} kernels in {r['tune_s']:.0f} s, {r['alone_tune_s']:.0f} s from nothing."
            )
            continue
        lines.append(
            f"- {short(r['network'])} from nothing: {r['kernels']} kernels in {r['tune_s']:.0f} s, then built in "
            f"{r['build_s']:.1f} s. It runs in {r['ms']['once']['median']:.2f} ms; {r['times']} times the measuring "
            f"makes that {r['ratio']['tenfold']:.1%}, and no tuning at all {r['ratio']['no file']:.1%}."
        )
    return "\n".join([*lines, "", "`python bench/tuning.py`."])


def fill(text: str, blocks: dict[str, Callable[[], str]]) -> str:
    """The text with what stands between each pair of markers written anew; where there are no results, as it was."""
    for name, make in blocks.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        if begin not in text or end not in text:
            raise SystemExit(f"no markers '{begin}' and '{end}'")
        made = make()
        if made:
            text = f"{text.partition(begin)[0]}{begin}\n{made}\n{end}{text.partition(end)[2]}"
    return text


def main() -> int:
    """Fill both."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    text = README.read_text(encoding="utf-8")
    blocks = {
        "coverage": coverage, "latency": latency, "criteria": lambda: criteria_tables.table(where),
        "sweep": lambda: criteria_tables.sweep(where), "tuning": tuning, "real": real, "command": command,
        "rewrites": readme_rewrites.block,
    }  # fmt: skip
    Path(README).write_text(fill(text, blocks), encoding="utf-8")
    text = CRITERIA.read_text(encoding="utf-8")
    CRITERIA.write_text(fill(text, {"sweep": lambda: criteria_tables.costs(where)}), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
