"""Solvers of the multiple-choice knapsack.

``solve`` is the one that allocation uses; ``programme`` hands the same problem to HiGHS, for networks where so many
layers read each other that elimination has no small tables. ``dynamic`` and ``greedy`` solve the problem without pairs
in other ways and serve as checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from secateur.ir import Array, BudgetError

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
        return _programme(problem, gap, seconds)
    search = Search(problem, turns, gap, seconds)
    return Answer(search.run(), search.left)


def solve(problem: Problem, gap: float = 1e-4, seconds: float = 10.0) -> list[int]:
    """``answer`` without the gap."""
    return answer(problem, gap, seconds).chosen


def programme(problem: Problem, gap: float = 1e-4, seconds: float = 10.0) -> list[int]:
    """The option of each group, within ``gap`` of the least loss, by mixed integer programming (HiGHS)."""
    return _programme(problem, gap, seconds).chosen


def _programme(problem: Problem, gap: float, seconds: float) -> Answer:
    """``answer`` by HiGHS.

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


def dynamic(loss: Sequence[Array], cost: Sequence[Array], budget: int) -> list[int]:
    """The exact choice for whole costs, by dynamic programming: O(options * budget) time and memory.

    Raises BudgetError where no choice fits.
    """
    best = np.full(budget + 1, np.inf)
    best[0] = 0.0
    taken: list[Array] = []
    for values, prices in zip(loss, cost, strict=True):
        following, choice = np.full(budget + 1, np.inf), np.full(budget + 1, -1)
        for k, (value, price) in enumerate(zip(values, prices, strict=True)):
            price = int(price)
            if price > budget:
                continue
            with_k = np.full(budget + 1, np.inf)
            with_k[price:] = best[: budget + 1 - price] + value
            better = with_k < following
            following, choice = np.where(better, with_k, following), np.where(better, k, choice)
        best = following
        taken.append(choice)
    if not np.isfinite(best).any():
        raise BudgetError(f"no choice of widths costs at most {budget:,}")
    at, chosen = int(np.argmin(best)), []
    for choice, prices in zip(reversed(taken), reversed(cost), strict=True):
        chosen.append(int(choice[at]))
        at -= int(prices[chosen[-1]])
    return chosen[::-1]


def greedy(loss: Sequence[Array], cost: Sequence[Array], budget: float) -> tuple[list[int], float]:
    """(a choice that fits, a lower bound of the loss): steps down the convex hull of each group, cheapest loss first.

    All but the last step are those of the linear relaxation, so the loss is at most one step above the least. Raises
    BudgetError where no choice fits.
    """
    hulls = [_hull(v, c) for v, c in zip(loss, cost, strict=True)]
    at = [0] * len(hulls)
    spent = sum(float(c[h[0]]) for c, h in zip(cost, hulls, strict=True))
    lost = bound = sum(float(v[h[0]]) for v, h in zip(loss, hulls, strict=True))
    steps = sorted(
        (float(v[b] - v[a]) / float(c[a] - c[b]), g, i)
        for g, (v, c, h) in enumerate(zip(loss, cost, hulls, strict=True))
        for i, (a, b) in enumerate(pairwise(h))
    )
    for rate, g, i in steps:
        over = spent - budget
        if over <= 1e-12 * max(budget, 1.0):
            break
        a, b = hulls[g][i], hulls[g][i + 1]
        saved = float(cost[g][a] - cost[g][b])
        bound = lost + rate * min(over, saved)
        at[g] = i + 1
        spent, lost = spent - saved, lost + float(loss[g][b] - loss[g][a])
    if spent > budget * (1 + 1e-12):
        raise BudgetError(f"no choice of widths costs at most {budget:,.0f}; the least is {spent:,.0f}")
    return [h[i] for h, i in zip(hulls, at, strict=True)], bound


def _hull(loss: Array, cost: Array) -> list[int]:
    """Options on the lower convex hull, from the least loss to the least cost."""
    order = sorted(range(len(loss)), key=lambda k: (-cost[k], loss[k]))
    front: list[int] = []
    for k in order:  # costs fall: an option that loses no more than a dearer one makes that one pointless
        while front and loss[front[-1]] >= loss[k]:
            front.pop()
        if front and cost[front[-1]] == cost[k]:
            continue
        while len(front) >= 2:
            a, b = front[-2], front[-1]
            if (loss[b] - loss[a]) * (cost[b] - cost[k]) < (loss[k] - loss[b]) * (cost[a] - cost[b]):
                break
            front.pop()
        front.append(k)
    return front
