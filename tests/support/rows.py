"""Weights whose rows keep one of each block of 2^power columns, as DARB leaves them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from secateur.ir import Array


def darb(powers: Sequence[int], rows: int, columns: int, seed: int) -> Array:
    """Rows of these powers, again and again, -1 without weights: one somewhere in each block, with a few left out."""
    rng, found = np.random.default_rng(seed), np.zeros((rows, columns), np.float32)
    for row in range(rows):
        power = powers[row % len(powers)]
        for start in range(0, columns, 1 << power) if power >= 0 else ():
            if rng.random() < 0.95:
                found[row, start + rng.integers(0, min(1 << power, columns - start))] = rng.uniform(0.1, 0.4)
    return found
