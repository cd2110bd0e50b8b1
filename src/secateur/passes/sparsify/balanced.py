"""Balanced blocks of V outputs x 1 input, as many in each row of blocks: what the block-sparse kernels run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from secateur.ir import Array, InputError

from .pattern import Mask, Pattern, kept_of, largest
from .rectangles import spread, sums


@dataclass(frozen=True)
class Balanced(Pattern):
    """V is ``outputs``, the width of the target's vectors.

    Each row of blocks keeps as many (Yao et al., Balanced sparsity, AAAI 2019, for blocks), so that threads and
    registers are as busy in one as in another.
    """

    name: ClassVar[str] = "auto"
    outputs: int

    def __post_init__(self) -> None:
        if self.outputs < 1:
            raise InputError(f"balanced blocks of {self.outputs} outputs: a block has one at least")

    def mask(self, importance: Array, sparsity: float) -> Mask:
        """The weights that stay."""
        found = sums(importance, self.outputs, 1)
        return spread(largest(found, kept_of(found.shape[1], sparsity)), self.outputs, 1, importance.shape)
