"""Recurrent weights without zeros: without blocks of a vector of units by one unit, or row by row in any pattern."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from secateur.codegen.plan.tensors import Floats, Ints
from secateur.codegen.targets import Target

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
    next to it, zeros fill it up. ``starts``: the round at which each vector of rows begins, and the end. ``place``:
    where each row of the dense weights stands among these.
    """

    weight: Floats
    unit: Ints
    starts: Ints
    place: Ints


def keep_rows(r: Floats, lanes: int) -> Rows:
    """The weights of [gates and padded units, hidden] that are not zero."""
    used = r != 0
    order = np.argsort(-used.sum(1), kind="stable")
    rounds = used.sum(1)[order].reshape(-1, lanes).max(1)
    weights, units = [np.zeros(0, np.float32)], [np.zeros(0, np.int64)]
    for rows, count in zip(order.reshape(-1, lanes), rounds, strict=True):
        columns = np.argsort(~used[rows], axis=1, kind="stable")[:, :count]
        kept = np.take_along_axis(r[rows] * used[rows], columns, 1)
        weights.append(kept.T.reshape(-1))
        units.append(columns.T.reshape(-1))
    place = np.empty(len(r), np.int64)
    place[order] = np.arange(len(r))
    starts = np.concatenate([[0], np.cumsum(rounds)])
    return Rows(np.concatenate(weights).astype(np.float32), np.concatenate(units), starts, place)


def keep(r: Floats, gates: int, target: Target) -> Kept | Rows | None:
    """What takes a step the least time by estimate, at a small batch; None where dense weights are as fast.

    ``r`` [gates and padded units, hidden]. A vector of weights takes as long as its bytes from memory, where there are
    more of them than the second cache holds, or as its loads: one of weights, one of a number for all lanes and one of
    where that is, or of each lane.
    """
    if not r.size:
        return None
    lanes = target.lanes
    each = target.load / (lanes * target.fmas) if r.nbytes > target.l2 else NEAR

    def cycles(vectors: int, places: int) -> float:
        """With so many places of inputs a vector."""
        return vectors * max((1 + 2 * places) / LOADS, each * (lanes + places))

    blocks, rows = keep_blocks(r, gates, lanes), keep_rows(r, lanes)
    dense = cycles(r.size // lanes, 0)
    together = dense if blocks is None else cycles(len(blocks.unit), 1)
    single = cycles(len(rows.unit) // lanes, lanes)
    if min(together, single) >= MOST * dense:
        return None
    return blocks if together <= single else rows
