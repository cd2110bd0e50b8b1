"""Solvers of the multiple-choice knapsack.

``answer`` is the one that allocation uses. Networks where so many layers read each other that elimination has no small
tables go on to ``programme``, which solves the same problem with HiGHS.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from secateur.ir import BudgetError

from .branch import Search
from .elimination import buckets
from .problem import Problem


@dataclass(frozen=True)
class Answer:
    """The option of each group, and by which share of its loss a better choice may lose less (0: none can)."""

    chosen: list[int]
    gap: float


def answer(problem: Problem, gap: float = 1e-4, seconds: float = 10.0) -> Answer:
    """A choice within ``gap`` (relative) of the least loss, or the best that ``seconds`` allow, with the gap left.

    Raises BudgetError where no choice fits.
    """
    turns = buckets([len(v) for v in problem.loss], problem.pairs)
    if turns is None:
        return programme(problem, gap, seconds)
    search = Search(problem, turns, gap, seconds)
    return Answer(search.run(), search.left)


def programme(problem: Problem, gap: float, seconds: float) -> Answer:
    """``answer`` by mixed integer programming (HiGHS).

    Pairs enter as transport plans between the two groups' options, which makes their cost linear and exact. Raises
    BudgetError where no choice fits.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import coo_array

    sizes = [len(v) for v in problem.loss]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    whole = int(starts[-1])
    scale = max(float(problem.budget), 1e-12)
    top = max((float(np.abs(v).max()) for v in problem.loss if len(v)), default=1.0) or 1.0
    objective = [np.concatenate([np.asarray(v, float) / top for v in problem.loss])]
    price = [np.concatenate([np.asarray(c, float) / scale for c in problem.cost])]
    rows: list[int] = []
    columns: list[int] = []
    values: list[float] = []
    equal: list[float] = []
    for g, size in enumerate(sizes):
        rows += [len(equal)] * size
        columns += range(starts[g], starts[g] + size)
        values += [1.0] * size
        equal.append(1.0)
    at = whole
    for (a, b), matrix in problem.pairs.items():
        high, wide = matrix.shape
        plan = at + np.arange(high * wide).reshape(high, wide)
        for group, lines in ((a, plan), (b, plan.T)):
            for k, line in enumerate(lines):
                rows += [len(equal)] * (len(line) + 1)
                columns += [*line.tolist(), int(starts[group]) + k]
                values += [1.0] * len(line) + [-1.0]
                equal.append(0.0)
        objective.append(np.zeros(high * wide))
        price.append(np.asarray(matrix, float).reshape(-1) / scale)
        at += high * wide
    link = coo_array((values, (rows, columns)), shape=(len(equal), at))
    budget = np.concatenate(price)
    found = milp(
        np.concatenate(objective),
        constraints=[
            LinearConstraint(link.tocsr(), np.array(equal), np.array(equal)),
            LinearConstraint(budget[None, :], -np.inf, problem.budget / scale),
        ],
        integrality=np.concatenate([np.ones(whole), np.zeros(at - whole)]),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": gap, "time_limit": seconds},
    )  # fmt: skip
    if found.x is None:
        raise BudgetError(f"no choice of widths costs at most {problem.budget:,.0f}")
    chosen = [int(np.argmax(found.x[s : s + n])) for s, n in zip(starts, sizes, strict=False)]
    left = getattr(found, "mip_gap", None)
    return Answer(chosen, max(0.0, float(left)) if left is not None else 0.0)
