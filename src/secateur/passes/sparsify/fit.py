"""What remains after weights went, by least squares: the same Gram form as ``refit``, on the kept weights alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from secateur.ir import Array

from .balanced import Balanced
from .pattern import Mask, Pattern

FINE = 10  # rounds where inverses of what is left are affordable
AFFORDABLE = 1 << 34  # multiply-accumulates of the inverses of one round: some seconds
STEPS = 100  # of conjugate gradients at most
ENOUGH = 1e-6  # of the first residual


@dataclass(frozen=True, eq=False)
class Quadratic:
    """The loss of a layer as a function of its weights w [groups, outputs, columns], up to a constant.

    Per output: half of w' S w minus ``pull`` w, with S = ``second`` [groups, columns, columns], damped, and ``pull``
    [groups, outputs, columns]: the minimum without any mask is what ``refit`` finds.
    """

    second: Array
    pull: Array

    def importance(self, weight: Array) -> Array:
        """What the loss rises by, at most twice, if a weight goes and the others of its output make up for it.

        w^2 / [S^-1]_jj, from Optimal Brain Surgeon (Hassibi and Stork, 1993), with one S for all outputs of a group.
        """
        inverse = np.linalg.inv(self.second)
        diagonal = np.maximum(np.einsum("gcc->gc", inverse), np.finfo(np.float64).tiny)
        found: Array = weight.astype(np.float64) ** 2 / diagonal[:, None, :]
        return found

    def remaining(self, weight: Array, left: Mask, alike: int) -> Array:
        """``importance`` under a mask: the others that make up for a weight are those that are left.

        ``alike``: outputs that follow each other and have the same mask share an inverse of S on their columns.
        """
        found = np.zeros(weight.shape)
        for g in range(weight.shape[0]):
            for first in range(0, weight.shape[1], alike):
                rows = slice(first, first + alike)
                columns = np.flatnonzero(left[g, first])
                inverse = np.linalg.inv(self.second[g][np.ix_(columns, columns)])
                diagonal = np.maximum(np.diag(inverse), np.finfo(np.float64).tiny)
                found[g, rows, columns] = (weight[g, rows][:, columns] ** 2 / diagonal).T
        return found

    def loss(self, weight: Array) -> float:
        """The function's value."""
        return float(np.einsum("goc,goc->", weight, 0.5 * weight @ self.second - self.pull))

    def solve(self, weight: Array, mask: Mask) -> Array:
        """The least loss with zeros outside of ``mask``, from ``weight`` on: conjugate gradients, all outputs at once.

        The loss falls with each step, so it is never above that of ``weight`` under the mask.
        """
        w = np.where(mask, weight, 0.0).astype(np.float64)
        scale = 1 / np.maximum(np.einsum("gcc->gc", self.second), np.finfo(np.float64).tiny)[:, None, :]
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


def prune(loss: Quadratic, weight: Array, pattern: Pattern, sparsity: float, rounds: int) -> tuple[Array, Mask]:
    """Weights [groups, outputs, columns] with this share of zeros in a pattern, and which stay.

    Greedy removal with update of what remains: in each of ``rounds`` as large a share of what is left goes, the least
    important by ``Quadratic.importance``, and the others are solved again. Where outputs have the same mask in blocks,
    and the inverses of what is left are affordable, those say what is least important (``Quadratic.remaining``).
    """
    shape, left = weight.shape, np.ones(weight.shape, bool)
    now = weight.astype(np.float64)
    alike = pattern.outputs if isinstance(pattern, Balanced) else 1
    exact = alike > 1 and shape[0] * -(-shape[1] // alike) * shape[2] ** 3 <= AFFORDABLE
    rounds = max(rounds, FINE) if exact else rounds
    for number in range(1, rounds + 1):
        share = 1 - (1 - sparsity) ** (number / rounds)
        if number == rounds:
            share = sparsity
        worth = loss.remaining(now, left, alike) if exact else loss.importance(now)
        important = np.where(left, worth, 0.0).reshape(-1, shape[-1])
        left = left & pattern.mask(important, share).reshape(shape)
        now = loss.solve(now, left)
    return now, left
