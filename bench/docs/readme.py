"""Writes the measured tables of docs/ and the README's few numbers from the committed results, between their markers.

    python -m bench.docs.readme

Reads bench/results/*.jsonl and nothing else: a number that no script measured cannot get into them this way.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable

from bench.accuracy import (
    criteria_tables,
    keep_tables,
    lottery_tables,
    own_tables,
    pretrained_tables,
    rounds_tables,
    zeros_tables,
)
from bench.docs import (
    readme_arm,
    readme_bf16,
    readme_boards,
    readme_gpu,
    readme_headlines,
    readme_peers,
    readme_reach,
    readme_rewrites,
    readme_speed,
    readme_trust,
)
from bench.docs.readme_headlines import newest
from bench.lib import common

README, DOCS = common.ROOT / "README.md", common.ROOT / "docs"
NAMES = {"tv": "torchvision classification", "timm": "timm", "seg": "segmentation", "det": "detection backbones"}


def coverage() -> str:
    """Networks done right, next to the peer measured under the same rules."""
    rows = newest("coverage", "network")
    if not rows:
        return ""
    peers = list(newest("torch_pruning", "network").values())
    lines = [
        "**Reach**: 233 networks with random weights, half of the channels removed, the law checked with randomised",
        "batch norm. *Right*: the law holds and at least 30 % of the parameters are gone. The peer is Torch-Pruning",
        "1.6.1 under the same rules (`bench/results/torch_pruning.jsonl`).",
        "",
        "| networks | | right | wrong or broken | ≥ 90 % of layers cut | Torch-Pruning right |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for zoo in (*NAMES, "all"):
        of = [r for n, r in rows.items() if zoo in ("all", n.partition("/")[0])]
        right = [r for r in of if r["status"] == "right"]
        bad = sum(r["status"] in ("wrong", "broken") for r in of)
        deep = sum(r["layers_cut"] >= 0.9 * r["layers"] for r in right)
        peer = sum(r["right"] for r in peers if zoo in ("all", r["network"].partition("/")[0]))
        lines.append(f"| {NAMES.get(zoo, '**all**')} | {len(of)} | {len(right)} | {bad} | {deep} | {peer} |")
    seconds = [r["cpu_s"] for r in rows.values() if "cpu_s" in r]
    theirs = [r["cpu_s"] for r in peers if r["pruned"] and r["cpu_s"]]
    lines += [
        "",
        f"Analysis and removal take {statistics.median(seconds):.2f} CPU seconds in the median and "
        f"{max(seconds):.2f} at most (the peer: {statistics.median(theirs):.2f} and {max(theirs):.0f}, where it ends). "
        "`python -m bench.reach.zoos`; "
        f"{common.where(next(iter(rows.values())), *rows.values())}.",
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
    lines += ["", f"`python -m bench.reach.real`; {common.where(next(iter(rows.values())))}."]
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
        "Python's. `python -m bench.speed.command`."
    )


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
    """Fill the page of results, the README's numbers and the table of docs/criteria.md."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    results = {
        "coverage": coverage, "latency": readme_speed.latency, "several": readme_speed.several,
        "installed": readme_peers.installed, "start": readme_peers.start,
        "pays": readme_speed.pays,
        "libraries": readme_speed.libraries, "criteria": lambda: criteria_tables.table(common.where),
        "repair": lambda: criteria_tables.repair(common.where), "own": lambda: own_tables.own(common.where),
        "keep": lambda: keep_tables.keep(common.where), "rounds": lambda: rounds_tables.rounds(common.where),
        "pretrained": lambda: pretrained_tables.pretrained(common.where),
        "sweep": lambda: criteria_tables.sweep(common.where), "tuning": readme_speed.tuning, "real": real,
        "boards": readme_boards.boards, "allocation": readme_boards.allocation,
        "command": command, "rewrites": readme_rewrites.block,
        "files": readme_trust.files, "graphs": readme_trust.graphs, "damage": readme_trust.damage,
        "portable": readme_peers.portable, "pruners": readme_peers.pruners,
        "detectors": readme_reach.detectors, "modules": readme_reach.modules,
        "analysis": readme_reach.analysis,
        "emulated": readme_arm.emulated, "instructions": readme_arm.instructions, "loops": readme_arm.inner_loops,
        "bf16": readme_bf16.bf16,
        "gpu": readme_gpu.gpu,
        "checks": readme_trust.checks, "versions": readme_trust.versions,
        "lottery": lottery_tables.lottery, "training": lottery_tables.training,
        "retained": zeros_tables.retained, "voices": zeros_tables.voices,
        "patterns": zeros_tables.patterns, "sparse": zeros_tables.kernels, "sparse_peers": zeros_tables.peers,
    }  # fmt: skip
    costs = {"sweep": lambda: criteria_tables.costs(common.where)}
    pages = {
        README: {"headlines": readme_headlines.headlines},
        DOCS / "results.md": results,
        DOCS / "criteria.md": costs,
    }
    for page, blocks in pages.items():
        page.write_text(fill(page.read_text(encoding="utf-8"), blocks), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
