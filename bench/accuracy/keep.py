"""What `--keep 99%` keeps of pictures that it never saw: the small networks on Fashion-MNIST, policy by policy.

    python -m bench.accuracy.keep [--seeds 3] [--only plain,mobile] [--policies l1,obs] [--quick]
    python -m bench.accuracy.keep --summary         the table alone, from the rows there are

The smallest network that keeps 99 % of the answers on held-out calibration data (4,096 pictures of the training set
without labels, of which `compile` holds out a quarter) is judged on the 10,000 test pictures, which the search never
saw. A row has the share of the multiply-accumulates left, the share of answers kept on the held-out pictures (`seen`)
and on the test pictures (`kept`), and CPU seconds of the whole search on one thread. A run that was stopped goes on
where it was; `--quick` takes one network that trains for one epoch on 12,000 pictures, and writes to
out/keep-quick.jsonl.
"""

from __future__ import annotations

import sys
import time

import torch
from torch import nn

import secateur
from bench.accuracy import keep_tables
from bench.accuracy.repair import answers
from bench.data import fashion
from bench.lib import common
from bench.nets.criteria_nets import NETS

PICTURES, GOAL = 4096, 0.99
POLICIES = {"l1": "l1,slim,refit", "obs": "obs,knapsack{loss=sum},slim,refit"}
KEY = ("network", "seed", "policy")


def row(module: nn.Module, policy: str, train: fashion.Data, test: fashion.Data, seed: int) -> common.Row:
    """Search with one policy and judge what it gives back; where there is no such network, why."""
    pictures = list(torch.split(train.first(PICTURES).x, 64))
    start = time.process_time()
    try:
        slim = secateur.compile(
            module, POLICIES[policy], example_inputs=(test.x[:1],), calibration=pictures, keep=GOAL, round_to=1,
            seed=seed,
        )  # fmt: skip
    except secateur.BudgetError as error:
        return {"refused": str(error), "cpu_s": round(time.process_time() - start, 1)}
    spent, report = time.process_time() - start, slim.report
    assert report.quality is not None
    assert report.after is not None
    before, after = answers(module, test), answers(slim.module().eval(), test)
    return {
        "macs_left": report.after.macs / report.before.macs,
        "seen": report.quality.agreement, "held_out": report.quality.examples,
        "kept": float((before == after).double().mean()),
        "top1": [float((found == test.y).double().mean()) for found in (before, after)],
        "search": report.remarks[-1], "cpu_s": round(spent, 1),
    }  # fmt: skip


def main() -> int:
    """Measure what is missing, network by network."""
    parser = common.of_networks(__doc__, "keep.jsonl", NETS)
    parser.add_argument("--policies", default=",".join(POLICIES), help="of the table (default all)")
    parser.add_argument("--quick", action="store_true", help="one network of little training, to see that all runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    output, seeds, names, epochs = options.output, options.seeds, options.only.split(","), float(fashion.EPOCHS)
    train, test = fashion.load("train"), fashion.load("t10k")
    if options.quick:
        output, seeds, names, epochs = common.ROOT / "out" / "keep-quick.jsonl", 1, ["plain"], 1.0
        train, test = train.first(12000), test.first(2000)
    done = {tuple(r[k] for k in KEY) for r in common.read(output)}
    for seed in range(0 if options.summary else seeds):
        for name in names:
            for policy in options.policies.split(","):
                if (name, seed, policy) in done:
                    continue
                module = fashion.trained(name, seed, train, epochs)
                asked = {
                    "network": name,
                    "policy": policy,
                    "spec": POLICIES[policy],
                    "pictures": PICTURES,
                    "goal": GOAL,
                }
                found = common.circumstances(seed) | asked | row(module, policy, train, test, seed)
                common.append(output, [found])
                said = found.get("refused") or f"{found['macs_left']:.0%} left, {found['kept']:.2%} kept"
                print(f"{name:10} {seed} {policy:12} {said}, {found['cpu_s']} s", flush=True)
    print(keep_tables.keep(common.where, output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
