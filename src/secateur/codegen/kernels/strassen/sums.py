"""Strassen's matrix product in Winograd's form: sums of weights, and how a strip of an image lies in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .spec import StrassenChoice, StrassenSpec

PRODUCTS = 7
LIMIT = 2e-5  # of an output channel's largest: a layer that strays further is computed directly
SAMPLE = 8  # pairs of pixels by which it is judged
Floats = NDArray[np.float32]


def weight_sums(weight: Floats) -> list[Floats]:
    """[o, i] -> B11, B21, T2, T3, -T4, T1, B22, each [o/2, i/2], in the order in which the kernel reads them.

    Bjk takes the j-th half of the inputs to the k-th half of the outputs.
    """
    o, i = weight.shape[0] // 2, weight.shape[1] // 2
    wide = weight.astype(np.float64)  # so that each sum is rounded once
    b11, b12, b21, b22 = wide[:o, :i], wide[o:, :i], wide[:o, i:], wide[o:, i:]
    t1 = b12 - b11
    t2 = b22 - t1
    return [b.astype(np.float32) for b in (b11, b21, t2, b22 - b12, b21 - t2, t1, b22)]


def error(weight: Floats) -> float:
    """The largest error of float32 over the largest number of its output channel, on rectified normal numbers.

    Channels are judged each by itself: the products mix small ones with large ones, and a later layer may enlarge them.
    """
    a = np.maximum(np.random.default_rng(0).standard_normal((2 * SAMPLE, weight.shape[1]), np.float32), 0)
    half = weight.shape[1] // 2
    a11, a12, a21, a22 = a[:SAMPLE, :half], a[:SAMPLE, half:], a[SAMPLE:, :half], a[SAMPLE:, half:]
    s1 = a21 + a22
    s2 = s1 - a11
    left = (a11, a12, s2, a11 - a21, a22, s1, a12 - s2)
    with np.errstate(over="ignore", invalid="ignore"):
        m1, c11, m6, m7, m4, m5, m3 = (x @ b.T for x, b in zip(left, weight_sums(weight), strict=True))
        u2 = m1 + m6
        found = np.block([[m1 + c11, u2 + m5 + m3], [u2 + m7 + m4, u2 + m7 + m5]])
        exact = a.astype(np.float64) @ weight.T.astype(np.float64)
        worst = np.abs(found - exact).max(0) / np.maximum(np.abs(exact).max(0), np.finfo(np.float32).tiny)
    return float(worst.max())


@dataclass(frozen=True)
class Strip:
    """Two halves of ``rows`` x ``columns`` pixels, and the scratch memory of their sums, in vectors.

    ``size`` rows (or pixels, where they lie as in one row) make a half; the second begins ``gap`` after the first.
    ``sums`` is [sum, block of inputs, pixel]; ``kept``, two tiles. Each of the ``copies`` is of one thread.
    """

    size: int
    gap: int
    last: int  # where the last strip begins
    count: int
    rows: int
    columns: int
    row: int  # floats from one row to the next, and from one pixel: as in the input, since one loop reads both
    column: int
    block: int  # from one block to the next: odd, or powers of two would meet in a few cache sets
    sums: int
    kept: int
    copies: int

    @property
    def vectors(self) -> int:
        """In all."""
        return (self.sums + self.kept) * self.copies


def strip(spec: StrassenSpec, choice: StrassenChoice) -> Strip:
    """The strip of a kernel."""
    extent, column = spec.extent, spec.x.column
    size = min(choice.size, -(-extent // 2))
    rows, columns = (1, size) if spec.flat else (size, spec.w)
    row = columns * column if rows == 1 else spec.x.row
    block = rows * (row // spec.lanes) | 1
    return Strip(
        size, min(size, extent - size), max(0, extent - 2 * size), -(-extent // (2 * size)), rows, columns,
        row, column, block,
        4 * (spec.inputs // 2) * block, 2 * choice.nb * choice.rows * choice.columns,
        spec.threads,
    )  # fmt: skip
