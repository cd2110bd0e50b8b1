"""What readers with their own channels are worth, as a table for docs/results.md."""

from __future__ import annotations

import statistics

from bench.accuracy.criteria_tables import RESULTS, Where
from bench.lib import common

NAMES = {"dense": "DenseNet", "shuffle": "ShuffleNet v2", "residual": "ResNet-8"}


def own(where: Where) -> str:
    """Tied readers next to own ones, in the mean of the networks of each kind."""
    measured = common.read(RESULTS / "own_readers.jsonl")
    if not measured:
        return ""
    lines = [
        "**Readers with their own channels** (`obs`, `knapsack{loss=sum,readers=own}`, `refit`, no labels) next to",
        "tied ones, small networks on Fashion-MNIST, judged on 10,000 test pictures: means over networks of different",
        "seeds. *Lost*: the error of all readers, as allocation counts it. *Layers*: that keep their own channels.",
        "*Own / tied*: how long a run takes, medians by turns on one picture and one thread, in generated code and in",
        "ONNX Runtime.",
        "",
        "| network | multiply-accumulates left | networks | layers | lost, tied → own | top-1, dense | tied | own "
        "| same answers, tied | own | own / tied, generated code | ONNX Runtime |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    kinds: dict[tuple[str, float], list[common.Row]] = {}
    for row in measured:
        kinds.setdefault((row["network"], row["left"]), []).append(row)
    for (network, left), rows in kinds.items():
        tied, free = ([r for r in rows if r["readers"] == which] for which in ("tied", "own"))
        cells = [NAMES.get(network, network), f"{left:.0%}", str(len(tied)), f"{_mean(free, 'layers'):.1f}"]
        cells.append(f"{_mean(tied, 'lost'):.3f} → {_mean(free, 'lost'):.3f}")
        cells += [f"{100 * _mean(of, key):.1f}" for of, key in ((tied, "dense_top1"), (tied, "top1"), (free, "top1"))]
        cells += [f"{100 * _mean(of, 'agreement'):.1f}" for of in (tied, free)]
        for runtime in ("secateur", "onnxruntime"):
            ratios = [o["ms"][runtime] / t["ms"][runtime] for t, o in zip(tied, free, strict=True)]
            cells.append(f"{statistics.median(ratios):.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"`python -m bench.accuracy.own_readers`; {where(*measured)}."])


def _mean(rows: list[common.Row], key: str) -> float:
    return statistics.fmean(float(row[key]) for row in rows)
