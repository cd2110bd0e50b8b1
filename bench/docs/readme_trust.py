"""What is measured of trust: trained files, small graphs, damaged inputs, batches, and versions side by side."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence

from bench.docs.readme_headlines import newest
from bench.lib import common

VERDICTS = ("right", "refused", "moot")
FAULTS = ("wrong", "crash", "unexpected", "slow", "unnamed")
DAMAGE = ("crashed", "unexpected", "slow", "wrong", "refused", "accepted")


def files() -> str:
    """Trained ONNX files of packages."""
    rows = list(newest("onnx_files", "file").values())
    if not rows:
        return ""
    checked = [r["none"] for r in rows if r["none"]["status"] == "right"]
    both = sum(bool(c["reading"]["passed"] and c["written"]["passed"]) for c in checked)
    halves, built = (Counter(r[stage]["status"] for r in rows if stage in r) for stage in ("half", "build"))
    frozen = statistics.median(r["half"]["frozen_macs"] for r in rows if r["half"].get("frozen_macs") is not None)
    parted = sum(bool(r["build"].get("runtime")) for r in rows if r.get("build", {}).get("status") == "right")
    commits = sorted({c[:9] for r in rows for stage, c in r.get("commits", {}).items() if stage in ("half", "build")})
    return "\n".join(
        [
            f"**{len(rows)} trained ONNX files** from packages, at several sizes of every dynamic axis, judged by ONNX "
            f"Runtime alone: {both} are read as ONNX Runtime runs them and written back the same, and "
            f"{halves['right']} are pruned to half of their multiply-accumulates, equal to the original masked by the "
            f"recipe. Of the others {halves['refused']} are refused and {halves['missed']} cannot be "
            f"cut so far; each says why. The median share of MACs that is frozen is {frozen:g}. {built['right']} are "
            f"built into a library that agrees, {parted} of them with parts that ONNX Runtime computes; "
            f"{built['refused']} are refused in a sentence. `python -m bench.reach.onnx_files --build`; "
            f"{common.where(rows[-1])}; pruned and built at {', '.join(commits)}."
        ]
    )


def graphs() -> str:
    """Small graphs after public reports, and our own, by leg."""
    suites = {"after public reports": "onnx_graphs_reported", "our own": "onnx_graphs"}
    lines = [
        "**Small ONNX graphs**, judged by ONNX Runtime at two sizes. *Moot*: it does not run the graph itself. "
        "*Faults*: wrong, crashed, unexpected, slow, or a recipe that names what the file does not have.",
        "",
        "| graphs | leg | right | refused in a sentence | moot | faults |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for title, name in suites.items():
        rows = list({(r["graph"], r["leg"]): r for r in common.read(common.RESULTS / f"{name}.jsonl")}.values())
        for leg in ("none", "macs", "build", "run"):
            found = Counter(r["verdict"] for r in rows if r["leg"] == leg)
            faults = sum(found[v] for v in FAULTS)
            lines.append(f"| {title} | {leg} | {' | '.join(str(found[v]) for v in VERDICTS)} | {faults} |")
    return "\n".join([*lines, "", "`python -m bench.reach.onnx_graphs`."])


def damage() -> str:
    """Mutated inputs of every kind."""
    rows = newest("mutations", "kind")
    if not rows:
        return ""
    head = ["**Damaged and hostile inputs**, seeded mutations:", "", f"| kind | inputs | {' | '.join(DAMAGE)} |"]
    cells = [f"| {kind} | {r['count']:,} | {' | '.join(f'{r[c]:,}' for c in DAMAGE)} |" for kind, r in rows.items()]
    return "\n".join(
        [
            *head,
            f"|---|{'--:|' * (len(DAMAGE) + 1)}",
            *cells,
            "",
            "`python -m bench.reach.mutate_onnx` and its sisters.",
        ]
    )


def checks() -> str:
    """What the checks cost, and what passes them."""
    batch = common.read(common.RESULTS / "batch.jsonl")
    cost = common.read(common.RESULTS / "reading_cost.jsonl")
    families = {r["family"] for r in batch}
    lines = []
    suite = common.read(common.RESULTS / "line_coverage.jsonl")
    if suite:
        row = suite[-1]
        parts = ", ".join(f"{name} {100 * ran / total:.0f} %" for name, (total, ran) in row["packages"].items())
        lines.append(
            f"**The suite** runs {100 * row['covered'] / row['lines']:.1f} % of the {row['lines']:,} lines of `src` "
            f"that hold a statement, those that only child processes run left out: {parts}. "
            f"`python -m bench.reach.line_coverage`; {common.where(row)}."
        )
    if batch:
        lines.append(
            f"**Batches**: {len(families)} kernel families at batches 2 to 16, one sample NaN, infinite or 1e30: "
            f"{sum(r[kind] for r in batch for kind in ('nan', 'inf', '1e30'))} other samples changed. "
            "`python -m bench.speed.batch`."
        )
    if cost:
        lines.append(
            f"**The checks** of what is read and written take {cost[-1]['share']:.0%} of `compile` on a file of "
            f"{cost[-1]['bytes'] / 1e6:.0f} MB. `python -m bench.reach.reading_cost`."
        )
    return "\n\n".join(lines)


def versions() -> str:
    """This version next to an earlier commit."""
    rows = newest("versions", "what")
    if not rows:
        return ""
    lines = ["| | before | now | now / before |", "|---|--:|--:|--:|"]
    for what, row in rows.items():
        lines.append(f"| {what} | {_line(row['found'])} |")
    first = next(iter(rows.values()))
    before = first["before"]
    command = f"`python -m bench.speed.versions {before}`; {common.where(first)}."
    said = (
        f"**Next to commit {before}**, by turns, in seconds where nothing else is said. To compile a file now runs it "
        "in ONNX Runtime as well, and the suite is what tests each had (with two workers each where nothing is said); "
        "of those that both have, the seconds are added up."
    )
    return "\n".join([said, "", *lines, "", command])


def _line(found: dict[str, Sequence[float]]) -> str:
    ratios = [now / before for now, before in zip(found["now"], found["before"], strict=True)]
    medians = [statistics.median(found[name]) for name in ("before", "now")]
    return f"{medians[0]:.3g} | {medians[1]:.3g} | {statistics.median(ratios):.2f}"
