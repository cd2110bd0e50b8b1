"""What ``accuracy.keep`` found, as a table: a budget in quality, and what it keeps of pictures that it never saw."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

from bench.lib import common

ROWS = common.RESULTS / "keep.jsonl"
SLACK = 0.005  # below the share asked for: what is nearer than this counts as kept


def keep(where: Callable[..., str], path: Path = ROWS) -> str:
    """Policy by policy: how many runs truly kept the share less ``SLACK``, and what is left of the work."""
    found = {(r["network"], r["seed"], r["policy"]): r for r in common.read(path)}
    if not found:
        return ""
    first = next(iter(found.values()))
    goal = first["goal"]
    lines = [
        f"**A budget in quality**: `--keep {goal:.0%}` with {first['pictures']:,} pictures without labels, of which a",
        "quarter is held out and judges; then judged on 10,000 test pictures. *seen*: the share of answers kept on",
        "what was held out, *kept*: on the test pictures, in the median and at least; *MACs left*: in the median.",
        "",
        f"| policy | networks | seen | kept | at least | kept {goal - SLACK:.1%} | MACs left | from | to | CPU s |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for policy in dict.fromkeys(r["policy"] for r in found.values()):
        runs = [r for r in found.values() if r["policy"] == policy]
        of = [r for r in runs if "kept" in r]
        if not of:
            continue
        left, kept = [r["macs_left"] for r in of], [r["kept"] for r in of]
        cells = [statistics.median(r["seen"] for r in of), statistics.median(kept), min(kept)]
        true = sum(k >= goal - SLACK for k in kept)
        spent = statistics.median(r["cpu_s"] for r in of)
        shares = " | ".join(f"{100 * c:.2f}" for c in cells)
        lines.append(
            f"| `{of[0]['spec']}` | {len(runs)} | {shares} | {true} of {len(of)} | "
            f"{statistics.median(left):.0%} | {min(left):.0%} | {max(left):.0%} | {spent:.0f} |"
        )
    refused = [f"{r['policy']} on {r['network']} {r['seed']}" for r in found.values() if "refused" in r]
    if refused:
        lines += ["", f"No such network: {', '.join(refused)}."]
    return "\n".join([*lines, "", f"`python -m bench.accuracy.keep`; {where(*found.values())}."])
