"""Balanced blocks of V outputs, as many in each row of blocks: of single columns, or of all taps of an input.

The first are what the block-sparse kernels run, the second what Winograd's algorithm leaves out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Array, InputError

from .pattern import Mask, Pattern, kept_of, largest
from .rectangles import spread, sums

FEW = 8  # kernels of an output: with fewer a share of them is too coarse


@dataclass(frozen=True)
class Balanced(Pattern):
    """V is ``outputs``, the width of the target's vectors; ``columns`` follow each other and go together.

    ``units``: so many rows begin with a block of their own, as kernels take the gates of a recurrent layer; 0: all.
    Each row of blocks keeps as many (Yao et al., Balanced sparsity, AAAI 2019, for blocks), so that threads and
    registers are as busy in one as in another.
    """

    name: ClassVar[str] = "auto"
    outputs: int
    columns: int = 1
    units: int = 0

    def __post_init__(self) -> None:
        if self.outputs < 1 or self.columns < 1:
            raise InputError(f"balanced blocks of {self.outputs} outputs: a block has one at least")

    def mask(self, importance: Array, sparsity: float) -> Mask:
        """The weights that stay."""
        gates = importance.reshape(-1, self.units or len(importance), importance.shape[1])
        return np.concatenate([self._of_gate(gate, sparsity) for gate in gates])

    def of(self, taps: int, columns: int, units: int) -> Balanced:
        """Blocks that do not pass the end of a gate."""
        return Balanced(self.outputs, self.columns, units)

    def _of_gate(self, importance: Array, sparsity: float) -> Mask:
        found = sums(importance, self.outputs, self.columns)
        kept = largest(found, kept_of(found.shape[1], sparsity))
        return spread(kept, self.outputs, self.columns, importance.shape)


@dataclass(frozen=True)
class Kernels(Pattern):
    """Whole kernels: a block is all taps of an input for ``outputs`` outputs, in every row of blocks as many.

    Where a layer has fewer than ``FEW`` inputs a block is a single tap.
    """

    name: ClassVar[str] = "kernels"
    outputs: int

    def __post_init__(self) -> None:
        self.of(1, 1, 0)

    def of(self, taps: int, columns: int, units: int) -> Balanced:
        """The blocks of a layer."""
        return Balanced(self.outputs, taps if columns >= FEW * taps else 1, units)

    def mask(self, importance: Array, sparsity: float) -> Mask:
        """The weights that stay, of a layer with one tap."""
        return self.of(1, importance.shape[1], 0).mask(importance, sparsity)
