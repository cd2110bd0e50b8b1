"""Recurrent weights without zeros: without blocks of a vector of units by one unit, or row by row in any pattern."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from secateur.codegen.kernels.row_sparse.packing import Cycles, Rows, choose, keep_rows
from secateur.codegen.plan.tensors import Floats, Ints
from secateur.codegen.targets import Target

PAIR = 2  # blocks of hidden units side by side: enough sums to hide the latency of an addition
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


def keep(r: Floats, gates: int, target: Target) -> Kept | Rows | None:
    """What takes a step the least time by estimate, at a small batch; None where dense weights are as fast.

    ``r`` [gates and padded units, hidden].
    """
    if not r.size:
        return None
    cycles, chosen, lanes = Cycles.of(r, target), choose(r, target), target.lanes
    blocks, dense = keep_blocks(r, gates, lanes), cycles.looked_up(r.size // lanes, 0)
    together = dense if blocks is None else cycles.looked_up(len(blocks.unit), 1)
    single = cycles.of_rows(r, chosen)
    if min(together, single) >= MOST * dense:
        return None
    return blocks if together <= single else keep_rows(r, lanes, chosen)
