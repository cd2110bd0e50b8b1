"""Draws the committed results: docs/latency.svg, each peer's time over ours; docs/criteria.svg, what criteria keep.

    python -m bench.lib.plots

Reads bench/results/latency.jsonl and criteria.jsonl, and nothing else; the same results give the same files. Needs
matplotlib, of the extra `bench`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from typing import Any

from bench.accuracy import criteria_tables
from bench.docs import readme_speed
from bench.lib import common

PICTURE = common.ROOT / "docs" / "latency.svg"
CRITERIA = common.ROOT / "docs" / "criteria.svg"
REPAIRS = {
    "none": ("bare", "o", "#999999"), "compensation": ("mended", "s", "#0072b2"),
    "one epoch": ("epoch", "^", "#d55e00"),
}  # fmt: skip
MARKS = {
    "onnxruntime": ("o", "#0072b2"), "openvino": ("s", "#d55e00"), "torch.compile": ("^", "#009e73"),
    "tvm-default": ("x", "#999999"), "tvm-metaschedule": ("D", "#cc79a7"),
}  # fmt: skip
TICKS = (0.7, 1, 1.5, 2, 3, 5)
EDGE = 7.0  # who takes longer stands at the edge, with the number
FIXED: Any = {"svg.hashsalt": "secateur", "svg.fonttype": "none", "font.size": 9}


def panel(axes: Any, rows: Sequence[common.Row], networks: Sequence[str]) -> None:
    """One number of threads: networks from top to bottom, a mark for each peer."""
    for runtime, (marker, colour) in MARKS.items():
        points = [(r["ratio"][runtime], networks.index(r["network"])) for r in rows if runtime in r["ratio"]]
        for x, y in points:
            if x > EDGE:
                axes.annotate(f"{x:.0f}", (EDGE, y), (-6, 0), textcoords="offset points", ha="right", va="center")
        x = [min(x, EDGE) for x, _ in points]
        axes.scatter(x, [y for _, y in points], s=26, marker=marker, color=colour, zorder=3,
                     label=readme_speed.NAMES[runtime] if points else None)  # fmt: skip
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks(TICKS, [f"{t:g}" for t in TICKS])
    axes.minorticks_off()
    axes.set_xlim(TICKS[0], EDGE * 1.1)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_xlabel("time over secateur's")


def draw(rows: Sequence[common.Row]) -> None:
    """Write the picture."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    threads = sorted({r["threads"] for r in rows})
    networks = list(dict.fromkeys(r["network"] for r in rows))
    with matplotlib.rc_context(FIXED):
        figure, panels = pyplot.subplots(
            1, len(threads), figsize=(9, 1.4 + 0.26 * len(networks)), sharey=True, squeeze=False, layout="constrained"
        )
        for axes, number in zip(panels[0], threads, strict=True):
            panel(axes, [r for r in rows if r["threads"] == number], networks)
            axes.set_title(f"{number} thread{'s' if number > 1 else ''}", fontsize=10)
        panels[0][0].set_yticks(range(len(networks)), [readme_speed.short(n) for n in networks])
        panels[0][0].invert_yaxis()
        labelled: dict[str, Any] = {}
        for axes in panels[0]:
            marks, labels = axes.get_legend_handles_labels()
            labelled.update(zip(labels, marks, strict=True))
        figure.legend(
            labelled.values(), labelled.keys(), loc="outside lower center", ncols=len(labelled), frameon=False
        )
        figure.savefig(PICTURE, metadata={"Date": None})
        pyplot.close(figure)


def draw_criteria(rows: Sequence[common.Row]) -> None:
    """Top-1 by criterion, best at the top; one panel for each share removed; bars are standard deviations."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    names = criteria_tables.criteria(rows)
    dense = statistics.mean(criteria_tables.values(rows, "fashion", "dense", 0.0, "none"))
    with matplotlib.rc_context(FIXED):
        size = (9, 1.4 + 0.26 * len(names))
        figure, panels = pyplot.subplots(1, 2, figsize=size, sharey=True, layout="constrained")
        for axes, removed in zip(panels, (0.5, 0.7), strict=True):
            for repair, (label, marker, colour) in REPAIRS.items():
                part = "trained" if repair == "one epoch" else "fashion"
                known = [(criteria_tables.values(rows, part, n, removed, repair), i) for i, n in enumerate(names)]
                points = [(statistics.mean(v), statistics.pstdev(v), i) for v, i in known if v]
                if points:
                    x, deviation, y = zip(*points, strict=True)
                    axes.errorbar(
                        x, y, xerr=deviation, fmt=marker, color=colour, label=label, markersize=5, linewidth=1
                    )
            axes.axvline(dense, color="black", linewidth=1)
            axes.set_title(f"{removed:.0%} of the multiply-accumulates removed", fontsize=10)
            axes.set_xlabel("top-1, Fashion-MNIST (line: dense)")
            axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        panels[0].set_yticks(range(len(names)), names)
        panels[0].invert_yaxis()
        marks, labels = panels[0].get_legend_handles_labels()
        figure.legend(marks, labels, loc="outside lower center", ncols=len(labels), frameon=False)
        figure.savefig(CRITERIA, metadata={"Date": None})
        pyplot.close(figure)


def main() -> int:
    """Draw the pictures."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    rows = readme_speed.speeds()
    if not rows:
        print("plots: bench/results/latency.jsonl has no rows; run bench/speed/latency.py", file=sys.stderr)
        return 2
    draw(rows)
    if found := criteria_tables.rows():
        draw_criteria(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
