"""What is measured of tuning on several boards, and of widths under a budget of time."""

from __future__ import annotations

import statistics

from bench.docs.readme_headlines import newest
from bench.lib import common
from bench.speed.allocation import again

KEY = ("network", "runtime", "speedup", "method")


def boards() -> str:
    """How much faster two boards tune than one."""
    rows = list(newest("boards").values())
    lines = [
        f"- {r['network']}, {r['kernels']} kernels with alternatives: {statistics.median(r['one_s']):.0f} s on one "
        f"board, {statistics.median(r['two_s']):.0f} s on two, **{r['ratio']:.2f} times as fast** "
        f"(the machine's load was {r['load']:.1f} when it began)."
        for r in rows
    ]
    head = "**Two boards**: servers of TVM's on the loopback, a core each, which is also the core that compiles for it."
    return "\n".join([head, "", *lines, "", f"`python -m bench.speed.boards`; {common.where(*rows)}."]) if rows else ""


def allocation() -> str:
    """Agreement and error at equal measured time, by how widths were chosen."""
    found = {tuple(r[k] for k in KEY): r for r in common.read(common.RESULTS / "allocation.jsonl")}
    rows = [r for r in found.values() if "refused" not in r]
    if not rows:
        return ""
    lines = [
        "**Widths under a budget of time** on this machine and one thread: what each way to choose them leaves at the "
        "same measured time, repaired by `refit` on unlabelled pictures. *Asked* and *measured* are times as fast as "
        "the original, once more after the choice; *agreement* is the share of answers that are the original's.",
        "",
        "| network | asked | chosen by | measured | MACs left | agreement | error of logits |",
        "|---|--:|---|--:|--:|--:|--:|",
    ]
    for r in rows:
        kept = "|" if r["agreement"] is None else f"{r['agreement']:.1%} | {r['error']:.3f}"
        lines.append(
            f"| {r['network']} | {r['speedup']:g} | {r['method']} | {again(r):.2f} | {r['macs']:.0%} | {kept} |"
        )
    load = max(r["load"] for r in rows)
    return "\n".join(
        [*lines, "", f"`python -m bench.speed.allocation`; {common.where(*rows)}, load at most {load:.1f}."]
    )
