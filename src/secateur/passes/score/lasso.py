"""LASSO channel pruning: He, Zhang and Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Array

from .positions import by_order
from .reconstruction import Contributions, OfReaders

MANY = 256  # beyond so many channels the path is followed on a grid of penalties
GRID, LEAST = 60, 1e-3  # how many of them, down to which share of the largest
ROUNDS, TOLERANCE, RIDGE = 10, 1e-3, 1e-9  # of coordinate descent at each penalty


@dataclass(frozen=True)
class Lasso(OfReaders):
    """Order in which channels enter as LASSO explains what the reading layers compute (He et al., ICCV 2017).

    One factor on every channel, an L1 penalty on the factors, in Gram form: the whole path at once. A channel's score
    is the penalty, as a share of the largest, at which it is last outside of the support: those that enter early
    matter. ``refit`` does the paper's second step, the least squares on what is kept. The path is exact up to 256
    channels; beyond, it is followed at 60 penalties down to a thousandth of the largest.
    """

    name: ClassVar[str] = "lasso"

    def scores_of(self, part: Contributions) -> Array:
        """f64[units of the domain]: see the class."""
        return path_scores(part.gram, part.target)


def path_scores(gram: Array, target: Array) -> Array:
    """f64[c]: the share of the largest penalty at which each channel last enters the LASSO path.

    Those that never enter have 0 and are told apart, far below the others, by what they would still explain.
    """
    alphas, factors = lasso_path(gram, target)
    size = len(gram)
    if not len(alphas) or alphas[0] <= 0:
        return by_order(np.argsort(np.diagonal(gram), kind="stable"), np.zeros(size))
    support = factors != 0  # [c, knots], penalties falling
    last_out = np.where(support.any(1), (support.shape[1] - 1) - (~support[:, ::-1]).argmax(1), -1)
    whole = support.all(1)
    entered = support[:, -1]
    level = np.where(whole, 1.0, alphas[np.clip(last_out, 0, len(alphas) - 1)] / alphas[0])
    if size > MANY:  # of those that enter between the same two penalties, the largest factor was first
        first = np.abs(factors[np.arange(size), np.minimum(last_out + 1, len(alphas) - 1)])
        level = level * (1 + 1e-6 * first / (first.max() or 1.0))
    left = np.abs(target - gram @ factors[:, -1])
    rest = left / (left.max() or 1.0) * 1e-9
    return np.where(entered, np.maximum(level, 1e-8), rest)


def lasso_path(gram: Array, target: Array) -> tuple[Array, Array]:
    """(penalties, factors [c, knots]) of min 1/2 |y - A b|^2 + alpha |b|_1 for falling alpha, by least angles.

    For many channels at penalties of a grid, by coordinate descent, each from the solution before.
    """
    from sklearn.linear_model import lars_path_gram

    size = len(gram)
    ridge = gram + np.eye(size) * 1e-10 * (np.trace(gram) / max(size, 1) or 1.0)  # twins have one solution then
    if size > MANY:
        return grid_path(ridge, target)
    alphas, _, factors = lars_path_gram(
        Xy=target, Gram=ridge, n_samples=1, method="lasso", max_iter=8 * size + 8, copy_Gram=False, return_path=True
    )
    return np.asarray(alphas), np.asarray(factors)


def grid_path(gram: Array, target: Array) -> tuple[Array, Array]:
    """``lasso_path`` at penalties of a geometric grid; every channel stays outside at the first."""
    import warnings

    from scipy.linalg import cholesky, solve_triangular
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import lasso_path as followed

    size, top = len(gram), float(np.abs(target).max())
    if top <= 0:
        return np.zeros(1), np.zeros((size, 1))
    scale = float(np.trace(gram)) / size
    factor = cholesky(gram / scale + np.eye(size) * RIDGE)  # upper: data of which gram is the Gram matrix
    known = target / scale
    penalties = top / scale * np.geomspace(1.0, LEAST, GRID)
    with warnings.catch_warnings():  # a rank is wanted, not digits
        warnings.simplefilter("ignore", ConvergenceWarning)
        alphas, factors, _ = followed(
            factor, solve_triangular(factor, known, trans=1), alphas=penalties / size, precompute=factor.T @ factor,
            Xy=known, tol=TOLERANCE, max_iter=ROUNDS, check_input=False, copy_X=False,
        )  # fmt: skip
    return np.asarray(alphas) * size * scale, np.asarray(factors)
