"""What ``accuracy.rounds`` found, as a table for docs/results.md."""

from __future__ import annotations

import statistics
from pathlib import Path

from bench.accuracy.criteria_tables import Where, spread
from bench.lib import common

KEY = ("network", "seed", "policy", "rounds")
ROWS = common.RESULTS / "rounds.jsonl"


def rounds(where: Where, path: Path = ROWS) -> str:
    """Criterion by criterion, one round next to several: of the networks that were measured with all of them."""
    found = {tuple(r[k] for k in KEY): r for r in common.read(path)}
    if not found:
        return ""
    counts = sorted({key[3] for key in found})
    lines = [
        "**Rounds**: half of the multiply-accumulates removed in so many rounds of scores, allocation, cut and",
        f"`refit`, with {next(iter(found.values()))['pictures']} pictures and no labels: top-1 on 10,000 test",
        "pictures, means and standard deviations over networks, and how many of the original's answers stayed; last,",
        "in how many networks the most rounds were ahead of one.",
        "",
        f"| criterion | networks | {' | '.join(f'{n}, top-1 | kept' for n in counts)} | ahead |",
        f"|---|--:|{'--:|' * (2 * len(counts) + 1)}",
    ]
    shown: list[common.Row] = []
    for policy in dict.fromkeys(key[2] for key in found):
        nets = [key[:2] for key in found if key[2:] == (policy, counts[0])]
        nets = [net for net in nets if all((*net, policy, n) in found for n in counts)]
        of = {n: [found[*net, policy, n] for net in nets] for n in counts}
        if not nets:
            continue
        cells = [
            f"{spread([r['top1'] for r in rows])} | {100 * statistics.fmean(r['agreement'] for r in rows):.1f}"
            for rows in of.values()
        ]
        ahead = sum(a["top1"] < b["top1"] for a, b in zip(of[counts[0]], of[counts[-1]], strict=True))
        lines.append(f"| `{policy}` | {len(nets)} | {' | '.join(cells)} | {ahead} of {len(nets)} |")
        shown += [r for rows in of.values() for r in rows]
    return "\n".join([*lines, "", f"`python -m bench.accuracy.rounds`; {where(*shown)}."]) if shown else ""
