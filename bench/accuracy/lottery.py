"""Lottery tickets deconstructed: is it the sign that matters? And what do masks make of networks that never trained?

    python -m bench.accuracy.lottery [--seeds 3] [--quick]
    python -m bench.accuracy.lottery --plot        draws docs/lottery.svg from the committed rows

A network of 196, 128, 64 and 10 units on Fashion-MNIST at 14x14 (the paper's LeNet, made small for two cores) trains
for three passes over 12,000 pictures, is cut in one shot to a tenth of its weights (the last layer at half of that
rate), and trains again from what an action leaves: every mask criterion with rewinding, every action on kept and on
removed weights with `large_final`, four iterative rounds that halve, and at other densities the actions alone. Without
training: masks from weights that were trained elsewhere on the initial ones, supermasks with and without rescaling,
edge-popup. Judged on all 10,000 test pictures; chance is 10 %. A run that was stopped goes on where it was. `--quick`
takes one seed, one pass and 2,000 pictures, and writes to out/lottery-quick.jsonl.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.data import fashion
from bench.data.fashion import Data
from bench.lib import common
from bench.lib.plots import FIXED
from secateur.passes.train import Actions, Hook, Masks, Ticket, attach, edge_popup, rounds, supermask, ticket
from secateur.passes.train.lottery import CRITERIA, ONES, ZEROS, weights

BATCH, RATE = 100, 1.2e-3  # Adam's rate is the paper's for its fully connected network
DENSITY, OTHERS = 0.1, (0.3, 0.03)
MASK_PASSES, MASK_RATE = 6, 0.1  # passes of training a mask alone, by Adam
ROUNDS, HALF = 4, 0.5
MASKS = ("supermask", "rescaled", "constant", "popup")  # trained alone, on weights as they were drawn
LAST = "5.weight"
PICTURE = common.ROOT / "docs" / "lottery.svg"
KEY = ("part", "seed", "criterion", "one", "zero", "density")


@dataclass(frozen=True)
class Job:
    """One row: of a part of the plan, how the network is masked and where it starts."""

    part: str
    seed: int
    criterion: str
    one: str = "rewind"
    zero: str = "zero"
    density: float = DENSITY

    @property
    def key(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in KEY)


def plan(seeds: int) -> Iterator[Job]:
    """What says most comes first: actions, criteria and untrained networks of each seed, then other densities."""
    for seed in range(seeds):
        yield Job("dense", seed, "none", density=1.0)
        yield from (Job("actions", seed, "large_final", one) for one in ONES)
        yield from (Job("actions", seed, "large_final", zero=zero) for zero in ZEROS[1:])
        yield from (Job("criteria", seed, name) for name in CRITERIA if name != "large_final")
        for criterion, one in (("large_final", "rewind"), ("large_final_same_sign", "rewind"), ("random", "rewind"),
                               ("large_final_same_sign", "constant_signed")):  # fmt: skip
            yield Job("untrained", seed, criterion, one, density=0.5)
        yield from (
            Job("untrained", seed, name, density=0.5) for name in ("supermask", "rescaled", "constant", "popup")
        )
        yield Job("rounds", seed, "large_final", density=HALF**ROUNDS)
        yield Job("rounds", seed, "large_final", "reinit", density=HALF**ROUNDS)
    for density in OTHERS:
        yield from (Job("actions", seed, "large_final", one, density=density) for seed in range(seeds) for one in ONES)


def fresh(seed: int) -> nn.Sequential:
    """The network as it is drawn."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(196, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))


def fit(module: nn.Module, data: Data, passes: float, seed: int, *hooks: Hook, of: list[nn.Parameter] | None = None,
        rate: float = RATE) -> None:  # fmt: skip
    """Train by Adam with hooks on its steps; ``of``: these parameters alone."""
    random = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam([p for p in module.parameters() if p.requires_grad] if of is None else of, rate)
    order = torch.cat([torch.randperm(len(data.x), generator=random) for _ in range(int(passes))])
    with attach(optimiser, *hooks):
        for batch in torch.split(order, BATCH):
            optimiser.zero_grad()
            F.cross_entropy(module(data.x[batch]), data.y[batch]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()


class Bench:
    """Measures jobs and writes rows as soon as they are known."""

    def __init__(self, train: Data, test: Data, passes: float, output: Path) -> None:
        self.train, self.test, self.passes, self.output = train, test, passes, output
        self.circumstances = common.circumstances(0)
        self.done = {tuple(row[k] for k in KEY) for row in common.read(output)}
        self.known: dict[int, tuple[dict[str, Tensor], dict[str, Tensor], float]] = {}

    def run(self, job: Job) -> None:
        """Measure it if it is missing."""
        if job.key in self.done:
            return
        start, cpu = time.perf_counter(), time.process_time()
        top1, density = self._measure(job)
        row = dict(zip(KEY, job.key, strict=True)) | {
            "top1": top1, "kept": density, "examples": len(self.train.x), "passes": self.passes,
            "cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - start,
        }  # fmt: skip
        common.append(self.output, [self.circumstances | row])
        self.done.add(job.key)
        print(*job.key, f"{top1:.3f}", f"{row['cpu_s']:.1f} s", flush=True)

    def _measure(self, job: Job) -> tuple[float, float]:
        """(top-1, the share of weights that was kept)."""
        if job.part == "dense":
            return self._dense(job.seed)[2], 1.0
        if job.part == "rounds":
            return self._rounds(job)
        if job.part == "untrained" and job.criterion not in CRITERIA:
            return self._learnt_mask(job)
        made = self._ticket(job)
        module = fresh(job.seed)
        hook = made.put_into(module)
        if job.part != "untrained":
            fit(module, self.train, self.passes, job.seed + 1, hook)
        return fashion.accuracy(module, self.test), made.density

    def _dense(self, seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor], float]:
        """(initial weights, final weights, top-1) of the network that trains whole."""
        if seed not in self.known:
            module = fresh(seed)
            initial = weights(module)
            fit(module, self.train, self.passes, seed)
            self.known = {seed: (initial, weights(module), fashion.accuracy(module, self.test))}
        return self.known[seed]

    def _ticket(self, job: Job) -> Ticket:
        initial, final, _ = self._dense(job.seed)
        random = torch.Generator().manual_seed(job.seed)
        return ticket(initial, final, job.criterion, shares(1 - job.density), Actions(job.one, job.zero), random)

    def _rounds(self, job: Job) -> tuple[float, float]:
        module, count = fresh(job.seed), [0]

        def train(module: nn.Module, hook: Masks | None) -> None:
            fit(module, self.train, self.passes, job.seed + count[0], *([] if hook is None else [hook]))
            count[0] += 1

        made = list(rounds(module, train, ROUNDS, job.criterion, shares(HALF), Actions(job.one, job.zero), job.seed))
        return fashion.accuracy(module, self.test), made[-1].density

    def _learnt_mask(self, job: Job) -> tuple[float, float]:
        """A mask that is trained on weights as they were drawn; supermasks are judged by the mean over ten masks."""
        module = fresh(job.seed)
        made = (
            edge_popup(module, job.density)
            if job.criterion == "popup"
            else supermask(module, rescale=job.criterion != "supermask", constant=job.criterion == "constant")
        )
        fit(module, self.train, self.passes * MASK_PASSES / 3, job.seed, of=list(made.parameters()), rate=MASK_RATE)
        classes = made.average(self.test.x, 1 if job.criterion == "popup" else 10).argmax(1)
        return float((classes == self.test.y).double().mean()), made.density()


def shares(share: float) -> Mapping[str, float]:
    """The share that goes of each layer: of the last one half, as in the paper."""
    return {"1.weight": share, "3.weight": share, LAST: share / 2}


def small(data: Data) -> Data:
    """The pictures at 14x14."""
    return Data(F.avg_pool2d(data.x, 2), data.y)


def draw(rows: Sequence[common.Row]) -> None:
    """Top-1 by what kept weights start from, signs kept or not; bars are standard deviations over seeds."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    def tops(part: str, one: str) -> list[float]:
        return [r["top1"] for r in rows if r["part"] == part and r["one"] == one and r["zero"] == "zero"
                and r["density"] in (DENSITY, 1.0)]  # fmt: skip

    with matplotlib.rc_context(FIXED):
        figure, axes = pyplot.subplots(figsize=(6, 2.8), layout="constrained")
        for row, name in enumerate(("reinit", "reshuffle", "constant")):
            for one, colour, label in (
                (f"{name}_signed", "#0072b2", "signs kept"),
                (name, "#d55e00", "signs drawn anew"),
            ):
                if found := tops("actions", one):
                    axes.errorbar(statistics.mean(found), row, xerr=statistics.pstdev(found), fmt="o", color=colour,
                                  label=label if not row else None)  # fmt: skip
        for part, style, label in (("dense", "-", "dense"), ("actions", "--", "rewound, a tenth kept")):
            if found := tops(part, "rewind"):
                axes.axvline(statistics.mean(found), color="black", linewidth=1, linestyle=style, label=label)
        axes.set_yticks(range(3), ["reinit", "reshuffle", "constant"])
        axes.set_xlabel("top-1, Fashion-MNIST at 14x14")
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        figure.legend(loc="outside lower center", ncols=4, frameon=False)
        figure.savefig(PICTURE, metadata={"Date": None})
        pyplot.close(figure)


def main() -> int:
    """Measure what is missing, or draw what is there."""
    parser = common.parser(__doc__, "lottery.jsonl")
    parser.add_argument("--seeds", type=int, default=3, help="networks (default 3)")
    parser.add_argument("--quick", action="store_true", help="one seed, one pass, 2,000 pictures")
    parser.add_argument("--plot", action="store_true", help="draw, measure nothing")
    arguments = parser.parse_args()
    if arguments.plot:
        draw(common.read(arguments.output))
        return 0
    torch.set_num_threads(1)
    seeds, examples, passes, output = arguments.seeds, 12000, 3.0, arguments.output
    if arguments.quick:
        seeds, examples, passes, output = 1, 2000, 1.0, common.ROOT / "out" / "lottery-quick.jsonl"
    bench = Bench(small(fashion.load("train").first(examples)), small(fashion.load("t10k")), passes, output)
    for job in plan(seeds):
        bench.run(job)
    return 0


if __name__ == "__main__":
    sys.exit(main())
