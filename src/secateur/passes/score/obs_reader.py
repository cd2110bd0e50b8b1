"""A layer while channels that it reads leave one after the other: what each costs, and the best repair of the rest.

The inverse of the moments is factorised in the order in which columns leave, as a Cholesky decomposition that chooses
its pivots: what a step takes off the whole inverse waits until there is enough of it for one product of matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from secateur.ir import Array

STEPS = 96  # a domain of more units loses several at a time, in about so many steps
WAITING = 256  # columns that have left before the inverse is written anew, without them
DIGITS = 9  # of costs, which are shares of 1: what is nearer is a tie
WIDE = 512  # moments of more columns are inverted in float32, which halves time and memory ..
SURE = 1e-3  # .. where the ridge is at least this: their condition is at most the columns over the ridge


@dataclass(eq=False)
class Blocks:
    """Units of ``k`` columns each: ``names`` i64[u], ``columns`` i64[u, k], ``inverse`` float[u, k, k] at these."""

    names: Array
    columns: Array
    inverse: Array

    def without(self, gone: Array) -> Blocks:
        """Those that are not ``gone`` (bool[units])."""
        left = ~gone[self.names]
        return self if left.all() else Blocks(self.names[left], self.columns[left], self.inverse[left])


class Reader:
    """One layer, or one of its groups.

    ``units`` i64[columns]: whose each column is, -1 for what stays; ``weight`` float[columns, outputs], moved to make
    up for what has left; ``energy``: the mean square of the outputs, of what varies if there is a bias.
    """

    def __init__(self, units: Array, damped: Array, weight: Array, energy: float) -> None:
        """``damped`` [columns, columns]: second moments with the ridge; it is written over."""
        self.units, self.energy = units.copy(), energy
        self._inverse = inverted(damped)  # below the diagonal
        self.weight = np.array(weight.T, self._inverse.dtype, order="C")
        self._left = np.zeros((0, len(units)), self._inverse.dtype)  # rows whose squares the inverse is still to lose
        self._parts = blocks_of(units, self._inverse)

    @staticmethod
    def of(units: Array, second: Array, weight: Array, means: Array | None, ridge: float) -> Reader:
        """Nothing has left. ``weight`` is [outputs, columns]; ``means``: of the inputs, where there is a bias."""
        wide = len(second) >= WIDE and ridge >= SURE
        damped, energy = moments(second, weight, means, ridge, np.float32 if wide else np.float64)
        return Reader(units, damped, weight, energy)

    def costs(self, size: int) -> Array:
        """f64[size]: what the removal of each unit alone costs, of ``energy``; units are numbered below ``size``."""
        found = np.zeros(size)
        for part in self._parts:
            w = self.weight[part.columns]  # [units, k, outputs]
            if w.shape[1] == 1:
                found[part.names] = np.einsum("uko,uko->u", w, w) / part.inverse[:, 0, 0]
            else:
                squares = np.matmul(w, w.transpose(0, 2, 1))
                found[part.names] = np.trace(np.linalg.solve(part.inverse, squares), axis1=1, axis2=2)
        return found / self.energy

    def remove(self, gone: Array) -> None:
        """Take out the columns of the units in ``gone`` and move the others to where they make up best.

        ``gone``: bool, by unit, with two more entries of False for what is not a unit.
        """
        t = np.flatnonzero(gone[self.units])
        if not len(t):
            return
        from scipy.linalg import blas, solve_triangular

        rows = np.where(np.arange(len(self.units)) >= t[:, None], self._inverse.T[t], self._inverse[t])
        rows -= self._left[:, t].T @ self._left  # what had left before
        root = np.linalg.cholesky(rows[:, t])
        taken = solve_triangular(root, rows, lower=True, check_finite=False)
        lost = solve_triangular(root, self.weight[t], lower=True, check_finite=False)
        product = blas.sgemm if rows.dtype == np.float32 else blas.dgemm
        self.weight = product(-1.0, lost, taken, beta=1.0, c=self.weight.T, trans_a=1, overwrite_c=1).T  # in place
        self.weight[t] = 0
        columns = np.ascontiguousarray(taken.T)
        self._parts = [part.without(gone) for part in self._parts]
        for part in self._parts:
            at = columns[part.columns]  # [units, k, gone]
            part.inverse -= np.matmul(at, at.transpose(0, 2, 1))
        self.units[t] = -2
        self._left = np.concatenate([self._left, taken])
        if len(self._left) >= WAITING:
            self._settle()

    def _settle(self) -> None:
        """Write the inverse without what has left."""
        from scipy.linalg import blas

        keep = np.flatnonzero(self.units > -2)
        if not len(keep):
            return  # nothing reads on
        place = np.cumsum(self.units > -2) - 1
        inverse = self._inverse.T[np.ix_(keep, keep)].T  # Fortran's order, which is updated in place
        square = blas.ssyrk if inverse.dtype == np.float32 else blas.dsyrk
        left = np.asfortranarray(self._left[:, keep])
        self._inverse = square(-1.0, left, beta=1.0, c=inverse, trans=1, lower=1, overwrite_c=1)
        self.units, self.weight = self.units[keep], self.weight[keep]
        self._left = np.zeros((0, len(keep)), self._inverse.dtype)
        self._parts = [Blocks(part.names, place[part.columns], part.inverse) for part in self._parts]


def moments(
    second: Array, weight: Array, means: Array | None, ridge: float, kind: type[np.floating]
) -> tuple[Array, float]:
    """(second moments of what varies, damped; the mean square of what the outputs vary by), of that ``kind``."""
    columns = len(second)
    scale = float(np.trace(second)) / columns
    damped = second.astype(kind)
    if means is not None:
        damped -= np.outer(means, means)
    w = weight.astype(kind)
    energy = float(np.einsum("oc,oc->", w @ damped, w, dtype=np.float64))
    damped[np.diag_indices(columns)] += max(ridge * scale, 1e-12)
    return damped, energy


def inverted(damped: Array) -> Array:
    """Of a symmetric matrix whose eigenvalues are above 0: the inverse on and below the diagonal, in its own type.

    In Fortran's order; the matrix is written over.
    """
    from scipy.linalg import lapack

    narrow = damped.dtype == np.float32
    spare = damped if narrow else damped.copy()  # of float32 the ridge is large enough
    factor, failed = (lapack.spotrf if narrow else lapack.dpotrf)(damped.T, lower=1, overwrite_a=1, clean=0)
    if not failed:
        found, failed = (lapack.spotri if narrow else lapack.dpotri)(factor, lower=1, overwrite_c=1)
    return np.asfortranarray(np.linalg.inv(spare)) if failed else found


def blocks_of(units: Array, inverse: Array) -> list[Blocks]:
    """The blocks on the diagonal of every unit, by how many columns units have; of a matrix below its diagonal."""
    order = np.argsort(units, kind="stable")
    order = order[units[order] >= 0]
    names, starts = np.unique(units[order], return_index=True)
    width = np.diff([*starts, len(order)])
    found = []
    for k in np.unique(width):
        columns = order[starts[width == k][:, None] + np.arange(k)]
        row, column = columns[:, :, None], columns[:, None, :]
        found.append(Blocks(names[width == k], columns, inverse[np.maximum(row, column), np.minimum(row, column)]))
    return found


def removal(units: Array, readers: Sequence[Reader]) -> tuple[Array, Array]:
    """(places in ``units`` in the order in which they leave, what each step costs); ties go to the lower index.

    Where several leave at once, each costs its share of what it would cost alone.
    """
    size = int(units.max()) + 1
    left, order, added = np.ones(len(units), bool), list[int](), list[float]()
    some = max(1, len(units) // STEPS)
    while left.any():
        costs = sum((r.costs(size) for r in readers), np.zeros(size))[units]
        costs[~left] = np.inf
        taken = np.argsort(np.round(costs, DIGITS), kind="stable")[: min(some, int(left.sum()))]
        gone = np.zeros(size + 2, bool)
        gone[units[taken]] = True
        for reader in readers:
            reader.remove(gone)
        order += taken.tolist()
        added += costs[taken].tolist()
        left[taken] = False
    return np.array(order, np.int64), np.array(added)
