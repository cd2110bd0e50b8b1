"""Winograd's fast convolution, the mathematics: points, matrices, transformed weights, and how far float32 strays.

F(m x m, 3x3) makes a tile of m x m outputs from t x t inputs, t = m + 2, with t*t products instead of 9*m*m (Lavin and
Gray, "Fast Algorithms for Convolutional Neural Networks", 2015). In one dimension ``y = A^T [(G g) * (B^T d)]``: the
filter g and the inputs d are polynomials that are evaluated at t - 1 points and at infinity, multiplied there, and put
together again (Toom and Cook). Points come in pairs p and -p besides 0, so that a transform splits into an even and an
odd half. The points decide the error: 3/4 and 3/2 give a fifth of what the usual 1 and 2 give (``bench/winograd.py``),
and they and their squares are exact in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from .spec import WinogradChoice, WinogradSpec

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]
Pairs = tuple[float, ...]

PAIRS: Mapping[int, Pairs] = MappingProxyType({2: (1.0,), 4: (0.75, 1.5)})  # by m
LIMIT = 2e-5  # of the largest output: a layer that strays further is computed directly
SAMPLE = 8  # tiles by which it is judged


def even_part(pairs: Pairs) -> Doubles:
    """The coefficients of the product of (z - p*p), the constant first: a polynomial in z = x*x."""
    return np.atleast_1d(np.poly([p * p for p in pairs]))[::-1].astype(np.float64)


def input_matrix(pairs: Pairs) -> Doubles:
    """B^T [t, t]: a row for the point 0, then one each for p and -p of every pair, the last for infinity.

    The row of a point holds the coefficients of the polynomial that is 0 at all others.
    """
    t = 2 * len(pairs) + 2
    matrix = np.zeros((t, t))
    matrix[0, 0::2] = matrix[-1, 1::2] = even_part(pairs)
    for i, p in enumerate(pairs):
        others = even_part(pairs[:i] + pairs[i + 1 :])
        for row, point in ((2 * i + 1, p), (2 * i + 2, -p)):
            matrix[row, 2::2], matrix[row, 1:-1:2] = others, point * others
    return matrix


def output_matrix(pairs: Pairs) -> Doubles:
    """A^T [m, t]: the powers of each point; infinity has the highest alone."""
    m = 2 * len(pairs)
    matrix = np.zeros((m, m + 2))
    matrix[:, :-1] = np.vander(_points(pairs), m, increasing=True).T
    matrix[-1, -1] = 1
    return matrix


def weight_matrix(pairs: Pairs) -> Doubles:
    """G [t, 3]: the powers of each point, over the value that its row of B^T has there."""
    points = _points(pairs)
    value = np.array([np.prod([p - q for q in points if q != p]) for p in points])
    return np.vstack([np.vander(points, 3, increasing=True) / value[:, None], [[0, 0, 1]]])


def _points(pairs: Pairs) -> list[float]:
    return [0.0, *(sign * p for p in pairs for sign in (1, -1))]


def transform(weight: NDArray[np.floating], pairs: Pairs) -> Doubles:
    """[o, i, 3, 3] -> G w G^T as [t*t, i, o], in float64."""
    o, i = weight.shape[:2]
    g = weight_matrix(pairs)
    return (np.kron(g, g) @ weight.astype(np.float64).reshape(o * i, 9).T).reshape(-1, o, i).transpose(0, 2, 1)


def error(weight: Floats, pairs: Pairs) -> float:
    """The largest error of float32 over the largest output, on tiles of rectified normal numbers, for [o, i, 3, 3].

    What the data decides is left out; filters whose taps cancel are found.
    """
    (o, i), m = weight.shape[:2], 2 * len(pairs)
    b, a = (f(pairs).astype(np.float32) for f in (input_matrix, output_matrix))
    tiles = np.maximum(np.random.default_rng(0).standard_normal((i, SAMPLE, m + 2, m + 2), np.float32), 0)
    moved = np.moveaxis((b @ tiles @ b.T).reshape(i, SAMPLE, -1), 2, 0)  # [t*t, i, tiles]
    taps = np.ascontiguousarray(weight.transpose(2, 3, 0, 1), np.float64)
    wide, exact = tiles.astype(np.float64), np.zeros((o, SAMPLE * m * m))
    for y, x in np.ndindex(3, 3):
        exact += taps[y, x] @ wide[:, :, y : y + m, x : x + m].reshape(i, -1)
    with np.errstate(over="ignore", invalid="ignore"):
        products = transform(weight, pairs).astype(np.float32).transpose(0, 2, 1) @ moved  # [t*t, o, tiles]
        found = a @ np.moveaxis(products, 0, 2).reshape(o, SAMPLE, m + 2, m + 2) @ a.T
        worst = np.abs(found.reshape(o, -1) - exact).max()
    return float(worst / max(np.abs(exact).max(), np.finfo(np.float32).tiny))


@dataclass(frozen=True)
class Strip:
    """Scratch memory of a strip of tiles, in vectors. Strides are odd, or powers of two would meet in a few cache sets.

    ``inputs`` is [point, block of inputs, tile], ``products`` [block of outputs, tile, point]. Each of the ``copies``
    is of one thread.
    """

    tiles: int
    point: int  # from one point of the inputs to the next
    tile: int  # from one tile of the products to the next
    inputs: int
    products: int
    copies: int

    @property
    def size(self) -> int:
        """Vectors in all."""
        return (self.inputs + self.products) * self.copies


def strip(spec: WinogradSpec, choice: WinogradChoice) -> Strip:
    """The strip of a kernel."""
    points, tiles = (choice.m + 2) ** 2, choice.strip
    point = spec.inputs * tiles | 1
    return Strip(tiles, point, points | 1, points * point, choice.nb * tiles * (points | 1), spec.threads)
