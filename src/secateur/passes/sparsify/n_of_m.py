"""N:M: of each M neighbouring weights of a row N stay (Mishra et al., 2021: 2:4 of sparse tensor cores)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Array, InputError

from .pattern import Mask, Pattern, cannot, largest, padded


@dataclass(frozen=True)
class NOfM(Pattern):
    """``n`` of each ``m``. What is left at the end of a row counts as if zeros followed."""

    name: ClassVar[str] = "N:M"
    n: int
    m: int

    def __post_init__(self) -> None:
        if not 0 < self.n < self.m:
            raise InputError(f"--block {self.n}:{self.m}: of M neighbours N stay, so 0 < N < M; write 2:4")

    def mask(self, importance: Array, sparsity: float) -> Mask:
        """The weights that stay. Raises InputError unless the share is that of the pattern, 1 - n / m."""
        if abs(sparsity - (1 - self.n / self.m)) > 0.005:
            why = f"{self.n} of {self.m} stay, which is {1 - self.n / self.m:.2%}; ask for that, or leave it to auto"
            raise cannot(f"{self.n}:{self.m}", sparsity, why)
        return self._largest(importance, self.n)

    def toward(self, importance: Array, share: float, sparsity: float) -> Mask:
        """As many of each ``m`` as have to stay, ``n`` at least."""
        return self._largest(importance, max(self.n, int(np.ceil(self.m * (1 - share) - 1e-9))))

    def _largest(self, importance: Array, count: int) -> Mask:
        rows, columns = importance.shape
        blocks = padded(importance, 1, self.m).reshape(rows, -1, self.m)
        return np.ascontiguousarray(largest(blocks, count).reshape(rows, -1)[:, :columns])
