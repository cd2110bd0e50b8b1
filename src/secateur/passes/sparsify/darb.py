"""DARB, density-adaptive regular blocks: each row has blocks of its own size (Ren et al., AAAI 2020).

The paper takes from the density of each row after irregular pruning a power of two, and does not say how it rounds.
Here the sizes solve what that stands for: with 2^b weights a block in row i, ceil(columns / 2^b) stay and the rest of
the row's importance is lost; the least loss under a number of weights is a knapsack with one choice a row, solved along
the lower convex hulls of all rows (exact where the budget is met at a corner, and at most one row's step from it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from secateur.ir import Array

from .bmwm import LONGEST, block_max
from .pattern import Mask, Pattern, cannot, kept_of

BITS = LONGEST.bit_length()  # sizes 1, 2, .. 64


@dataclass(frozen=True)
class DARB(Pattern):
    """A power of two a row."""

    name: ClassVar[str] = "darb"

    def mask(self, importance: Array, sparsity: float) -> Mask:
        """The weights that stay. Raises InputError beyond blocks of 64."""
        return masks([importance], sparsity)[0]


def masks(layers: Sequence[Array], sparsity: float) -> list[Mask]:
    """The same over the rows of several layers under one budget: rows and layers that are denser keep more."""
    options = [[block_max(layer, 1 << b) for b in range(BITS)] for layer in layers]
    losses = [np.stack([np.where(m, 0, x).sum(1) for m in each], 1) for x, each in zip(layers, options, strict=True)]
    counts = [np.stack([m.sum(1) for m in each], 1) for each in options]
    allowed = kept_of(sum(x.size for x in layers), sparsity)
    least = sum(int(c[:, -1].sum()) for c in counts)
    if least > allowed:
        total = max(1, sum(x.size for x in layers))
        why = f"blocks of {LONGEST} remove {1 - least / total:.2%} at most here; ask for that"
        raise cannot(DARB.name, sparsity, why)
    chosen = sizes(np.concatenate(losses), np.concatenate(counts), allowed)
    found, first = [], 0
    for layer, each in zip(layers, options, strict=True):
        mine = chosen[first : first + len(layer)]
        first += len(layer)
        rows = np.arange(len(layer))
        found.append(np.stack(each)[mine, rows] if len(layer) else np.zeros(layer.shape, bool))
    return found


def sizes(losses: Array, counts: NDArray[np.int64], allowed: int) -> NDArray[np.int64]:
    """The option of each row of [rows, options] that loses least in all, ``allowed`` weights in all.

    Options fall in count and rise in loss. All rows begin at their last one; steps along the lower hulls are taken,
    those that save most a weight first, as long as they fit.
    """
    chosen = np.full(len(losses), losses.shape[1] - 1)
    steps = [step for row in range(len(losses)) for step in _hull(row, losses[row], counts[row])]
    steps.sort(key=lambda s: -s[0])
    left, stopped = allowed - int(counts[:, -1].sum()), set[int]()
    for _, row, option in steps:
        price = int(counts[row, option] - counts[row, chosen[row]])
        if row in stopped or price > left:
            stopped.add(row)  # later steps of the row build on this one
            continue
        chosen[row], left = option, left - price
    return chosen


def _hull(row: int, losses: Array, counts: NDArray[np.int64]) -> list[tuple[float, int, int]]:
    """(loss saved a weight, row, option) of each step from the last option along the lower hull, falling."""
    found, at = [], len(losses) - 1
    while at > 0:
        rates = [(_rate(float(losses[at] - losses[o]), int(counts[o] - counts[at])), o) for o in range(at)]
        rate, option = max(rates, key=lambda pair: (pair[0], -pair[1]))
        if rate <= 0:
            break
        found.append((float(rate), row, option))
        at = option
    return found


def _rate(saved: float, price: int) -> float:
    """Loss saved for each weight more; what costs none comes first."""
    if price > 0:
        return saved / price
    return float("inf") if saved > 0 else -1.0
