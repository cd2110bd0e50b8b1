"""The README's few numbers, from the committed results and nothing else; each links to its table in docs/results.md."""

from __future__ import annotations

import statistics

from bench.docs import readme_peers, readme_speed
from bench.lib import common

PAGE = "docs/results.md"


def headlines() -> str:
    """One line for each subject that was measured."""
    made = (reach(), speed(), installed(), pays(), libraries())
    return "\n".join(f"- {line}" for line in made if line)


def reach() -> str:
    """Networks pruned right, next to the peer."""
    rows, peer = (list(newest(name).values()) for name in ("coverage", "torch_pruning"))
    if not rows:
        return ""
    right, theirs = sum(r["status"] == "right" for r in rows), sum(bool(r["right"]) for r in peer)
    return (
        f"**{right} of {len(rows)}** public networks lose half of their channels and obey the law "
        f"([Torch-Pruning 1.6.1: {theirs}]({PAGE}#reach))."
    )


def speed() -> str:
    """The best peer's time over ours, and what a pruned network takes of its dense time."""
    rows = readme_speed.speeds()
    if not rows:
        return ""
    ratios = {n: [r["best_peer_ratio"] for r in rows if r["threads"] == n and r["best_peer_ratio"]] for n in (1, 2)}
    means = [statistics.geometric_mean(ratios[n]) for n in (1, 2)]
    shares = [r["of_dense"] for r in rows if r["of_dense"]]
    return (
        f"The fastest of ONNX Runtime and OpenVINO (f32) takes **{means[0]:.2f} times** our libraries' time on one "
        f"thread, {means[1]:.2f} on two ([geometric mean of {len(ratios[1])} networks]({PAGE}#speed)); at half of the "
        f"multiply-accumulates a network takes {min(shares):.0%} to {max(shares):.0%} of its dense time."
    )


def installed() -> str:
    """The best of all engines, and which they were."""
    rows = [r for (_, threads), r in readme_peers.compared().items() if threads == 1 and r["best_peer_ratio"]]
    if not rows:
        return ""
    mean = statistics.geometric_mean(r["best_peer_ratio"] for r in rows)
    names = [readme_speed.NAMES[k] for k in readme_speed.NAMES if any(k in r["ratio"] for r in rows)]
    return (
        f"Of every engine as it is installed ({', '.join(names)}) the fastest takes **{mean:.2f} times** our time on "
        f"one thread ([geometric mean of {len(rows)} networks]({PAGE}#speed))."
    )


def pays() -> str:
    """Whether any pruned network was slower than the whole one."""
    rows = common.read(common.RESULTS / "pays.jsonl")
    if not rows:
        return ""
    slower, runtimes = sum(r["of_whole"] > 1 for r in rows), {r["runtime"] for r in rows}
    return (
        f"**{slower} of {len(rows)}** pruned networks are slower than the whole one, over {len(runtimes)} runtimes "
        f"([table]({PAGE}#pruning-pays))."
    )


def libraries() -> str:
    """Libraries that compute what their networks do."""
    rows = list(newest("libraries").values())
    if not rows:
        return ""
    right = sum(r["status"] == "right" for r in rows)
    return f"**{right} of {len(rows)}** libraries compute what their networks compute ([how]({PAGE}#libraries))."


def newest(name: str, key: str = "network") -> dict[str, common.Row]:
    """The newest row for each value of ``key``; empty where nothing was measured."""
    return {str(row[key]): row for row in common.read(common.RESULTS / f"{name}.jsonl")}
