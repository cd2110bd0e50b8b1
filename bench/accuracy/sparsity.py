"""What patterns of zeros cost: top-1 over the share of zeros, without training and after one masked pass.

    python -m bench.accuracy.sparsity [--seeds 3] [--shares 0.5 0.7 0.8] [--quick]
    python -m bench.accuracy.sparsity --plot        draws docs/sparsity.svg from the committed rows

The residual network of `bench.accuracy.training` on Fashion-MNIST at 14x14, small for two cores: five passes over
6,000 pictures. Then each pattern sets a share of the weights of every layer but the first, which has nine an output,
to zero, by magnitude and by second moments (512 pictures without their labels, and what remains is solved for the
original's outputs), and the network is judged on all 10,000 test pictures: as it is, and after one pass whose masks
hold the zeros (for `budget` also after one whose loss is half that of the labels, half the divergence from the outputs
of the dense network, `distilled`). `budget` is by moments with one budget of zeros for all layers, the same for each
pattern; for `outputs` what layers get wrong counts by how far it moves the network's outputs, and for `work` the budget
is one of multiply-accumulates as well. A row states the share of
zeros that there is, and what is left of the multiply-accumulates of these layers. A run that was stopped goes on where
it was. `--quick`: one seed, 1,500 pictures, to out/sparsity-quick.jsonl.
"""

from __future__ import annotations

import copy
import math
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

import secateur
from bench.accuracy.lottery import small
from bench.data import fashion
from bench.data.fashion import Data
from bench.lib import common
from bench.lib.plots import FIXED
from secateur.ir import Graph, InputError
from secateur.passes.context import Calibration, in_context
from secateur.passes.sparsify import Sparsified, Sparsify
from secateur.passes.train import Masks

NETWORK, PASSES, RATE, TUNED_RATE = "residual", 5, 0.1, 0.05
# auto: balanced blocks of LANES outputs; kernels: of as many outputs and all taps of an input
BLOCKS = ("irregular", "auto", "darb", "bmwm", "4x4", "kernels")
LANES, SHARES, KNOWN, FIRST = 8, (0.5, 0.7, 0.8), 512, "conv2d"
KEY = ("seed", "block", "sparsity", "by")
WAYS: Mapping[str, tuple[str, bool, Literal["layers", "outputs"], Literal["weights", "macs"]]] = {
    "magnitude": ("magnitude", False, "layers", "weights"), "moments": ("moments", False, "layers", "weights"),
    "budget": ("moments", True, "layers", "weights"), "outputs": ("moments", True, "outputs", "weights"),
    "work": ("moments", True, "outputs", "macs"),
}  # options of `sparsify`: by, across, of, count  # fmt: skip
PICTURE = common.ROOT / "docs" / "sparsity.svg"
NAMES = {"irregular": "irregular", "auto": "8x1, balanced", "darb": "DARB", "bmwm": "BMWM", "4x4": "4x4",
         "kernels": "8 kernels, balanced"}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One row: a pattern of zeros in a network."""

    seed: int
    block: str
    sparsity: float
    by: str

    @property
    def key(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in KEY)


def plan(seeds: int, shares: Sequence[float] = SHARES) -> Iterator[Job]:
    """The dense network of each seed, then all patterns."""
    for seed in range(seeds):
        yield Job(seed, "dense", 0.0, "magnitude")
        yield from (Job(seed, block, s, by) for by in WAYS for s in shares for block in BLOCKS)


class Bench:
    """Measures jobs and writes rows as soon as they are known."""

    def __init__(self, train: Data, test: Data, output: Path) -> None:
        self.train, self.test, self.output = train, test, output
        self.circumstances = common.circumstances(0)
        self.done = {tuple(row[k] for k in KEY) for row in common.read(output)}
        self.dense: tuple[int, nn.Module] | None = None

    def run(self, job: Job) -> None:
        """Measure it if it is missing."""
        if job.key in self.done:
            return
        module, cpu = self._dense(job.seed), time.process_time()
        row = {"zeros": 0.0, "top1": fashion.accuracy(module, self.test)} if job.block == "dense" else self._zeros(job)
        row |= {"examples": len(self.train.x), "passes": PASSES, "cpu_s": time.process_time() - cpu}
        common.append(self.output, [self.circumstances | dict(zip(KEY, job.key, strict=True)) | row])
        self.done.add(job.key)
        print(*job.key, {k: v for k, v in row.items() if k in ("zeros", "top1", "epoch")}, flush=True)

    def _dense(self, seed: int) -> nn.Module:
        if self.dense is None or self.dense[0] != seed:
            self.dense = seed, fashion.fit(fashion.fresh(NETWORK, seed), self.train, PASSES, seed, RATE)
        return self.dense[1]

    def _zeros(self, job: Job) -> common.Row:
        module = copy.deepcopy(self._dense(job.seed))
        graph = self._graph(module)
        try:
            by, across, of, count = WAYS[job.by]
            found = Sparsify(job.sparsity, job.block, by, LANES, (FIRST,), across, of, count)(graph)
        except InputError as error:
            return {"refused": str(error)}
        state = {n: torch.from_numpy(np.array(w)) for n, w in found.weights.items() if n in module.state_dict()}
        module.load_state_dict(state, strict=False)
        note = found.note(Sparsified)
        assert note is not None
        masks = {row.weight: module.get_parameter(row.weight).detach() != 0 for row in note.rows}
        zeros = 1 - sum(float(m.sum()) for m in masks.values()) / sum(m.numel() for m in masks.values())
        places = {n.inputs[1]: math.prod(map(int, n.out.shape[2:])) for n in found.nodes if n.op in ("conv", "linear")}
        macs = [places[name] * np.array([float(m.sum()), m.numel()]) for name, m in masks.items()]
        top1 = fashion.accuracy(module, self.test)
        row = {"distilled": self._distilled(job, copy.deepcopy(module), masks)} if job.by == "budget" else {}
        fashion.fit(module, self.train, 1, job.seed + 100, TUNED_RATE, [Masks(module, masks)])
        left, whole = np.sum(macs, axis=0).tolist()
        return {
            "zeros": zeros,
            "macs_left": left / whole,
            "top1": top1,
            "epoch": fashion.accuracy(module, self.test),
        } | row

    def _distilled(self, job: Job, module: nn.Module, masks: Mapping[str, torch.Tensor]) -> float:
        hooks, teacher = [Masks(module, masks)], self._dense(job.seed)
        fashion.fit(module, self.train, 1, job.seed + 100, TUNED_RATE, hooks, teacher)
        return fashion.accuracy(module, self.test)

    def _graph(self, module: nn.Module) -> Graph:
        known = self.train.first(KNOWN)
        graph = secateur.trace(module.eval(), (known.x[:2],))
        name = graph.inputs[0].name
        batches = [{name: x.numpy()} for x in torch.split(known.x, 128)]
        return in_context(graph, calibration=Calibration(batches, 0, KNOWN))


def draw(rows: Sequence[common.Row]) -> None:
    """Top-1 over the share of zeros: without training, by layer and with one budget; after one masked pass; and after
    it where errors count by how far they reach.
    """  # fmt: skip
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    parts = (("moments", "top1"), ("budget", "top1"), ("budget", "epoch"), ("outputs", "epoch"))
    titles = (
        "by moments, no training",
        "one budget, no training",
        "one budget, one masked pass",
        "the same by outputs",
    )
    dense = statistics.mean(r["top1"] for r in rows if r["block"] == "dense")
    with matplotlib.rc_context(FIXED):
        figure, panels = pyplot.subplots(1, 4, figsize=(11.5, 3.4), layout="constrained")
        for axes, (by, field), title in zip(panels, parts, titles, strict=True):
            _panel(axes, [r for r in rows if r["by"] == by and field in r and r["block"] != "dense"], field)
            axes.axhline(dense, color="black", linewidth=1)
            axes.set_title(title, fontsize=10)
            axes.set_xlabel("share of zeros (line: dense)")
        panels[0].sharey(panels[2])
        panels[1].sharey(panels[2])
        panels[3].sharey(panels[2])
        panels[0].set_ylabel("top-1, Fashion-MNIST at 14x14")
        marks, labels = panels[1].get_legend_handles_labels()
        figure.legend(marks, labels, loc="outside lower center", ncols=len(labels), frameon=False)
        figure.savefig(PICTURE, metadata={"Date": None})
        pyplot.close(figure)


def _panel(axes: Any, rows: Sequence[common.Row], field: str) -> None:
    for block, marker in zip(BLOCKS, "os^Dx+", strict=True):
        points = []
        for share in SHARES:
            mine = [r for r in rows if r["block"] == block and r["sparsity"] == share]
            if mine:
                tops = [r[field] for r in mine]
                points.append(
                    (statistics.mean(r["zeros"] for r in mine), statistics.mean(tops), statistics.pstdev(tops))
                )
        if points:
            x, y, deviation = zip(*sorted(points), strict=True)
            axes.errorbar(x, y, yerr=deviation, marker=marker, markersize=4, linewidth=1, label=NAMES[block])
    axes.grid(color="#dddddd", linewidth=0.6)


def main() -> int:
    """Measure what is missing, or draw what is there."""
    parser = common.parser(__doc__, "sparsity.jsonl")
    parser.add_argument("--seeds", type=int, default=3, help="networks (default 3)")
    parser.add_argument("--shares", type=float, nargs="*", default=list(SHARES), help="of zeros")
    parser.add_argument("--blocks", nargs="*", default=list(BLOCKS), choices=BLOCKS, help="patterns")
    parser.add_argument("--quick", action="store_true", help="one seed, 1,500 pictures")
    parser.add_argument("--plot", action="store_true", help="draw, measure nothing")
    arguments = parser.parse_args()
    if arguments.plot:
        draw(common.read(arguments.output))
        return 0
    torch.set_num_threads(1)
    seeds, examples, output = arguments.seeds, 6000, arguments.output
    if arguments.quick:
        seeds, examples, output = 1, 1500, common.ROOT / "out" / "sparsity-quick.jsonl"
    bench = Bench(small(fashion.load("train").first(examples)), small(fashion.load("t10k")), output)
    for job in plan(seeds, arguments.shares):
        if job.block in (*arguments.blocks, "dense"):
            bench.run(job)
    return 0


if __name__ == "__main__":
    sys.exit(main())
