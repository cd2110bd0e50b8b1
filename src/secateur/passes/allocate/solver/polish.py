"""Better choices near one: what a budget leaves over is spent on one or two groups at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from secateur.ir import Array

from .problem import Problem

MOST_MOVES = 3000  # beyond, moves of two groups are not tried
TINY = 1e-12  # a gain that may be rounding


def polish(problem: Problem, chosen: Sequence[int]) -> tuple[int, ...]:
    """A choice that loses no more and fits, reached by moves of one group, or of two that are not multiplied."""
    at = list(chosen)
    room = problem.budget - problem.cost_of(at)
    for _ in range(len(at) * 2):
        group, option, loss, cost = _moves(problem, at)
        picked = _best(problem, group, loss, cost, room)
        if not picked:
            break
        for move in picked:
            at[int(group[move])] = int(option[move])
        room = problem.budget - problem.cost_of(at)
    return tuple(at)


def _moves(problem: Problem, at: list[int]) -> tuple[Array, Array, Array, Array]:
    """(group, option, change of loss, change of cost) of all moves of one group."""
    cost = [np.asarray(c, float) - float(c[k]) for c, k in zip(problem.cost, at, strict=True)]
    for (a, b), matrix in problem.pairs.items():
        here = float(matrix[at[a], at[b]])
        cost[a] = cost[a] + (matrix[:, at[b]] - here)
        cost[b] = cost[b] + (matrix[at[a], :] - here)
    loss = [np.asarray(v, float) - float(v[k]) for v, k in zip(problem.loss, at, strict=True)]
    sizes = [len(v) for v in loss]
    group = np.repeat(np.arange(len(sizes)), sizes)
    option = np.concatenate([np.arange(n) for n in sizes])
    return group, option, np.concatenate(loss), np.concatenate(cost)


def _best(problem: Problem, group: Array, loss: Array, cost: Array, room: float) -> list[int]:
    """The move, or the two, that lose least and fit; none if nothing gets better."""
    single = np.where(cost <= room, loss, np.inf)
    one = int(np.argmin(single))
    best, picked = (float(single[one]), [one]) if single[one] < -TINY else (-TINY, [])
    if len(loss) > MOST_MOVES:
        return picked
    gains, pays = np.flatnonzero(loss < 0), np.flatnonzero(cost < 0)
    if not len(gains) or not len(pays):
        return picked
    apart = ~_bound(problem)[np.ix_(group[gains], group[pays])]
    both = loss[gains][:, None] + loss[pays]
    both = np.where(apart & (cost[gains][:, None] + cost[pays] <= room), both, np.inf)
    i, j = np.unravel_index(int(np.argmin(both)), both.shape)
    return [int(gains[i]), int(pays[j])] if both[i, j] < best else picked


def _bound(problem: Problem) -> Array:
    """bool[groups, groups]: the same group, or two whose costs are multiplied."""
    result = np.eye(len(problem.loss), dtype=bool)
    for a, b in problem.pairs:
        result[a, b] = result[b, a] = True
    return result
