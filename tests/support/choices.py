"""Other ways to the optima that allocation and criteria look for, which serve as checks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from secateur.ir import Array, BudgetError
from secateur.passes.score.lasso import lasso_path
from secateur.passes.score.quadratic import relaxed, solve, value


def dynamic(loss: Sequence[Array], cost: Sequence[Array], budget: int) -> list[int]:
    """The exact choice for whole costs, by dynamic programming: O(options * budget) time and memory.

    Raises BudgetError where no choice fits.
    """
    best = np.full(budget + 1, np.inf)
    best[0] = 0.0
    taken: list[Array] = []
    for values, prices in zip(loss, cost, strict=True):
        following, choice = np.full(budget + 1, np.inf), np.full(budget + 1, -1)
        for k, (loses, price) in enumerate(zip(values, prices, strict=True)):
            price = int(price)
            if price > budget:
                continue
            with_k = np.full(budget + 1, np.inf)
            with_k[price:] = best[: budget + 1 - price] + loses
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


def exact(u: Array, s: Array, k: int) -> tuple[Array, float]:
    """(bool[c], objective) proven best, by branch and bound with the relaxed bound; meant for c up to about 40."""
    best = solve(u, s, k)
    least = value(u, s, best.astype(np.float64))
    open_: list[tuple[Array, Array]] = [(np.zeros(len(u)), np.ones(len(u)))]
    while open_:
        low, high = open_.pop()
        if low.sum() > k or high.sum() < k:
            continue
        d, bound = relaxed(u, s, k, low, high)
        if bound >= least - 1e-9 * (1 + abs(least)):
            continue
        whole = (d > 0.5).astype(np.float64)
        if whole.sum() == k and (found := value(u, s, whole)) < least and np.all((whole >= low) & (whole <= high)):
            best, least = whole > 0.5, found
        free = np.flatnonzero(high > low)
        if not len(free):
            continue
        i = free[np.abs(d[free] - 0.5).argmin()]
        for bound_to in (0.0, 1.0) if d[i] > 0.5 else (1.0, 0.0):
            one_low, one_high = low.copy(), high.copy()
            one_low[i] = one_high[i] = bound_to
            open_.append((one_low, one_high))
    return best, least


def support_of(gram: Array, target: Array, most: int) -> Array:
    """bool[c]: the largest support on the path with at most ``most`` channels."""
    _, factors = lasso_path(gram, target)
    counts = (factors != 0).sum(0)
    fits = np.flatnonzero(counts <= most)
    best = fits[counts[fits].argmax()] if len(fits) else 0
    result: Array = factors[:, best] != 0
    return result
