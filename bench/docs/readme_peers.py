"""Tables of other people's programs: engines that run what is written, and pruners on the same networks."""

from __future__ import annotations

import re

from bench.lib import common
from bench.reach.names import ENGINES, PRUNERS


def portable() -> str:
    """Pruned ShuffleNets in every engine."""
    rows = common.read(common.RESULTS / "portable.jsonl")
    found = {(r["network"], r["macs"], r["engine"]): r for r in rows}
    if not found:
        return ""
    lines = [
        "**What is written, elsewhere**: ShuffleNets as they are and at half of their multiply-accumulates, written by "
        "`secateur compile`, in each engine. The largest difference from ONNX Runtime on the original with its missing "
        "columns at zero, over the largest value.",
        "",
        f"| network | MACs | {' | '.join(ENGINES.values())} |",
        f"|---|---|{'--:|' * len(ENGINES)}",
    ]
    for name, macs in sorted({(r["network"], r["macs"]) for r in rows}, key=lambda k: (k[0], k[1] != "given")):
        cells = [_error(found.get((name, macs, engine))) for engine in ENGINES]
        lines.append(f"| {name} | {'all' if macs == 'given' else macs} | {' | '.join(cells)} |")
    packages = {package: v for r in rows for package, v in r.get("packages", {}).items() if package != "numpy"}
    named = ", ".join(f"{package} {version}" for package, version in packages.items())
    return "\n".join([*lines, "", f"`python -m bench.reach.portable`; {named}; {common.where(rows[-1])}."])


def _error(row: common.Row | None) -> str:
    if row is None:
        return ""
    error = row.get("max_rel_err")
    return f"{error:.0e}" if isinstance(error, float) else str(error or row["status"])


def _short(reason: str) -> str:
    """The first of several sentences that another program gives, without addresses in its memory."""
    return re.sub(r"<?(function \w+) at 0x[0-9a-f]+>?", r"\1", reason).split(";")[0]


def pruners() -> str:
    """Other pruners of torch modules on the same networks."""
    rows = {(r["network"], r["pruner"]): r for r in common.read(common.RESULTS / "pruners.jsonl")}
    if not rows:
        return ""
    last = next(reversed(rows.values()))
    versions = {r["pruner"]: r["version"] for r in rows.values() if r["version"]}
    lines = [
        "**Other pruners**, half of the channels of every layer but the classifier, each network in a process of its "
        "own: whether the law holds, and processor seconds from the module to the smaller one. *Not finished*: stopped "
        "after 60 s. *Pruned*: it runs and is smaller, and weights alone do not say whether the law holds. *Told*: "
        "torch-kirigami's own search for what may go takes longer than that, so it is also asked to remove the later "
        "half of each layer's rows, once, whatever their sizes; what it refuses then may go in another request.",
        "",
        f"| network | {' | '.join(f'{PRUNERS[p]} {versions.get(p, chr(32))}'.strip() for p in PRUNERS)} |",
        f"|---|{'---|' * len(PRUNERS)}",
    ]
    reasons = []
    for name in dict.fromkeys(network for network, _ in rows):
        cells = []
        for pruner in PRUNERS:
            row = rows.get((name, pruner))
            cells.append(
                "" if row is None else f"{row['status']}, {row['cpu_s']:.2f} s" if "cpu_s" in row else row["status"]
            )
            if row is not None and row.get("reason") and row["status"] != "not finished":
                reasons.append(f"{name}, {PRUNERS[pruner]}: {_short(row['reason'])}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", *(f"- {reason}" for reason in reasons)]
    return "\n".join([*lines, "", f"`python -m bench.reach.pruners --limit 60`; {common.where(last, *rows.values())}."])
