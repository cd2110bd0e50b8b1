"""What repair without labels gives back: the small networks on Fashion-MNIST after a cut, `refit` and `distill`.

    python -m bench.accuracy.repair [--seeds 3] [--only plain,mobile] [--steps 1000] [--pictures 1024]
    python -m bench.accuracy.repair --summary       the table alone, from the rows there are

Five networks (fashion.py), half and 70 % of the multiply-accumulates removed by `obs` and `knapsack{loss=sum}` and by
`group_lasso` and `global`, then mended with so many pictures of the training set (1,024), no labels; what `obs` chose
is tuned as well. Judged on the 10,000 test pictures: how many are right, and how many of the original's answers stayed.
Tuning takes so many steps and no clock, so that rows repeat; `cpu_s` is what it cost on one thread. A run that was
stopped goes on where it was.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

import secateur
from bench.accuracy.criteria_tables import PICTURES, repair_cell
from bench.data import fashion
from bench.lib import common
from bench.nets.criteria_nets import NETS
from secateur.ir import Graph
from secateur.ir.exporters.torch.module import to_module
from secateur.passes import CRITERIA, PASSES, Pipeline, parse_spec
from secateur.passes.context import Calibration, in_context
from secateur.passes.coupling.couple import Couple
from secateur.passes.rewrite.canonicalize import Canonicalize
from secateur.passes.rewrite.slim import Slim
from secateur.passes.sweep.gather import Gather

LEFT = (0.5, 0.3)
CHOICES = {"obs": "knapsack{{macs={left},round_to=1,loss=sum}}", "group_lasso": "global{{macs={left},round_to=1}}"}
TUNED = "obs"  # the choice that goes on to be tuned


def judged(graph: Graph, test: fashion.Data, wanted: Tensor) -> common.Row:
    """Top-1 of the labels, and the share of answers that are the original's."""
    found = answers(to_module(graph).eval(), test)
    return {"top1": float((found == test.y).float().mean()), "agreement": float((found == wanted).float().mean())}


@torch.inference_mode()
def answers(module: nn.Module, test: fashion.Data) -> Tensor:
    """The most likely class of each test picture."""
    return torch.cat([module(part).argmax(1) for part in torch.split(test.x, 500)])


def subject(name: str, seed: int, train: fashion.Data, test: fashion.Data, pictures: int) -> tuple[Graph, Tensor]:
    """A coupled network with the statistics that both criteria need, and its answers."""
    module = fashion.trained(name, seed, train, fashion.EPOCHS)
    graph = Pipeline((Canonicalize(), Couple()))(secateur.trace(module, (test.x[:1],)))
    graph = in_context(graph, calibration=Calibration(list(torch.split(train.first(pictures).x, 64)), seed))
    return Gather(tuple(CRITERIA[c]() for c in CHOICES))(graph), answers(module, test)


def cells(
    graph: Graph,
    wanted: Tensor,
    test: fashion.Data,
    steps: int,
    done: set[tuple[object, ...]],
    key: tuple[int, str, int],
) -> Iterator[common.Row]:
    """Rows of one network (``key``: pictures, name, seed) that are missing: after the cut, ``refit``, ``distill``.

    ``distill`` starts from what ``refit`` left, once with pictures as they are and once with mixtures.
    """
    repairs = (("none", ""), ("refit", f"refit{{examples={key[0]}}}"))
    tunings = (("distill", f"distill{{steps={steps}}}"), ("mixed", f"distill{{steps={steps},mix=true}}"))
    for criterion, allocation in CHOICES.items():
        for left in LEFT:
            tuned = [t for t in tunings if criterion == TUNED and (*key, criterion, left, t[0]) not in done]
            if not tuned and all((*key, criterion, left, repair) in done for repair, _ in repairs):
                continue
            start = time.process_time()
            scored = CRITERIA[criterion]()(graph)
            network = Pipeline((*parse_spec(allocation.format(left=left), PASSES), Slim()))(scored)
            for repair, spec in (*repairs, *tuned):
                mended = Pipeline(parse_spec(spec, PASSES))(network) if spec else network
                spent, start = time.process_time() - start, time.process_time()
                if (*key, criterion, left, repair) not in done:
                    row = {"criterion": criterion, "left": left, "repair": repair, "cpu_s": round(spent, 1)}
                    tuning = (repair, spec) in tuned
                    yield row | ({"steps": steps} if tuning else {}) | judged(mended, test, wanted)
                    start = time.process_time()
                network = mended if (repair, spec) in repairs else network


def summary(rows: Sequence[common.Row]) -> str:
    """The mean over networks and seeds of each choice and repair, and of the dense networks; of the newest rows."""
    newest = {repair_cell(r): r for r in rows}
    lines = []
    for pictures, criterion, left, repair in dict.fromkeys((k[0], *k[3:]) for k in newest):
        of = [r for k, r in newest.items() if (k[0], *k[3:]) == (pictures, criterion, left, repair)]
        means = [f"{statistics.fmean(r[key] for r in of):.1%}" for key in ("top1", "agreement")]
        lines.append([pictures, f"{left:.0%}", criterion, repair, len(of), *means])
    return common.table(["pictures", "MACs left", "chosen by", "repair", "networks", "top-1", "agreement"], lines)


def main() -> int:
    """Measure what is missing, network by network."""
    parser = common.of_networks(__doc__, "repair.jsonl", NETS)
    parser.add_argument("--steps", type=int, default=1000, help="steps of tuning (default 1000)")
    parser.add_argument("--pictures", type=int, default=PICTURES, help=f"of the training set (default {PICTURES})")
    options = parser.parse_args()
    torch.set_num_threads(1)
    done = {repair_cell(r) for r in common.read(options.output)}
    train, test = fashion.load("train"), fashion.load("t10k")
    for seed in range(0 if options.summary else options.seeds):
        for name in options.only.split(","):
            key = (options.pictures, name, seed)
            graph, wanted = subject(name, seed, train, test, options.pictures)
            shared = common.circumstances(seed) | {"network": name, "pictures": options.pictures}
            if (*key, "dense", 1.0, "none") not in done:
                top1 = float((wanted == test.y).float().mean())
                dense = {"criterion": "dense", "left": 1.0, "repair": "none", "top1": top1, "agreement": 1.0}
                common.append(options.output, [shared | dense])
            for row in cells(graph, wanted, test, options.steps, done, key):
                common.append(options.output, [shared | row])
                print(f"{name:10} {seed} {row['criterion']:12} {row['left']:.0%} {row['repair']:8} {row['top1']:.2%} "
                      f"{row['cpu_s']} s", flush=True)  # fmt: skip
    print(summary(common.read(options.output)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
