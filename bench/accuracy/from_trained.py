"""What closed forms make of trained layers: error before and after one pass of tuning, by rank or number of groups.

    python -m bench.accuracy.from_trained [--networks fashion_resnet,open_nsfw,mobilenet_v2] [--seeds 3]
    python -m bench.accuracy.from_trained --constant
        what answering the mean of the targets is worth, whatever the picture
    python -m bench.accuracy.from_trained --plot           draw docs/from_trained.svg from the rows

`separable`, `grouped`, `low_rank` and `regroup` replace every layer of a trained network that they fit and that costs
less afterwards. The weights' error is the median of the layers' relative Frobenius errors. The network's error,
before and after one pass: for the residual network trained here on Fashion-MNIST the share of wrong answers on its
10,000 test pictures, one pass being its training pictures once; for open_nsfw and MobileNetV2, which come without
training data, the relative error of the logits on six photos, one pass being 240 random crops of fourteen others with
the original's own logits as targets. `fitted` is the same error on pictures that were tuned on: where it is small and
`after` is not, fourteen photos were too few.

Nothing is chosen by the pictures that judge: a third set does that. Of RATES the one is taken that leaves the least
error on it: for the network trained here once a rewrite, on the first seed's network at the second level, for the
others in every row. Where `refit` on the crops lessens the error on it, tuning starts from there. What is there
already is not computed again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.data import fashion
from bench.data.trained_subjects import Subject, constant, error, refitted, subject_of, tune
from bench.lib import common
from secateur.ir import Graph
from secateur.ir.exporters.torch.module import to_module
from secateur.passes import REWRITES, Pipeline, parse_spec
from secateur.passes.analysis.cost import cost
from secateur.passes.rewrite.layers import Rewritten

CONSTANT = "from_trained_constant.jsonl"
PICTURE = common.ROOT / "docs" / "from_trained.svg"
LEVELS = {
    "separable": ("rank", (1, 2, 4)),
    "grouped": ("groups", (2, 4, 8)),
    "low_rank": ("ratio", ("10%", "25%", "50%", "75%")),
    "regroup": ("groups", (2, 4, 8)),
}
NETWORKS = ("fashion_resnet", "open_nsfw", "mobilenet_v2")
RATES = {True: (fashion.RATE / 20, fashion.RATE / 5, fashion.RATE), False: (1e-4, 1e-3, 1e-2)}  # SGD, Adam
PROBED = 2_000  # pictures that were tuned on, to say how well they are fitted
TICKS = (0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1, 2, 5)


@dataclass(frozen=True, eq=False)
class Tuned:
    """A module after one pass at the rate that served best, and the error that each rate left on the third set."""

    module: nn.Module
    rate: float
    errors: dict[str, float]


def rewritten(subject: Subject, spec: str) -> Graph:
    """The network after the rewrite."""
    return Pipeline(parse_spec(spec, REWRITES))(subject.graph)


def start(subject: Subject, graph: Graph) -> tuple[Graph, bool]:
    """What is tuned: the graph, or the same with its layers refitted where that is nearer; and which it is."""
    if subject.classes:
        return graph, False  # labels say more
    anew = refitted(subject, graph)
    errors = [error(to_module(g), subject.choose, False) for g in (graph, anew)]
    return (anew, True) if errors[1] < errors[0] else (graph, False)


def tuned(subject: Subject, graph: Graph, seed: int, rates: Sequence[float]) -> Tuned:
    """One pass at each rate; the module kept is that with the least error on pictures that neither tune nor judge."""
    found = []
    for rate in rates:
        module = to_module(graph)
        tune(module, subject, seed, rate)
        found.append((error(module, subject.choose, subject.classes), rate, module))
    _, rate, module = min(found, key=lambda f: f[0])
    return Tuned(module, rate, {f"{r:g}": e for e, r, _ in found})


@cache
def unchanged(subject: Subject) -> float:
    """The error of the network as it was."""
    return error(to_module(subject.graph), subject.test, subject.classes)


@cache
def rate_of(name: str, rewrite: str) -> float:
    """The rate for a network that is trained here: found on the first seed's, at the second level."""
    subject = subject_of(name, 0)
    option, levels = LEVELS[rewrite]
    best = tuned(subject, rewritten(subject, f"{rewrite}{{{option}={levels[1]}}}"), 0, RATES[True])
    print(name, rewrite, "rate", best.rate, "of", {r: round(e, 4) for r, e in best.errors.items()}, flush=True)
    return best.rate


def measure(subject: Subject, spec: str, seed: int, rates: Sequence[float]) -> common.Row:
    """One rewrite of one network."""
    graph = rewritten(subject, spec)
    note = graph.note(Rewritten)
    assert note is not None
    done = [r for r in note.rows if r.reason is None]
    first, refit = start(subject, graph)
    best = tuned(subject, first, seed, rates)
    costs = [cost(g) for g in (subject.graph, graph)]
    before = error(to_module(graph), subject.test, subject.classes)
    started = error(to_module(first), subject.test, subject.classes) if refit else before
    fitted, after = (error(best.module, data, subject.classes) for data in (subject.train.first(PROBED), subject.test))
    return {
        "layers": len(done), "left": len(note.rows) - len(done),
        "weights_error": float(np.median([r.error for r in done])),
        "macs_share": costs[1].macs / costs[0].macs, "params_share": costs[1].params / costs[0].params,
        "original": unchanged(subject), "before": before, "refit": refit, "started": started, "rate": best.rate,
        "chosen_by": best.errors, "fitted": fitted, "after": after,
    }  # fmt: skip


def cells(name: str) -> Iterator[tuple[str, Any, str]]:
    """Rewrite, level and spec. MobileNetV2's windows are depthwise already: only its 1x1 can be changed."""
    for rewrite, (option, levels) in LEVELS.items():
        for level in levels:
            if name != "mobilenet_v2" or rewrite in ("low_rank", "regroup"):
                yield rewrite, level, f"{rewrite}{{{option}={level}}}"


def draw(rows: list[common.Row]) -> None:
    """A panel a network: error over what remains of the multiply-accumulates, dashed before tuning and solid after."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    from bench.lib.plots import FIXED

    colours = dict(zip(LEVELS, ("#0072b2", "#d55e00", "#009e73", "#cc79a7"), strict=True))
    names = [n for n in NETWORKS if any(r["network"] == n for r in rows)]
    with matplotlib.rc_context(FIXED):
        figure, panels = pyplot.subplots(
            1, len(names), figsize=(4 * len(names), 3.6), squeeze=False, layout="constrained"
        )
        for axes, name in zip(panels[0], names, strict=True):
            for rewrite in LEVELS:
                mine = [r for r in rows if r["network"] == name and r["rewrite"] == rewrite]
                levels = list(dict.fromkeys(r["level"] for r in mine))
                grouped = [[r for r in mine if r["level"] == level] for level in levels]
                x = [float(np.mean([r["macs_share"] for r in g])) for g in grouped]
                order = np.argsort(x)
                for key, style in (("before", ":"), ("after", "-")):
                    y = [float(np.mean([r[key] for r in g])) for g in grouped]
                    axes.plot(
                        [x[i] for i in order], [y[i] for i in order], style, marker="o", markersize=3,
                        color=colours[rewrite], label=rewrite if key == "after" else None,
                    )  # fmt: skip
                for i, g in enumerate(grouped):
                    y_after = float(np.mean([r["after"] for r in g]))
                    axes.annotate(str(levels[i]), (x[i], y_after), (3, 3), textcoords="offset points", fontsize=6)
            original = float(np.mean([r["original"] for r in rows if r["network"] == name]))
            if original > 1e-3:  # logits differ from themselves by nothing
                axes.axhline(original, color="black", linewidth=0.6)
            axes.set_title(name, fontsize=10)
            axes.set_xlabel("multiply-accumulates that remain")
            axes.set_ylabel("wrong answers" if name == "fashion_resnet" else "relative error of the logits")
            axes.set_yscale("log")
            ticks = [t for t in TICKS if axes.get_ylim()[0] <= t <= axes.get_ylim()[1]]
            axes.set_yticks(ticks, [f"{t:g}" for t in ticks])
            axes.minorticks_off()
        marks, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(marks, labels, loc="outside lower center", ncols=len(labels), frameon=False)
        figure.savefig(PICTURE, metadata={"Date": None})
        pyplot.close(figure)


def main() -> int:
    """Measure what has no row yet, print and append; or draw."""
    parser = common.parser(__doc__, "from_trained.jsonl")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="with commas (default all)")
    parser.add_argument("--seeds", type=int, default=3, help="networks trained here (default 3); the others have one")
    parser.add_argument("--constant", action="store_true", help="only what a constant answer is worth, a row a network")
    parser.add_argument("--plot", action="store_true", help="only draw docs/from_trained.svg")
    arguments = parser.parse_args()
    if arguments.plot:
        draw(common.read(arguments.output))
        return 0
    torch.set_num_threads(1)
    if arguments.constant:
        for name in NETWORKS[1:]:
            fitted, after = constant(subject_of(name, 0))
            print(name, f"{fitted:.4f}", f"{after:.4f}")
            blind = {"network": name, "fitted": fitted, "after": after}
            common.append(common.RESULTS / CONSTANT, [blind | common.circumstances(0)])
        return 0
    key = ("network", "rewrite", "level", "of_seed")
    done = {tuple(r[k] for k in key) for r in common.read(arguments.output)}
    for name in arguments.networks.split(","):
        for seed in range(arguments.seeds if name == "fashion_resnet" else 1):
            todo = [c for c in cells(name) if (name, c[0], c[1], seed) not in done]
            subject = subject_of(name, seed) if todo else None
            for rewrite, level, spec in todo:
                assert subject is not None
                row = {"network": name, "rewrite": rewrite, "level": level, "of_seed": seed, "spec": spec}
                rates = (rate_of(name, rewrite),) if subject.classes else RATES[False]
                row |= measure(subject, spec, seed, rates)
                common.append(arguments.output, [row | common.circumstances(seed)])
                print(
                    name,
                    seed,
                    spec,
                    *(f"{row[k]:.4f}" for k in ("weights_error", "macs_share", "before", "started", "fitted", "after")),
                    flush=True,
                )
    columns = ["network", "spec", "of_seed", "layers", "macs_share", "weights_error", "before", "fitted", "after"]
    print(common.table(columns, [[r[c] for c in columns] for r in common.read(arguments.output)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
