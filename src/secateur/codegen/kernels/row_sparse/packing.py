"""Rows of weights without their zeros: by powers where they keep one of each 2^b columns, else in any pattern."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from secateur.codegen.plan.tensors import Floats, Ints
from secateur.codegen.targets import Target

from .powers import WORD, Power, Powers, choose_rows, keep_powers

LOADS, NEAR = 2, 1 / 8  # loads in a cycle, and the cycles that a number takes from the second cache


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows that keep about as many weights side by side, one a lane: any zeros, and no more in DARB's rows of one size.

    Rows by how many weights they keep, the most first, a vector of them after the other. ``weight`` and ``unit``, the
    column of each, [rounds, lanes], are flat; where a row has fewer than others next to it, zeros fill it up.
    ``starts``: the round at which each vector of rows begins, and the end. Rows in ``powers`` are not among them.
    ``place``: where each row of the dense weights stands, after those in ``powers``.
    """

    weight: Floats
    unit: Ints
    starts: Ints
    place: Ints
    powers: Powers


def keep_rows(r: Floats, lanes: int, chosen: Mapping[int, Ints]) -> Rows:
    """The weights of [rows, columns] that are not zero; the rows ``chosen`` by their powers."""
    powers, used = keep_powers(r, lanes, chosen), r != 0
    others = np.setdiff1d(np.arange(len(r)), powers.rows)
    order = others[np.argsort(-used[others].sum(1), kind="stable")]
    rounds = used.sum(1)[order].reshape(-1, lanes).max(1)
    weights, units = [np.zeros(0, np.float32)], [np.zeros(0, np.int64)]
    for rows, count in zip(order.reshape(-1, lanes), rounds, strict=True):
        columns = np.argsort(~used[rows], axis=1, kind="stable")[:, :count]
        kept = np.take_along_axis(r[rows] * used[rows], columns, 1)
        weights.append(kept.T.reshape(-1))
        units.append(columns.T.reshape(-1))
    place = np.empty(len(r), np.int64)
    place[np.concatenate([powers.rows, order])] = np.arange(len(r))
    starts = np.concatenate([[0], np.cumsum(rounds)])
    return Rows(np.concatenate(weights).astype(np.float32), np.concatenate(units), starts, place, powers)


@dataclass(frozen=True)
class Cycles:
    """What vectors of weights take, by estimate, at a small batch: their bytes, their loads, or what shuffles them.

    ``number``: cycles that each number of them takes from where they lie; ``permute``: that a vector takes whose lanes
    are taken by numbers.
    """

    lanes: int
    number: float
    permute: float

    @staticmethod
    def of(r: Floats, target: Target) -> Cycles:
        """From memory where there are more weights than the second cache holds."""
        far = r.nbytes > target.l2
        number = target.load / (target.lanes * target.fmas) if far else NEAR
        return Cycles(target.lanes, number, target.permute_cycles)

    def looked_up(self, vectors: int, places: int) -> float:
        """Weights whose inputs are loaded one by one: a load of weights, and of a place and its number for each."""
        return vectors * max((1 + 2 * places) / LOADS, self.number * (self.lanes + places))

    def of_rows(self, r: Floats, chosen: Mapping[int, Ints]) -> float:
        """All rows of [rows, columns], the ``chosen`` by their powers, and each sum, loaded from where it is."""
        kept, lanes = (r != 0).sum(1), self.lanes
        own = np.concatenate([np.zeros(0, np.int64), *chosen.values()])
        others = np.sort(np.delete(kept, own))[::-1]
        permuted = (len(rows) // lanes * self.permuted(Power(p, lanes, r.shape[1])) for p, rows in chosen.items())
        return sum(permuted, self.looked_up(int(others[::lanes].sum()) + len(r) // lanes, lanes))

    def permuted(self, how: Power) -> float:
        """A vector of rows of a power: inputs are loaded as vectors, of which lanes take theirs."""
        share = how.bits / WORD
        shuffles = how.wide * self.permute if how.bits else 0
        each = max((1 + how.wide + share) / LOADS, shuffles, self.number * self.lanes * (1 + share))
        return how.vectors * each


def choose(r: Floats, target: Target) -> dict[int, Ints]:
    """By power: the rows of [rows, columns] that take less time by it than with inputs that are loaded one by one."""
    if not target.permute or not r.size:
        return {}
    cycles, lanes = Cycles.of(r, target), target.lanes
    return choose_rows(r, lanes, lambda how, most: cycles.permuted(how) < cycles.looked_up(most, lanes))
