"""What ``refit`` makes up for, of rewrites that take weights apart in closed form, of a cut, and of both together.

    python -m bench.accuracy.factored [--seeds 3] [--only plain,residual]
    python -m bench.accuracy.factored --summary       the table alone, from the rows there are

Trained networks (fashion.py) rewritten by weights alone, and with ``refit`` after that, on 1,024 pictures of the
training set and no labels; judged on the 10,000 test pictures. Half of the multiply-accumulates is also left by a cut
alone and by one of a network that was rewritten and repaired before. A network that a rewrite does not fit has no row.
A run that was stopped goes on where it was.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
from torch import nn

import secateur
from bench.accuracy.repair import answers
from bench.data import fashion
from bench.lib import common
from bench.nets.criteria_nets import NETS

PICTURES = 1024
REFIT = f"refit{{examples={PICTURES}}}"
REWRITES = (
    "low_rank{ratio=25%}", "low_rank{ratio=50%}", "low_rank{macs=50%}", "low_rank{macs=30%}", "separable{rank=2}",
    "grouped{groups=4}",
)  # fmt: skip
CUT = "obs,knapsack{macs=50%,round_to=1,loss=sum},slim"
POLICIES = (*REWRITES, CUT, *(f"low_rank{{macs={left}}},{REFIT},{CUT}" for left in ("75%", "60%")))
KEY = ("network", "seed", "rewrite", "repaired")


def row(module: nn.Module, policy: str, repaired: bool, pictures: list[torch.Tensor], test: fashion.Data) -> common.Row:
    """Rewrite or cut, repair if that is asked for, and judge. Raises InputError where the rewrite fits no layer."""
    start = time.process_time()
    done = secateur.compile(
        module, f"{policy},{REFIT}" if repaired else policy, example_inputs=(test.x[:1],), calibration=pictures,
        holdout=0, verify=False,
    )  # fmt: skip
    spent, report = time.process_time() - start, done.report
    left = 1.0 if report.after is None else report.after.macs / report.before.macs
    right = [float((answers(m, test) == test.y).double().mean()) for m in (module, done.module().eval())]
    return {"macs_left": left, "cpu_s": round(spent, 1), "dense": right[0], "top1": right[1]}


def table(found: list[common.Row]) -> str:
    """Top-1 without the last repair and with it, means over networks and seeds that have both."""
    cells = {tuple(r[k] for k in KEY): r for r in found}
    lines = [
        "| network | policy | MACs left | dense | without refit | with refit | seeds |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for network in dict.fromkeys(r["network"] for r in found):
        for rewrite in POLICIES:
            seeds = [s for n, s, r, done in cells if (n, r, done) == (network, rewrite, True)]
            both = [(cells[network, s, rewrite, False], cells[network, s, rewrite, True]) for s in sorted(seeds)]
            if not both:
                continue
            means = (
                statistics.mean(pair[side][what] for pair in both)
                for side, what in ((1, "macs_left"), (1, "dense"), (0, "top1"), (1, "top1"))
            )
            shown = " | ".join(f"{100 * x:.0f}%" if i == 0 else f"{100 * x:.2f}" for i, x in enumerate(means))
            lines.append(f"| {network} | {rewrite.replace(REFIT, 'refit')} | {shown} | {len(both)} |")
    return "\n".join(lines)


def main() -> int:
    """Measure what is missing, network by network."""
    options = common.of_networks(__doc__, "factored.jsonl", NETS).parse_args()
    torch.set_num_threads(1)
    train, test = fashion.load("train"), fashion.load("t10k")
    pictures = list(torch.split(train.first(PICTURES).x, 64))
    done = {tuple(r[k] for k in KEY) for r in common.read(options.output)}
    for seed in range(0 if options.summary else options.seeds):
        for name in options.only.split(","):
            module = fashion.trained(name, seed, train, fashion.EPOCHS)
            for rewrite in POLICIES:
                for repaired in (False, True):
                    if (name, seed, rewrite, repaired) in done:
                        continue
                    try:
                        found = row(module, rewrite, repaired, pictures, test)
                    except secateur.InputError as refusal:
                        print(name, rewrite, refusal, flush=True)
                        break
                    asked = {"network": name, "rewrite": rewrite, "repaired": repaired, "pictures": PICTURES}
                    common.append(options.output, [common.circumstances(seed) | asked | found])
                    print(name, seed, rewrite, repaired, f"{found['top1']:.2%} {found['cpu_s']} s", flush=True)
    print(table(common.read(options.output)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
