"""Exact swaps after a greedy choice: one unit comes back and another leaves, while that costs the readers less.

Of a reader with damped moments H and weights W, and of the columns K that are left, P = (H_KK)^-1 gives the repaired
weights. Taking one unit back and leaving out another changes P by two updates of as many rows as a unit has columns, so
all pairs are priced together, exactly, by a few products of matrices.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from secateur.ir import Array

from .obs_reader import inverted

ROUNDS = 100  # times that all pairs are priced; most choices are at rest after a few
ENTRIES = 1 << 20  # pairs are priced in parts: so many entries of their matrices at a time
HELPS = 1e-4  # of what a choice costs: what a swap must save
LEAST = 1e-12  # a cost that is nothing, as a share of what readers put out
AT_ONCE = 8  # a round makes up to this part of the swaps of different units that help; where that fails, the best alone


@dataclass(frozen=True, eq=False)
class Read:
    """What swaps ask of a reader: ``damped`` [columns, columns], ``weight`` f64[columns, outputs] of the original.

    ``units`` and ``energy`` are those of ``Reader``.
    """

    units: Array
    damped: Array
    weight: Array
    energy: float

    @functools.cached_property
    def product(self) -> Array:
        """f64[columns, outputs]: the damped moments times the weights."""
        found: Array = self.damped @ self.weight
        return found


def repaired(read: Read, left: Array) -> tuple[float, Array]:
    """(what a choice of columns costs, f64[left, outputs]: the best weights of these). ``left``: bool[columns]."""
    from scipy.linalg import cho_factor, cho_solve

    if left.all():
        return 0.0, read.weight
    weight = cho_solve(cho_factor(read.damped[np.ix_(left, left)], lower=True), read.product[left])
    lacking = read.product[~left] - read.damped[np.ix_(~left, left)] @ weight
    return float(np.einsum("co,co->", read.weight[~left], lacking)), weight


def swapped(units: Array, reads: Sequence[Read], kept: Array, allowed: Array) -> tuple[Array, list[float]]:
    """(bool per unit after all swaps that help, what the choice cost at first and after each round).

    ``units`` are those of the domain, ``kept`` (bool, by unit of the network) says which stay at first, and ``allowed``
    i64[units] numbers the sets within which they may change places.
    """
    costs, choice, trial = list[float](), kept, kept
    best: tuple[int, int] | None = None  # of several swaps that are tried, the best alone: (comes back, leaves)
    for _ in range(ROUNDS):
        gone, left = np.flatnonzero(~trial[units]), np.flatnonzero(trial[units])
        cost, change = priced(reads, units[gone], units[left], trial)
        if costs and cost >= costs[-1]:
            if best is None:
                break
            trial, best = exchanged(choice, [best]), None
            continue
        costs, choice = [*costs, cost], trial
        change = np.where(allowed[gone][:, None] == allowed[left][None, :], change, np.inf)
        pairs = [(int(units[gone[i]]), int(units[left[j]])) for i, j in _disjoint(change, HELPS * max(cost, LEAST))]
        if not pairs:
            break
        several = pairs[: max(1, len(pairs) // AT_ONCE)]
        trial, best = exchanged(choice, several), pairs[0] if len(several) > 1 else None
    return choice, costs


def exchanged(kept: Array, pairs: Sequence[tuple[int, int]]) -> Array:
    """A copy with the first of each pair back and the second gone."""
    result: Array = kept.copy()
    for back, out in pairs:
        result[back], result[out] = True, False
    return result


def _disjoint(change: Array, least: float) -> Iterator[tuple[int, int]]:
    """Pairs that save more than ``least``, the best first, no unit twice."""
    rows, columns = np.nonzero(change < -least)
    order = np.argsort(change[rows, columns], kind="stable")
    used: tuple[set[int], set[int]] = (set(), set())
    for i, j in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if i not in used[0] and j not in used[1]:
            used[0].add(i)
            used[1].add(j)
            yield i, j


def priced(reads: Sequence[Read], gone: Array, left: Array, kept: Array) -> tuple[float, Array]:
    """(what leaving out ``gone`` costs, f64[gone, left]: how that changes when one comes back and another leaves)."""
    cost, change = 0.0, np.zeros((len(gone), len(left)))
    for read in reads:
        mine = _Priced(read, kept)
        cost += mine.cost / read.energy
        change += mine.changes(gone, left) / read.energy
    return cost, change


class _Priced:
    """One reader without what is gone: the repaired weights, the inverse, and what each gone column would bring."""

    def __init__(self, read: Read, kept: Array) -> None:
        live = np.append(kept, True)[read.units]
        self.left, self.gone = np.flatnonzero(live), np.flatnonzero(~live)
        self.units = read.units
        damped = read.damped
        between = damped[np.ix_(self.left, self.gone)]
        lower = inverted(damped[np.ix_(self.left, self.left)])
        self.inverse = np.tril(lower) + np.tril(lower, -1).T
        self.weight = self.inverse @ read.product[self.left]
        self.reach = self.inverse @ between  # P H_KT
        self.lacking = read.product[self.gone] - between.T @ self.weight  # what each gone column would still explain
        self.cost = float(np.einsum("co,co->", read.weight[self.gone], self.lacking))
        self.own, self.between = damped[np.ix_(self.gone, self.gone)], between

    def changes(self, gone: Array, left: Array) -> Array:
        """f64[gone, left] of these units; 0 where this reader reads neither."""
        change = np.zeros((len(gone), len(left)))
        back, out = _columns(self.units[self.gone], gone), _columns(self.units[self.left], left)
        for at, columns in out.values():
            change[:, at] += self._removed(columns)
        for at, columns in back.values():
            schur = self.own[columns[:, :, None], columns[:, None, :]]
            far = self.between[:, columns].transpose(1, 0, 2)  # [units, left columns, k]
            schur = schur - np.matmul(far.transpose(0, 2, 1), self.reach[:, columns].transpose(1, 0, 2))
            explains = np.linalg.solve(schur, self.lacking[columns])  # [units, k, outputs]: weights of what comes back
            gain = np.einsum("uko,uko->u", explains, self.lacking[columns])
            change[at] -= gain[:, None]
            for places, others in out.values():
                rows = max(1, ENTRIES // (others.size * columns.shape[1]))
                for start in range(0, len(at), rows):
                    part = slice(start, start + rows)
                    then = self._with(columns[part], schur[part], explains[part], others)
                    change[np.ix_(at[part], places)] += then - self._removed(others)
        return change

    def _removed(self, columns: Array) -> Array:
        """f64[units]: what the removal of each costs as things are."""
        w = self.weight[columns]
        blocks = self.inverse[columns[:, :, None], columns[:, None, :]]
        found: Array = np.einsum("uko,uko->u", w, np.linalg.solve(blocks, w))
        return found

    def _with(self, back: Array, schur: Array, explains: Array, out: Array) -> Array:
        """f64[back, out]: what the removal of each costs when another has come back."""
        i, k, j, m = len(back), back.shape[1], len(out), out.shape[1]
        if k == m == 1:  # no matrices of one number each
            r, e, w = self.reach[np.ix_(out[:, 0], back[:, 0])].T, explains[:, 0], self.weight[out[:, 0]]
            rise = r**2 / schur[:, 0]
            squares = np.einsum("jo,jo->j", w, w) - 2 * r * (e @ w.T) + r**2 * np.einsum("io,io->i", e, e)[:, None]
            single: Array = squares / (np.diagonal(self.inverse)[out[:, 0]] + rise)
            return single
        reach = self.reach[out][:, :, back].transpose(2, 0, 3, 1)  # [i, j, k, m]
        w = self.weight[out]  # [j, m, outputs]
        flat = explains.reshape(i * k, -1)
        cross = (flat @ w.reshape(j * m, -1).T).reshape(i, k, j, m).transpose(0, 2, 1, 3)  # E_i w_j'
        own = np.matmul(explains, explains.transpose(0, 2, 1))[:, None]  # [i, 1, k, k]
        turned = reach.transpose(0, 1, 3, 2)  # [i, j, m, k]
        squares = np.matmul(w, w.transpose(0, 2, 1))[None]
        mixed = np.matmul(turned, cross)
        squares = squares - mixed - mixed.transpose(0, 1, 3, 2) + np.matmul(np.matmul(turned, own), reach)
        blocks = self.inverse[out[:, :, None], out[:, None, :]][None]
        blocks = blocks + np.matmul(turned, np.linalg.solve(schur[:, None], reach))
        traces = squares / blocks if m == 1 else np.linalg.solve(blocks, squares)
        found: Array = np.trace(traces, axis1=2, axis2=3)
        return found


def _columns(units: Array, wanted: Array) -> dict[int, tuple[Array, Array]]:
    """By how many columns units have: (their places in ``wanted``, i64[units, k]: their columns)."""
    place = np.full(max(int(units.max(initial=0)), int(wanted.max(initial=0))) + 1, -1)
    place[wanted] = np.arange(len(wanted))
    at = np.where(units >= 0, place[units], -1)
    order = np.argsort(at, kind="stable")
    order = order[at[order] >= 0]
    names, starts = np.unique(at[order], return_index=True)
    width = np.diff([*starts, len(order)])
    return {
        int(k): (names[width == k], order[starts[width == k][:, None] + np.arange(int(k))]) for k in np.unique(width)
    }
