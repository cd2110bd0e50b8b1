"""Every criterion next to the others: what stays of the accuracy, without repair, with compensation, with training.

    python -m bench.accuracy.criteria [--seeds 3] [--parts fashion,imagenet,trained] [--workers 2] [--quick]

Five small networks trained on Fashion-MNIST (fashion.py), 25, 50 and 70 % of the multiply-accumulates removed, judged
on the first 5,000 test pictures; one epoch of training at 50 % on two of them, next to the same shapes trained from
nothing, judged on all 10,000; MobileNetV2 and EfficientNet-Lite0 with ImageNet weights, 15, 25 and 50 % removed, judged
on twenty photos (imagenet.py). One sweep of a network serves all criteria. Compensation is `refit` on the small
networks, then `distill` for a hundred steps, and `refit{ridge=10%},reestimate_bn` on the two large ones (crops of ten
photos are little to go by).

Networks are measured by so many processes at once, each on one thread; a row's `cpu_s` is what it cost since the row
before it, loading and the dense network's training included. A run that was stopped goes on where it was: a cell that
is in the output already is not measured again. `--quick` takes two small networks that train for one epoch on 12,000
pictures, and writes to out/criteria-quick.jsonl.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import torch

from bench.accuracy import criteria_cells as measured
from bench.accuracy.criteria_cells import Subject
from bench.data import fashion, imagenet
from bench.lib import common
from bench.nets.criteria_nets import NETS
from secateur.ir.exporters.torch.module import to_module

SHARES = (0.25, 0.5, 0.7)
LARGE_SHARES = (0.15, 0.25, 0.5)
TRAINED = ("residual", "shuffle")  # networks that train after pruning
SHAPES = ("l1", "lasso")  # criteria whose shapes are trained from nothing
TUNED = 0.5  # the share removed where networks train
RATE = 0.05  # the highest learning rate of the epoch after pruning
JUDGED, CROPS = 5000, 64
KEY = ("part", "network", "seed", "criterion", "removed", "repair")


@dataclass(frozen=True)
class Job:
    """Rows that one subject gives: of one part of the plan, one network, one seed, and these shares removed."""

    part: str
    network: str
    seed: int
    shares: tuple[float, ...] = (TUNED,)


@dataclass(frozen=True)
class Setting:
    """How much is measured."""

    networks: tuple[str, ...] = tuple(NETS)
    shares: tuple[float, ...] = SHARES
    large: tuple[str, ...] = tuple(imagenet.NETWORKS)
    large_shares: tuple[float, ...] = LARGE_SHARES
    criteria: tuple[str, ...] = measured.NAMES
    tuned: tuple[str, ...] = TRAINED
    train: int = 60000
    test: int = 10000
    epochs: float = fashion.EPOCHS


QUICK = Setting(("plain", "shuffle"), (0.5,), ("mobilenet_v2",), (0.15,), train=12000, test=2000, epochs=1, tuned=())


def plan(setting: Setting, seeds: int) -> Iterator[Job]:
    """What says most comes first: every network once, training, then further seeds and shares."""
    few, more = setting.large_shares[:1], setting.large_shares[1:]
    yield from (Job("fashion", name, 0, setting.shares) for name in setting.networks)
    yield from (Job("imagenet", name, 0, few) for name in setting.large)
    yield from (Job("trained", name, 0) for name in setting.tuned)
    yield from (Job("imagenet", name, 0, more) for name in setting.large if more)
    further = range(1, seeds)
    yield from (Job("fashion", name, seed, setting.shares) for seed in further for name in setting.networks)
    yield from (Job("trained", name, seed) for seed in further for name in setting.tuned)


class Bench:
    """Measures jobs, and writes rows as soon as they are known."""

    def __init__(self, setting: Setting, output: Path) -> None:
        self.setting, self.output = setting, output
        self.train, self.test = fashion.load("train").first(setting.train), fashion.load("t10k").first(setting.test)
        self.circumstances = common.circumstances(0)
        self.done = {tuple(row[k] for k in KEY) for row in common.read(output)}
        self.spent = 0.0  # CPU seconds of this process that rows state already

    def write(self, job: Job, criterion: str, row: common.Row) -> None:
        """Append a row with its circumstances, and print what it says."""
        key = {"part": job.part, "network": job.network, "seed": job.seed, "criterion": criterion}
        spent = time.process_time()
        whole = key | row | {"cpu_s": spent - self.spent}
        self.spent = spent
        common.append(self.output, [self.circumstances | whole])
        self.done.add(tuple(whole[k] for k in KEY))
        found = row.get("refused") or f"top-1 {row['top1']:.3f}"
        where = f"{job.part:8} {job.network:18} {job.seed} {criterion:12}"
        print(where, f"{row['removed']:.0%} {row['repair']:12} {found}", flush=True)

    def missing(self, job: Job, criterion: str, removed: float, repair: str) -> bool:
        """Is this cell not in the output yet?"""
        return (job.part, job.network, job.seed, criterion, removed, repair) not in self.done

    def run(self, job: Job) -> None:
        """Measure what is missing of a job."""
        {"fashion": self._grid, "imagenet": self._grid, "trained": self._train}[job.part](job)

    def _grid(self, job: Job) -> None:
        cells = [(r, m) for r in job.shares for m in measured.repairs(job.part)]
        names = [n for n in self.setting.criteria if any(self.missing(job, n, *cell) for cell in cells)]
        if names or self.missing(job, "dense", 0.0, "none"):
            subject = self._subject(job, min(JUDGED, self.setting.test))
            self._dense(job, subject)
            for name in names:
                for row in measured.cells(subject, name, job.shares):
                    if self.missing(job, name, row["removed"], row["repair"]):
                        self.write(job, name, row)

    def _train(self, job: Job) -> None:
        epochs = self.setting.epochs
        wanted: list[tuple[str, str, Callable[[Subject, str], common.Row]]] = [
            (name, "one epoch", lambda s, n: measured.tuned(s, n, TUNED, self.train, RATE))
            for name in self.setting.criteria
        ]
        for name in SHAPES:
            wanted += [
                (name, "scratch", lambda s, n: measured.from_scratch(s, n, TUNED, self.train, 1)),
                (name, "scratch long", lambda s, n: measured.from_scratch(s, n, TUNED, self.train, epochs + 1)),
            ]
        wanted = [w for w in wanted if self.missing(job, w[0], TUNED, w[1])]
        if not wanted:
            return
        subject = self._subject(job, self.setting.test)
        self._dense(job, subject)
        for name, repair, measure in wanted:
            start = time.perf_counter()
            row = measure(subject, name)
            self.write(job, name, {"removed": TUNED, "repair": repair, "train_s": time.perf_counter() - start} | row)

    def _subject(self, job: Job, judged: int) -> Subject:
        if job.part == "imagenet":
            return measured.imagenet_subject(job.network, job.seed, CROPS)
        return measured.fashion_subject(job.network, job.seed, self.train, self.test.first(judged), self.setting.epochs)

    def _dense(self, job: Job, subject: Subject) -> None:
        """The row of the dense network, and what the sweep cost."""
        if self.missing(job, "dense", 0.0, "none"):
            found = subject.judge(to_module(subject.graph).eval())
            self.write(job, "dense", {"removed": 0.0, "repair": "none", "sweep_s": subject.seconds} | found)


def work(setting: Setting, output: Path, jobs: SimpleQueue[Job | None]) -> None:
    """What one process does: take the next job until none is left."""
    torch.set_num_threads(1)
    bench = Bench(setting, output)
    for job in iter(jobs.get, None):
        bench.run(job)


def main() -> int:
    """Measure what is missing."""
    parser = common.parser(__doc__, "criteria.jsonl")
    parser.add_argument("--seeds", type=int, default=3, help="networks of each kind (default 3)")
    parser.add_argument("--parts", default="fashion,imagenet,trained", help="of the plan (default all three)")
    parser.add_argument("--workers", type=int, default=2, help="processes, each on one thread (default 2)")
    parser.add_argument("--quick", action="store_true", help="a few cells in five minutes, to see that all runs")
    arguments = parser.parse_args()
    setting, output, seeds = Setting(), arguments.output, arguments.seeds
    if arguments.quick:
        setting, output, seeds = QUICK, common.ROOT / "out" / "criteria-quick.jsonl", 1
    fashion.folder()  # fetched once, before processes start
    context = multiprocessing.get_context("spawn")
    jobs: SimpleQueue[Job | None] = context.SimpleQueue()
    workers = [context.Process(target=work, args=(setting, output, jobs)) for _ in range(arguments.workers)]
    parts = arguments.parts.split(",")
    for job in (*(job for job in plan(setting, seeds) if job.part in parts), *(None for _ in workers)):
        jobs.put(job)
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return int(any(worker.exitcode for worker in workers))


if __name__ == "__main__":
    sys.exit(main())
