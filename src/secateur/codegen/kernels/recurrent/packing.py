"""Recurrent weights without zeros: without blocks of a vector of units by one unit, or row by row in any pattern."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from secateur.codegen.plan.tensors import Floats, Ints
from secateur.codegen.targets import Target

from .powers import WORD, Power, Powers, choose_rows, keep_powers

PAIR = 2  # blocks of hidden units side by side: enough sums to hide the latency of an addition
LOADS, NEAR = 2, 1 / 8  # loads in a cycle, and the cycles that a number takes from the second cache
MOST = 0.9  # of the time of dense weights: with more, nothing is gained


@dataclass(frozen=True, eq=False)
class Kept:
    """The kept blocks of all gates of ``PAIR`` blocks of units, in rounds: one of each gate and block a round.

    ``weight`` [rounds, gates and blocks, lanes] and ``unit``, the hidden unit that each is multiplied by, are flat;
    the last pair may be half as wide. ``starts``: the round at which each pair begins, and the end. Where one has
    fewer than others of its pair, zeros fill it up.
    """

    weight: Floats
    unit: Ints
    starts: Ints


def keep_blocks(r: Floats, gates: int, lanes: int) -> Kept | None:
    """The kept blocks of [gates and padded units, hidden]; None of no hidden unit."""
    blocks, hidden = len(r) // (gates * lanes), r.shape[1]
    wide = r.reshape(gates, blocks, lanes, hidden)
    used = (wide != 0).any(2)
    rounds = [int(used[:, b : b + PAIR].sum(-1).max(initial=0)) for b in range(0, blocks, PAIR)]
    if not hidden:
        return None
    weights, units = [], []
    for number, count in enumerate(rounds):
        pair = slice(number * PAIR, min((number + 1) * PAIR, blocks))
        lists, order = used[:, pair], np.argsort(~used[:, pair], axis=-1, kind="stable")[..., :count]
        values = np.take_along_axis(wide[:, pair], order[:, :, None, :], -1)  # [gates, blocks, lanes, rounds]
        values = values * np.take_along_axis(lists, order, -1)[:, :, None, :]
        weights.append(values.transpose(3, 0, 1, 2).reshape(-1))
        units.append(order.transpose(2, 0, 1).reshape(-1))
    starts = np.concatenate([[0], np.cumsum(rounds)])
    return Kept(np.concatenate(weights).astype(np.float32), np.concatenate(units), starts)


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows that keep about as many weights side by side, one a lane: any zeros, and no more in DARB's rows of one size.

    Rows of all gates by how many weights they keep, the most first, a vector of them after the other. ``weight`` and
    ``unit``, the hidden unit that each is multiplied by, [rounds, lanes], are flat; where a row has fewer than others
    next to it, zeros fill it up. ``starts``: the round at which each vector of rows begins, and the end. Rows in
    ``powers`` are not among them. ``place``: where each row of the dense weights stands, after those in ``powers``.
    """

    weight: Floats
    unit: Ints
    starts: Ints
    place: Ints
    powers: Powers


def keep_rows(r: Floats, lanes: int, chosen: Mapping[int, Ints]) -> Rows:
    """The weights of [gates and padded units, hidden] that are not zero; the rows ``chosen`` by their powers."""
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

    def permuted(self, how: Power) -> float:
        """A vector of rows of a power: inputs are loaded as vectors, of which lanes take theirs."""
        share = how.bits / WORD
        shuffles = how.wide * self.permute if how.bits else 0
        each = max((1 + how.wide + share) / LOADS, shuffles, self.number * self.lanes * (1 + share))
        return how.vectors * each


def keep(r: Floats, gates: int, target: Target) -> Kept | Rows | None:
    """What takes a step the least time by estimate, at a small batch; None where dense weights are as fast.

    ``r`` [gates and padded units, hidden].
    """
    if not r.size:
        return None
    lanes, cycles, chosen = target.lanes, Cycles.of(r, target), dict[int, Ints]()
    if target.permute:
        chosen = choose_rows(r, lanes, lambda how, most: cycles.permuted(how) < cycles.looked_up(most, lanes))
    own = np.concatenate([np.zeros(0, np.int64), *chosen.values()])
    others = np.sort(np.delete((r != 0).sum(1), own))[::-1]
    single = cycles.looked_up(int(others[::lanes].sum()) + len(r) // lanes, lanes)  # and each sum, from where it is
    single += sum(len(rows) // lanes * cycles.permuted(Power(p, lanes, r.shape[1])) for p, rows in chosen.items())
    blocks, dense = keep_blocks(r, gates, lanes), cycles.looked_up(r.size // lanes, 0)
    together = dense if blocks is None else cycles.looked_up(len(blocks.unit), 1)
    if min(together, single) >= MOST * dense:
        return None
    return blocks if together <= single else keep_rows(r, lanes, chosen)
