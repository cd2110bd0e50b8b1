"""What remains after weights went, by least squares: the same Gram form as ``refit``, on the kept weights alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from secateur.ir import Array

from .pattern import Mask

STEPS = 100  # of conjugate gradients at most
ENOUGH = 1e-6  # of the first residual
TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True, eq=False)
class Quadratic:
    """The loss of a layer as a function of its weights w [groups, outputs, columns], up to a constant.

    Per output: half of w' S w minus ``pull`` w, with S = ``second`` [groups, columns, columns], damped, and ``pull``
    [groups, outputs, columns]: the minimum without any mask is what ``refit`` finds.
    """

    second: Array
    pull: Array

    def importance(self, weight: Array, together: int = 1) -> Array:
        """What the loss rises by, at most twice, if a weight goes and the others of its output make up for it.

        w^2 / [S^-1]_jj, from Optimal Brain Surgeon (Hassibi and Stork, 1993), with one S for all outputs of a group. Of
        so many columns that go ``together`` each has its part of what the whole costs, w' ([S^-1]_BB)^-1 w.
        """
        inverse = np.linalg.inv(self.second)
        return np.stack([_worth(w, i, together) for w, i in zip(weight.astype(np.float64), inverse, strict=True)])

    def remaining(self, weight: Array, left: Mask, alike: int, together: int = 1) -> Array:
        """``importance`` under a mask: the others that make up for a weight are those that are left.

        ``alike``: outputs that follow each other and have the same mask share an inverse of S on their columns.
        """
        found = np.zeros(weight.shape)
        for g in range(weight.shape[0]):
            for first in range(0, weight.shape[1], alike):
                rows = slice(first, first + alike)
                columns = np.flatnonzero(left[g, first])
                inverse = np.linalg.inv(self.second[g][np.ix_(columns, columns)])
                found[g, rows, columns] = _worth(weight[g, rows][:, columns], inverse, together).T
        return found

    def loss(self, weight: Array) -> float:
        """The function's value."""
        return float(np.einsum("goc,goc->", weight, 0.5 * weight @ self.second - self.pull))

    def solve(self, weight: Array, mask: Mask) -> Array:
        """The least loss with zeros outside of ``mask``, from ``weight`` on: conjugate gradients, all outputs at once.

        The loss falls with each step, so it is never above that of ``weight`` under the mask.
        """
        w = np.where(mask, weight, 0.0).astype(np.float64)
        scale = 1 / np.maximum(np.einsum("gcc->gc", self.second), TINY)[:, None, :]
        residual = np.where(mask, self.pull - w @ self.second, 0.0)
        step = near = scale * residual
        size = np.einsum("goc,goc->go", residual, near)
        first = size.max(initial=0.0)
        for _ in range(STEPS):
            if size.max(initial=0.0) <= ENOUGH**2 * first or not first:
                break
            change = np.where(mask, step @ self.second, 0.0)
            curve = np.einsum("goc,goc->go", step, change)
            ahead = np.divide(size, curve, out=np.zeros_like(size), where=curve > 0)[..., None]
            w, residual = w + ahead * step, residual - ahead * change
            near, before = scale * residual, size
            size = np.einsum("goc,goc->go", residual, near)
            step = near + np.divide(size, before, out=np.zeros_like(size), where=before > 0)[..., None] * step
        return w


def _worth(weight: Array, inverse: Array, together: int) -> Array:
    """What each of [outputs, columns] costs that goes, with S^-1 of the columns; those that go together share it."""
    if together == 1:
        single: Array = weight**2 / np.maximum(np.diag(inverse), TINY)
        return single
    count = len(inverse) // together
    corners = inverse.reshape(count, together, count, together)[np.arange(count), :, np.arange(count)]
    blocks = weight.reshape(-1, count, together)
    found: Array = np.einsum("obi,bij,obj->ob", blocks, np.linalg.inv(corners), blocks, optimize=True)
    return np.repeat(found / together, together, axis=1)
