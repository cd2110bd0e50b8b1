"""How long the knapsack allocation of whole networks takes, and its solver alone.

    python -m bench.speed.knapsack [--networks ref/resnet50,tv/mobilenet_v2] [--share 0.5]

L1 scores, 16 widths a group; *gap*: what may be left to the least loss when the solver ended, after 10 s at most.
"""

from __future__ import annotations

import sys
import time
from unittest import mock

from bench.lib import common
from bench.nets import networks
from secateur.passes import Pipeline
from secateur.passes.allocate import Knapsack, knapsack
from secateur.passes.allocate.solver import choice
from secateur.passes.allocate.solver.problem import Problem
from secateur.passes.coupling.couple import Couple
from secateur.passes.rewrite.canonicalize import Canonicalize
from secateur.passes.score.l1 import L1


def measure(name: str, share: float, seed: int) -> common.Row:
    """Seconds of the pass and of its solver, and what the answer loses."""
    scored = Pipeline((Canonicalize(), Couple(), L1()))(networks.capture(name, seed).graph)
    row: common.Row = {"network": name, "share": share}

    def timed(problem: Problem, gap: float) -> choice.Answer:
        start = time.perf_counter()
        found = choice.answer(problem, gap)
        row.update(solve_s=time.perf_counter() - start, groups=len(problem.loss), loss=problem.loss_of(found.chosen))
        row["gap"] = found.gap
        return found

    start = time.perf_counter()
    with mock.patch.object(knapsack, "answer", timed):
        Knapsack(macs=share)(scored)
    return row | {"pass_s": time.perf_counter() - start}


def main() -> int:
    """Measure each network, print and append."""
    parser = common.parser(__doc__, "knapsack.jsonl")
    parser.add_argument("--networks", default="ref/resnet50,tv/mobilenet_v2", help="names as in networks.py")
    parser.add_argument("--share", type=float, default=0.5, help="multiply-accumulates that remain")
    arguments = parser.parse_args()
    rows = [measure(name, arguments.share, arguments.seed) for name in arguments.networks.split(",")]
    columns = ["network", "groups", "solve_s", "pass_s", "loss", "gap"]
    print(common.table(columns, [[r[c] for c in columns] for r in rows]))
    common.append(arguments.output, [r | common.circumstances(arguments.seed) for r in rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
