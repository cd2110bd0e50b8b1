"""What a budget of time buys: widths by what layers take, by multiply-accumulates, and alike everywhere.

    python -m bench.speed.allocation [--networks mobilenet_v2,fashion/mobile] [--speedups 1.43,2] [--minutes 24]
        [--methods "uniform,knapsack by time"]

A network is cut to be so many times as fast on this machine and one thread (2: half of the original's time, 1.43: 70 %)
by OBS scores of unlabelled pictures (``of=outputs``), whose sums compare layers, and refitted on them; by time the
networks of several searches are refitted on three quarters of them and run on the last, each quarter in turn, which
says which is taken. Networks of small pictures run in batches of 32, or calls would be all that they take. Each method
meets the same measured budget, and is timed again next to the original (``again`` times as fast, known to ``off`` up
and down). ``agreement`` is the share of judged pictures that the slim network answers as the original does, ``error``
the relative error of its logits there, ``lost`` what the allocation went by. Pictures: Fashion-MNIST, and crops of
GCompris's photos, of which the last ones, that no scores were taken on, judge together with foolbox's twenty.
Networks of networks.py (``ref/resnet50``) have random weights and L1 scores, and say something of times alone. Rows
that this commit has already are not made again, and none is begun after ``--minutes``: the same command goes on from
there. On a quiet machine a network of small pictures takes five to ten minutes, one of large pictures half an hour.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from bench.data import gcompris, imagenet
from bench.data.fashion import Data
from bench.data.trained_subjects import Subject, subject_of
from bench.lib import common
from bench.nets import networks
from secateur.deploy import at_batch
from secateur.ir import Array, BudgetError, Graph
from secateur.ir.exporters.torch.module import to_module
from secateur.ir.frontends.torch.trace import trace
from secateur.passes import Pipeline
from secateur.passes.allocate import Allocation, Amount, Knapsack, Timed, Uniform
from secateur.passes.allocate.amount import Allocator
from secateur.passes.allocate.side_by_side import SideBySide
from secateur.passes.allocate.timed import at_share, by_time
from secateur.passes.analysis.cost import cost
from secateur.passes.compensate.refit import Refit
from secateur.passes.context import Calibration, LatencyModel, context_of, in_context
from secateur.passes.coupling.couple import Couple
from secateur.passes.rewrite.canonicalize import Canonicalize
from secateur.passes.rewrite.slim import Slim
from secateur.passes.score import L1
from secateur.passes.score.obs import OBS
from secateur.passes.sweep.gather import Gather
from secateur.timing.never_slower import latency_model

LANES = 8
SUM = Knapsack(loss="sum")
METHODS: dict[str, tuple[Allocator, bool]] = {  # the allocation, and whether layers' times are what counts
    "uniform": (Uniform(), False),
    "knapsack by MACs": (SUM, False),
    "knapsack by time": (SUM, True),
}
SHOWN = ("network", "speedup", "method", "again", "agreement", "error", "lost", "seconds")
TOGETHER, SMALL = 32, 64  # pictures in a batch, where they have fewer than so many rows
NETWORKS = (
    "fashion/mobile", "fashion/residual", "fashion/resnext", "mobilenet_v2", "ref/resnet50", "ref/resnext50_32x4d"
)  # fmt: skip
SCORED, PHOTOS = 1024, 192  # pictures of Fashion-MNIST, and photos, to score and to repair by
CROPS, JUDGED = 3, 4  # of each photo to score and to repair by, and of each of those that judge
FEW = Refit(ridge="auto", residual=True)  # what repairs best from crops of few photos (accuracy/pretrained)


class Batched:
    """A latency model that runs networks in batches where their pictures are small."""

    def __init__(self, inner: LatencyModel) -> None:
        self.inner = inner
        self.kept: list[tuple[Graph, Graph]] = []  # the original and the last network, which are asked for again

    def __call__(self, *graphs: Graph) -> Sequence[float]:
        return self.inner(*map(self.whole, graphs))

    def layers(self, graph: Graph) -> Mapping[str, float]:
        return self.inner.layers(self.whole(graph))

    def whole(self, graph: Graph) -> Graph:
        """The graph at the batch that is measured."""
        if int(graph.inputs[0].shape[-1]) >= SMALL:
            return graph
        for one, found in self.kept:
            if graph.nodes is one.nodes:
                return found
        self.kept[1:] = [(graph, at_batch(graph, TOGETHER))]
        return self.kept[-1][1]


def scored(graph: Graph, latency: LatencyModel, pictures: Array | None) -> Graph:
    """The graph with scores, once for all methods; l1's where there are no pictures."""
    start = in_context(graph, latency=latency, lanes=LANES)
    if pictures is None:
        return Pipeline((Canonicalize(), Couple(), L1()))(start)
    start = in_context(start, calibration=Calibration([{graph.inputs[0].name: pictures}], 0, len(pictures)))
    criterion = OBS(of="outputs")
    return Pipeline((Canonicalize(), Couple(), Gather((criterion,)), criterion))(start)


def cut(graph: Graph, method: str, speedup: float, mended: Mended) -> Graph:
    """The allocated network, which meets the budget as measured; by time as a policy allocates."""
    step, timed = METHODS[method]
    budget = Amount("speedup", speedup)
    if timed and isinstance(step, Knapsack):
        return by_time(step, budget, (mended,))(graph)
    return Timed(budget, functools.partial(at_share, step), floor=getattr(step, "floor", 0.0))(graph)


def of_photos(name: str, seed: int) -> Subject:
    """A network with ImageNet weights: crops of photos to score by, and crops of other photos to judge by.

    Photos come by turns, so that whoever holds out every fourth picture holds out all crops of a photo.
    """
    network, found = imagenet.NETWORKS[name], gcompris.photos(seed=seed)
    few, rest = found[:PHOTOS], found[PHOTOS:]
    train = network.preparation(imagenet.crops(CROPS * PHOTOS, seed, few))
    test = network.preparation(torch.cat([imagenet.crops(JUDGED * len(rest), seed, rest), imagenet.judged()[0]]))
    graph = trace(network.make(), (train[:1],))
    none = torch.zeros(0)
    return Subject(graph, Data(train, none), Data(none, none), Data(test, none), False)


@dataclass(frozen=True)
class Mended:
    """Each layer solved for the original's outputs; linear ones where there are more pictures than columns.

    ``few``: there are crops of few photos.
    """

    name: ClassVar[str] = "mended"
    few: bool

    def __call__(self, graph: Graph) -> Graph:
        calibration = context_of(graph).calibration
        pictures = (calibration and calibration.examples) or 0
        after = dataclasses.replace(FEW if self.few else Refit(), examples=pictures)(graph)
        wide = [n for n in graph.nodes if n.op == "linear" and pictures < 2 * graph.value(n.inputs[0] or "").shape[-1]]
        kept = {name for node in wide for name in node.inputs[1:] if name is not None}
        return after.rewrite(weights={n: graph.weights[n] if n in kept else w for n, w in after.weights.items()})


def judged(subject: Subject, graph: Graph) -> tuple[float, float]:
    """(agreement with the original, relative error of the logits) on the pictures to judge by."""
    pictures = subject.test.x
    with torch.inference_mode():
        one, other = (
            torch.cat([module(x) for x in torch.split(pictures, 1 if not subject.classes else 100)])
            for module in map(to_module, (subject.graph, graph))
        )
    return float((one.argmax(1) == other.argmax(1)).float().mean()), float((one - other).norm() / one.norm())


Key = tuple[str, str, str, float, str]  # of a row: commit, network, runtime, speedup, method


def key(row: common.Row) -> Key:
    """What a row is the only one of."""
    return row["git"], row["network"], row["runtime"], row["speedup"], row["method"]


def rows(
    name: str, speedups: list[float], methods: list[str], runtime: str, seed: int, known: set[Key], end: float
) -> Iterator[common.Row]:
    """A row for each method and budget that is not known yet, while the clock is before ``end``."""
    around = {**common.circumstances(seed), "network": name, "runtime": runtime}
    todo = [
        row for speedup in speedups for method in methods
        if key(row := {**around, "speedup": speedup, "method": method}) not in known
    ]  # fmt: skip
    if not todo:
        return
    subject = None if name.startswith("ref/") else (of_photos if name in imagenet.NETWORKS else subject_of)(name, seed)
    graph = networks.capture(name, seed).graph if subject is None else subject.graph
    latency = Batched(latency_model(seed, runtime))
    many = SCORED if subject is not None and subject.classes else CROPS * PHOTOS
    pictures = None if subject is None else np.ascontiguousarray(subject.train.x[:many].numpy())
    start, mended = scored(graph, latency, pictures), Mended(subject is not None and not subject.classes)
    for row in todo:
        if time.monotonic() > end:
            print(f"{name}: {row['method']} at {row['speedup']:g} is left for the next time", flush=True)
            continue
        began = time.monotonic()
        try:
            allocated = cut(start, row["method"], row["speedup"], mended)
            slim = Slim()(allocated)
        except BudgetError as refusal:
            yield {**row, "refused": str(refusal)}
            continue
        fitted = slim if subject is None else mended(slim)
        agreement, error = (None, None) if subject is None else judged(subject, fitted)
        again = SideBySide(graph, latency, Amount("speedup", row["speedup"]))(fitted)
        done = slim.note(Allocation)
        yield {
            **row, "before_ms": again.whole, "after_ms": again.took, "again": 1 / again.ratio, "off": again.off,
            "seconds": time.monotonic() - began, "reached": done.reached if done else None,
            "measured": len(done.tried) if done else 0, "repaired": repaired(done),
            "lost": SUM.lost(allocated), "load": os.getloadavg()[0],
            "macs": cost(slim).macs / cost(graph).macs, "agreement": agreement, "error": error,
            "pictures": None if subject is None else [many, len(subject.test.x)],
        }  # fmt: skip


def repaired(done: Allocation | None) -> str | None:
    """What the report says of the networks that were repaired to choose among them."""
    return next((remark for remark in (done.remarks if done else ()) if remark.startswith("repaired")), None)


def text(found: list[common.Row]) -> str:
    """The newest row of each network, runtime, budget and method."""
    newest = {key(row)[1:]: row for row in found if "refused" not in row}
    head = ("network", "runtime", "asked", "method", "reached", "again", "MACs", "agreement", "error")
    return common.table(
        head,
        [
            (name, runtime, f"{speedup:g}", method, f"{row['reached']:.2f}",
             f"{again(row):.2f}", f"{row['macs']:.2f}", _shown(row["agreement"]),
             _shown(row["error"]))
            for (name, runtime, speedup, method), row in sorted(newest.items())
        ],
    )  # fmt: skip


def again(row: common.Row) -> float:
    """How many times as fast as the original it was, measured once more; rows before ``again`` have times alone."""
    return float(row.get("again") or row["before_ms"] / row["after_ms"])


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def main() -> int:
    """Measure, append rows, print the table."""
    parser = common.parser(__doc__, "allocation.jsonl")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="which, with commas")
    parser.add_argument("--speedups", default="1.43,2", help="budgets, with commas")
    parser.add_argument("--runtime", default="onnxruntime", help="where time is measured; secateur takes longer")
    parser.add_argument("--methods", default=",".join(METHODS), help="how widths are chosen, with commas")
    parser.add_argument("--minutes", type=float, default=24.0, help="no row is begun after so many")
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    torch.set_num_threads(1)
    known = {key(row) for row in common.read(options.output)}
    for name in options.networks.split(","):
        speedups = [float(s) for s in options.speedups.split(",")]
        methods = options.methods.split(",")
        for row in rows(name, speedups, methods, options.runtime, options.seed, known, end):
            common.append(options.output, [row])
            print({k: row.get(k) for k in SHOWN}, flush=True)
    print(text(common.read(options.output)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
