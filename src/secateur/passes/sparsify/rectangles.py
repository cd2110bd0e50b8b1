"""Blocks of R x C weights that stay or go together (block pruning; Narang et al., 2017), by their sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Array, InputError

from .pattern import Mask, Pattern, kept_of, padded


@dataclass(frozen=True)
class Rectangles(Pattern):
    """``rows`` outputs x ``columns`` inputs, the most important of the whole matrix."""

    name: ClassVar[str] = "RxC"
    rows: int
    columns: int

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise InputError(f"--block {self.rows}x{self.columns}: a block has a row and a column; write 8x1")

    def mask(self, importance: Array, sparsity: float) -> Mask:
        """The weights that stay. Blocks at the edge are as they are cut."""
        found = sums(importance, self.rows, self.columns)
        sizes = sums(np.ones(importance.shape), self.rows, self.columns).reshape(-1)
        order = np.argsort(-found.reshape(-1), kind="stable")
        kept = np.zeros(found.size, bool)
        kept[order[np.cumsum(sizes[order]) <= kept_of(importance.size, sparsity)]] = True
        return spread(kept.reshape(found.shape), self.rows, self.columns, importance.shape)


def sums(matrix: Array, rows: int, columns: int) -> Array:
    """[blocks down, blocks across]: the sum of each block."""
    wide = padded(matrix, rows, columns)
    found: Array = wide.reshape(wide.shape[0] // rows, rows, wide.shape[1] // columns, columns).sum((1, 3))
    return found


def spread(kept: Mask, rows: int, columns: int, shape: tuple[int, ...]) -> Mask:
    """The weights of these blocks."""
    found: Mask = np.repeat(np.repeat(kept, rows, 0), columns, 1)[: shape[0], : shape[1]]
    return found
