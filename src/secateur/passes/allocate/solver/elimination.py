"""Min-sum elimination: the least ``loss + price * cost`` of a choice, exactly, one group after the other.

Groups that are multiplied somewhere are neighbours. A group is eliminated by asking, for every combination of its
neighbours' options, which of its own is best; the answer is a table over the neighbours. Chains and the triangles of
bottlenecks never need a table over more than three groups, whatever the network's depth (Bertele and Brioschi,
Nonserial Dynamic Programming, 1972; Dechter's bucket elimination, 1999).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from secateur.ir import Array

from .problem import Problem

MOST_ENTRIES = 200_000  # of one table; four groups of 16 widths have 65,536, three have 4,096


@dataclass(frozen=True, eq=False)
class Bucket:
    """A group at its turn. ``scope``: the groups its answer depends on, in the order of their turns.

    ``parent`` is the turn of the first of them, -1 for none. ``spread`` puts the answer on the parent's axes.
    ``pairs`` lists (other group, its axis) of the products that are first met here.
    """

    group: int
    scope: tuple[int, ...]
    parent: int
    spread: tuple[slice | None, ...]
    pairs: tuple[tuple[int, int], ...]


def buckets(sizes: Sequence[int], pairs: Iterable[tuple[int, int]], most: int = MOST_ENTRIES) -> list[Bucket] | None:
    """The turns of all groups, small tables first; None where a table would have more than ``most`` entries."""
    near: list[set[int]] = [set() for _ in sizes]
    for a, b in pairs:
        near[a].add(b)
        near[b].add(a)
    given = [set(n) for n in near]
    left, scopes = set(range(len(sizes))), []
    while left:
        entries = {g: int(np.prod([float(sizes[n]) for n in near[g]])) * sizes[g] for g in left}
        group = min(left, key=lambda g: (entries[g], g))
        if entries[group] > most:
            return None
        scopes.append((group, near[group]))
        left.remove(group)
        for other in near[group]:
            near[other] = (near[other] | near[group]) - {other, group}
    turn = {group: i for i, (group, _) in enumerate(scopes)}
    ordered = [(group, tuple(sorted(scope, key=turn.__getitem__))) for group, scope in scopes]
    return [_bucket(group, scope, turn, ordered, given[group]) for group, scope in ordered]


def _bucket(
    group: int, scope: tuple[int, ...], turn: dict[int, int], all_: list[tuple[int, tuple[int, ...]]], given: set[int]
) -> Bucket:
    parent = turn[scope[0]] if scope else -1
    spread = tuple(slice(None) if g in scope else None for g in (scope[0], *all_[parent][1])) if scope else ()
    return Bucket(group, scope, parent, spread, tuple((g, 1 + i) for i, g in enumerate(scope) if g in given))


@dataclass(frozen=True)
class Found:
    """The best choice at a price. ``value`` = ``loss + price * cost``."""

    value: float
    loss: float
    cost: float
    chosen: tuple[int, ...] = field(repr=False)


class Elimination:
    """A problem whose groups may only take the options of ``domains``; choices are given as options of the problem."""

    def __init__(self, problem: Problem, turns: list[Bucket], domains: Sequence[Array]) -> None:
        self.problem, self.turns, self.domains = problem, turns, domains
        self.loss = [_first(problem.loss[b.group][domains[b.group]], len(b.scope)) for b in turns]
        self.cost = [self._cost(b) for b in turns]

    def _cost(self, bucket: Bucket) -> Array:
        """Cost of the group and of its products, over (group, *scope)."""
        rank, mine = len(bucket.scope), self.domains[bucket.group]
        total = _first(np.asarray(self.problem.cost[bucket.group], float)[mine], rank)
        for other, axis in bucket.pairs:
            matrix = self.problem.pair(bucket.group, other)[np.ix_(mine, self.domains[other])]
            shape = [1] * (rank + 1)
            shape[0], shape[axis] = matrix.shape
            total = total + matrix.reshape(shape)
        return total

    def least(self, price: float, weight: float = 1.0) -> Found:
        """The choice of the least ``weight * loss + price * cost``."""
        best, _ = self._up(price, weight)
        at = [0] * len(self.turns)
        loss = cost = 0.0
        for turn, table in zip(reversed(self.turns), reversed(best), strict=True):
            at[turn.group] = int(table[tuple(at[g] for g in turn.scope)])
        for turn, losses, costs in zip(self.turns, self.loss, self.cost, strict=True):
            loss += float(losses.flat[at[turn.group]])
            place = zip((turn.group, *turn.scope), costs.shape, strict=True)
            cost += float(costs[tuple(at[g] if size > 1 else 0 for g, size in place)])
        chosen = tuple(int(d[k]) for d, k in zip(self.domains, at, strict=True))
        return Found(weight * loss + price * cost, loss, cost, chosen)

    def marginals(self, price: float) -> list[Array]:
        """f64[options] per group: the least ``loss + price * cost`` of all choices with that option."""
        _, tables = self._up(price, 1.0)
        whole = sum(float(t.min()) for t, b in zip(tables, self.turns, strict=True) if b.parent < 0)
        result: list[Array] = [np.zeros(0)] * len(self.turns)
        for i in reversed(range(len(self.turns))):
            turn, table = self.turns[i], tables[i]
            if turn.parent >= 0:  # what the rest of the network adds: the parent's table without this message
                rest = tables[turn.parent] - table.min(0)[turn.spread]
                away = tuple(a for a, s in enumerate(turn.spread) if s is None)
                tables[i] = table = table + rest.min(axis=away)[None]
            else:
                tables[i] = table = table + (whole - float(table.min()))
            result[turn.group] = table.reshape(len(table), -1).min(1)
        return result

    def _up(self, price: float, weight: float) -> tuple[list[Array], list[Array]]:
        """(best option over each scope, whole tables with all that came before)."""
        tables = [weight * loss + price * cost for loss, cost in zip(self.loss, self.cost, strict=True)]
        best = []
        for i, turn in enumerate(self.turns):
            shape = tuple(len(self.domains[g]) for g in (turn.group, *turn.scope))
            if tables[i].shape != shape:
                tables[i] = np.broadcast_to(tables[i], shape)
            best.append(tables[i].argmin(0))
            if turn.parent >= 0:
                tables[turn.parent] = tables[turn.parent] + tables[i].min(0)[turn.spread]
        return best, tables


def _first(values: Array, others: int) -> Array:
    result: Array = np.asarray(values, float).reshape(-1, *[1] * others)
    return result
