"""Columns of a block's mask in exchange for better ones, once greedy removal is done.

What greedy removal took early it took while all the others were there. Here the removed columns that would lessen the
loss most come back, and as many of least worth go, for as long as the loss falls: a forward and backward step of
stepwise regression, with the whole of a block's outputs in each column.
"""

from __future__ import annotations

import numpy as np

from secateur.ir import Array

from .fit import TINY, Quadratic
from .pattern import Mask

FIRST = 0.1  # of the kept columns, exchanged at once at first; half as many where that gains nothing
ROUNDS = 12  # at most, of a block


def exchange(loss: Quadratic, left: Mask, alike: int) -> Mask:
    """The mask [groups, outputs, columns], ``alike`` outputs in a block, with as many columns in each as before.

    Outputs of a block have one mask; blocks do not pass the end of a group (the same rows as ``Quadratic.remaining``).
    """
    found = left.copy()
    for g in range(left.shape[0]):
        for first in range(0, left.shape[1], alike):
            rows = slice(first, first + alike)
            columns = np.flatnonzero(left[g, first])
            if 0 < len(columns) < left.shape[2]:
                better = _better(loss.second[g], loss.pull[g, rows], columns)
                found[g, rows] = np.isin(np.arange(left.shape[2]), better)
    return found


def _better(second: Array, pull: Array, columns: Array) -> Array:
    """Columns of no more loss. ``second`` [columns, columns], ``pull`` [outputs, columns]."""
    value, weight, inverse = _solved(second, pull, columns)
    count = max(1, int(FIRST * len(columns)))
    for _ in range(ROUNDS):
        others = np.setdiff1d(np.arange(len(second)), columns)
        across = second[np.ix_(columns, others)]
        alone = np.diag(second)[others] - np.einsum("ij,ij->j", across, inverse @ across)
        gains = ((pull[:, others] - weight @ across) ** 2).sum(0) / np.maximum(alone, TINY)
        wide = np.sort(np.append(columns, others[np.argsort(-gains, kind="stable")[:count]]))
        _, solved, wider = _solved(second, pull, wide)
        worth = (solved**2).sum(0) / np.maximum(np.diag(wider), TINY)
        fresh = np.sort(wide[np.argsort(-worth, kind="stable")[: len(columns)]])
        now = _solved(second, pull, fresh)
        if now[0] < value - 1e-9 * abs(value):
            columns, (value, weight, inverse) = fresh, now
        elif count == 1:
            break
        else:
            count //= 2
    return columns


def _solved(second: Array, pull: Array, columns: Array) -> tuple[float, Array, Array]:
    """(the least loss, its weights [outputs, columns], the inverse of S) on these columns."""
    inverse = np.linalg.inv(second[np.ix_(columns, columns)])
    weight: Array = pull[:, columns] @ inverse
    return -0.5 * float((weight * pull[:, columns]).sum()), weight, inverse
