"""What is measured of reach next to the zoo: module kinds, detectors, and the time of analysis."""

from __future__ import annotations

from bench.docs.readme_headlines import newest
from bench.lib import common
from bench.reach.names import MODULE_FAULTS


def detectors() -> str:
    """Detectors, fresh and after a run of their own."""
    rows = list({(r["detector"], r["way"]): r for r in common.read(common.RESULTS / "detectors.jsonl")}.values())
    if not rows:
        return ""
    right = [r for r in rows if r["status"] == "right"]
    worst = max((r["library"] for r in right if "library" in r), default=0.0)
    failed = [f"- {r['detector']}, {r['way']}, {r['step']}: {r['reason']}" for r in rows if r["status"] != "right"]
    names = ", ".join(dict.fromkeys(r["detector"] for r in rows))
    text = (
        f"**Detectors** with drawn weights, as made and after a run of their own ({names}): pruned to half of their "
        "multiply-accumulates under the law, trained a step, written, run in ONNX Runtime and built into a library: "
        f"{len(right)} of {len(rows)} journeys are right, and the libraries are at most {worst:.0e} of the largest "
        f"value from the module. `python -m bench.reach.detectors`; {common.where(rows[0], *rows)}."
    )
    return "\n".join([text, *(["", *failed] if failed else [])])


def modules() -> str:
    """Module kinds, leg by leg."""
    rows = newest("modules", "kind")
    if not rows:
        return ""
    faults = [(name, leg, v) for name, row in rows.items() for leg, v in _verdicts(row) if v in MODULE_FAULTS]
    frozen = sum(bool(row.get("frozen")) for row in rows.values())
    columns = ("ok", "expected", "none", *MODULE_FAULTS)
    lines = [
        "**Module kinds** that people bring, each through the whole journey at half of its multiply-accumulates: "
        f"{len(rows) - len({name for name, _, _ in faults})} of {len(rows)} without a fault, {frozen} with layers "
        "frozen without need. *None*: the leg says nothing of this kind. *Slow*: not done in time on a busy machine.",
        "",
        f"| leg | {' | '.join(columns)} |",
        f"|---|{'--:|' * len(columns)}",
    ]
    for leg in dict.fromkeys(leg for row in rows.values() for leg in row["legs"]):
        found = [v for row in rows.values() for name, v in _verdicts(row) if name == leg]
        lines.append(f"| {leg} | {' | '.join(str(found.count(v)) for v in columns)} |")
    lines += ["", *(f"- {name}: {leg} {verdict}" for name, leg, verdict in faults)]
    return "\n".join([*lines, "", f"`python -m bench.reach.modules`; {common.where(*rows.values())}."])


def _verdicts(row: common.Row) -> list[tuple[str, str]]:
    return [(name, leg["verdict"]) for name, leg in row["legs"].items()]


def analysis() -> str:
    """Coupling, choosing and cutting next to an earlier commit."""
    rows = newest("analysis", "network")
    if not rows:
        return ""
    first = next(iter(rows.values()))
    lines = [
        f"**Analysis and removal next to commit {first['before']}**: the least processor seconds of each, by turns.",
        "",
        "| network | before, s | now, s | now / before |",
        "|---|--:|--:|--:|",
    ]
    for name, row in rows.items():
        before, now = (min(row["found"][which]) for which in ("before", "now"))
        lines.append(f"| {name} | {before:.3f} | {now:.3f} | {row['ratio']:.2f} |")
    command = f"`python -m bench.speed.analysis {first['before']}`; {common.where(first, *rows.values())}."
    return "\n".join([*lines, "", command])
