"""BMWM, block max weight masking: the largest of each block of neighbours stays (Ren et al., DARB, AAAI 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from secateur.ir import Array

from .pattern import Mask, Pattern, cannot, kept_of, largest

LONGEST = 64  # weights of a block: six bits of index


def block_max(importance: Array, size: int) -> Mask:
    """The first most important of each ``size`` neighbours of a row, ceil(columns / size) a row."""
    rows, columns = importance.shape
    wide = np.full((rows, columns + -columns % size), -1.0)  # what follows the end of a row is never the largest
    wide[:, :columns] = importance
    found = largest(wide.reshape(rows, -1, size), 1).reshape(rows, -1)
    return np.ascontiguousarray(found[:, :columns])


@dataclass(frozen=True)
class BMWM(Pattern):
    """Blocks of one length for the whole layer, or of two that differ by one where the share needs it.

    The paper's blocks have one length B and keep 1 / B. Here a row of n weights keeps k of them, the largest of each of
    k blocks; block i begins at floor(i n / k). Where k divides n that is the paper's pattern.
    """

    name: ClassVar[str] = "bmwm"
    nested: ClassVar[bool] = False  # blocks of three do not fit into blocks of four

    def mask(self, importance: Array, sparsity: float) -> Mask:
        """The weights that stay. Raises InputError beyond blocks of 64."""
        return self.toward(importance, sparsity, sparsity)

    def toward(self, importance: Array, share: float, sparsity: float) -> Mask:
        """Of each block of the end as many as have to stay, one at least."""
        starts, sizes = self._blocks(importance.shape[1], sparsity)
        counts = np.maximum(np.ceil(sizes * (1 - share) - 1e-9), 1) if share < sparsity else np.ones(len(sizes))
        columns = starts[:, None] + np.arange(sizes.max(initial=0))
        inside = columns < (starts + sizes)[:, None]
        wide = np.where(inside, importance[:, np.where(inside, columns, 0)], -1.0)
        places = np.argsort(np.argsort(-wide, axis=-1, kind="stable"), axis=-1)
        found = np.zeros(importance.shape, bool)
        found[:, columns[inside]] = (places < counts[:, None])[:, inside]
        return found

    def _blocks(self, columns: int, sparsity: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where blocks begin, and how long they are."""
        count = kept_of(columns, sparsity)
        if columns > count * LONGEST:
            share = 1 - -(-columns // LONGEST) / columns
            why = f"blocks of {LONGEST} remove {share:.2%} at most of rows of {columns}; ask for that"
            raise cannot(self.name, sparsity, why)
        ends = np.arange(count + 1) * columns // max(count, 1)
        return ends[:-1], np.diff(ends)
