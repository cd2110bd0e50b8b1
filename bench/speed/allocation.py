"""What a budget of time buys: widths by what layers take, by multiply-accumulates, and alike everywhere.

    python -m bench.speed.allocation [--networks mobilenet_v2,fashion_resnet] [--speedups 1.43,2]

A network is cut to be so many times as fast on this machine and one thread (2: half of the original's time, 1.43: 70 %)
by l1 scores, and refitted on unlabelled pictures. Each method meets the same measured budget, and is timed again beside
the original. ``agreement`` is the share of pictures to judge by that the slim network answers as the original does, and
``error`` the relative error of its logits there. Pictures: Fashion-MNIST, and photos.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator

import torch

from bench.data.trained_subjects import Subject, refitted, subject_of
from bench.lib import common
from secateur.ir import BudgetError, Graph
from secateur.ir.exporters.torch.module import to_module
from secateur.passes import Pipeline
from secateur.passes.allocate import Allocation, Amount, Knapsack, Timed, Uniform
from secateur.passes.allocate.amount import Allocator
from secateur.passes.allocate.timed import at_share
from secateur.passes.analysis.cost import cost
from secateur.passes.context import LatencyModel, in_context
from secateur.passes.coupling.couple import Couple
from secateur.passes.rewrite.canonicalize import Canonicalize
from secateur.passes.rewrite.slim import Slim
from secateur.passes.score import L1
from secateur.timing.never_slower import latency_model

LANES = 8
METHODS: dict[str, tuple[Allocator, bool]] = {  # the allocation, and whether layers' times are what counts
    "uniform": (Uniform(), False),
    "knapsack by MACs": (Knapsack(), False),
    "knapsack by time": (Knapsack(), True),
}


def cut(graph: Graph, method: str, speedup: float, latency: LatencyModel) -> Graph:
    """The slim network that meets the budget as measured."""
    step, by_time = METHODS[method]
    timed = Timed(Amount("speedup", speedup), functools.partial(at_share, step), by_time)
    start = in_context(graph, latency=latency, lanes=LANES)
    return Pipeline((Canonicalize(), Couple(), L1(), timed, Slim()))(start)


def judged(subject: Subject, graph: Graph) -> tuple[float, float]:
    """(agreement with the original, relative error of the logits) on the pictures to judge by."""
    with torch.inference_mode():
        one, other = (
            torch.cat([module(x) for x in torch.split(subject.test.x[:2000], 1 if not subject.classes else 100)])
            for module in map(to_module, (subject.graph, graph))
        )
    return float((one.argmax(1) == other.argmax(1)).float().mean()), float((one - other).norm() / one.norm())


def rows(name: str, speedups: list[float], seed: int) -> Iterator[common.Row]:
    """A row for each method and budget."""
    subject = subject_of(name, seed)
    latency = latency_model(seed)
    for speedup in speedups:
        for method in METHODS:
            row: common.Row = {**common.circumstances(seed), "network": name, "speedup": speedup, "method": method}
            try:
                slim = cut(subject.graph, method, speedup, latency)
            except BudgetError as refusal:
                yield {**row, "refused": str(refusal)}
                continue
            fitted = refitted(subject, slim)
            agreement, error = judged(subject, fitted)
            before, after = latency(subject.graph, fitted)
            done = slim.note(Allocation)
            yield {
                **row, "before_ms": before, "after_ms": after, "reached": done.reached if done else None,
                "macs": cost(slim).macs / cost(subject.graph).macs, "agreement": agreement, "error": error,
            }  # fmt: skip


def text(found: list[common.Row]) -> str:
    """The newest row of each network, budget and method."""
    newest = {(row["network"], row["speedup"], row["method"]): row for row in found if "refused" not in row}
    head = ("network", "asked", "method", "measured", "MACs", "agreement", "error")
    return common.table(
        head,
        [
            (name, f"{speedup:g}", method, f"{row['before_ms'] / row['after_ms']:.2f}", f"{row['macs']:.2f}",
             f"{row['agreement']:.3f}", f"{row['error']:.3f}")
            for (name, speedup, method), row in sorted(newest.items())
        ],
    )  # fmt: skip


def main() -> int:
    """Measure, append rows, print the table."""
    parser = common.parser(__doc__, "allocation.jsonl")
    parser.add_argument("--networks", default="fashion_resnet,mobilenet_v2", help="which, with commas")
    parser.add_argument("--speedups", default="1.43,2", help="budgets, with commas")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.networks.split(","):
        for row in rows(name, [float(s) for s in options.speedups.split(",")], options.seed):
            common.append(options.output, [row])
            print({k: row.get(k) for k in ("network", "speedup", "method", "reached", "agreement")}, flush=True)
    print(text(common.read(options.output)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
