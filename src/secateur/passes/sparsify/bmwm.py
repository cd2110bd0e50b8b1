"""BMWM, block max weight masking: the largest of each block of B neighbours stays (Ren et al., DARB, AAAI 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Array

from .pattern import Mask, cannot, kept_of, largest

LONGEST = 64  # weights of a block: six bits of index


def block_max(importance: Array, size: int) -> Mask:
    """The first most important of each ``size`` neighbours of a row, ceil(columns / size) a row."""
    rows, columns = importance.shape
    wide = np.full((rows, columns + -columns % size), -1.0)  # what follows the end of a row is never the largest
    wide[:, :columns] = importance
    found = largest(wide.reshape(rows, -1, size), 1).reshape(rows, -1)
    return np.ascontiguousarray(found[:, :columns])


@dataclass(frozen=True)
class BMWM:
    """One block size for the whole layer: the least that removes as much as is asked for."""

    name: ClassVar[str] = "bmwm"

    def mask(self, importance: Array, sparsity: float) -> Mask:
        """The weights that stay. Raises InputError beyond blocks of 64."""
        columns, size = max(importance.shape[1], 1), 1
        while size < LONGEST and -(-columns // size) > kept_of(columns, sparsity):
            size += 1
        share = 1 - -(-columns // size) / columns
        if share < sparsity - 1e-9:
            why = f"blocks of {LONGEST} remove {share:.2%} at most of rows of {columns}; ask for that"
            raise cannot(self.name, sparsity, why)
        return block_max(importance, size)
