"""What several rounds are worth: score, allocate, cut and repair, and score again, next to all at once.

    python -m bench.accuracy.rounds [--seeds 3] [--only plain,mobile] [--policies obs,taylor]
    python -m bench.accuracy.rounds --summary       the table alone, from the rows there are

Five networks (fashion.py), half of the multiply-accumulates left after one, two and four rounds (``rounds=``), with
``refit`` between them and in the end, 256 pictures of the training set and no labels; judged on the 10,000 test
pictures. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import sys
import time

import torch
from torch import nn

import secateur
from bench.accuracy import rounds_tables
from bench.accuracy.repair import answers
from bench.data import fashion
from bench.lib import common
from bench.nets.criteria_nets import NETS

PICTURES, LEFT, ROUNDS = 256, 0.5, (1, 2, 4)
POLICIES = {
    "obs": "obs,knapsack{{loss=sum,rounds={rounds}}},slim,refit",
    "taylor": "taylor,global{{rounds={rounds}}},slim,refit",
    "group_lasso": "group_lasso,global{{rounds={rounds}}},slim,refit",
}


def row(module: nn.Module, policy: str, rounds: int, pictures: list[torch.Tensor], test: fashion.Data) -> common.Row:
    """Prune in so many rounds and judge what is left."""
    start = time.process_time()
    slim = secateur.compile(
        module, POLICIES[policy].format(rounds=rounds), example_inputs=(test.x[:1],), calibration=pictures, holdout=0,
        macs=LEFT, round_to=1, verify=False,
    )  # fmt: skip
    spent, report = time.process_time() - start, slim.report
    assert report.after is not None
    before, after = answers(module, test), answers(slim.module().eval(), test)
    return {
        "macs_left": report.after.macs / report.before.macs, "cpu_s": round(spent, 1),
        "top1": float((after == test.y).double().mean()), "agreement": float((before == after).double().mean()),
    }  # fmt: skip


def main() -> int:
    """Measure what is missing, network by network."""
    parser = common.of_networks(__doc__, "rounds.jsonl", NETS)
    parser.add_argument("--policies", default=",".join(POLICIES), help="of the table (default all)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    train, test = fashion.load("train"), fashion.load("t10k")
    pictures = list(torch.split(train.first(PICTURES).x, 64))
    done = {tuple(r[k] for k in rounds_tables.KEY) for r in common.read(options.output)}
    for seed in range(0 if options.summary else options.seeds):
        for name in options.only.split(","):
            module = fashion.trained(name, seed, train, fashion.EPOCHS)
            for policy in options.policies.split(","):
                for rounds in ROUNDS:
                    if (name, seed, policy, rounds) not in done:
                        asked = {"network": name, "policy": policy, "rounds": rounds, "pictures": PICTURES}
                        found = row(module, policy, rounds, pictures, test)
                        common.append(options.output, [common.circumstances(seed) | asked | found])
                        print(name, seed, policy, rounds, f"{found['top1']:.2%} {found['cpu_s']} s", flush=True)
    print(rounds_tables.rounds(common.where, options.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
