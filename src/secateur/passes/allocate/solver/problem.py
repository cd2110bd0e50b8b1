"""The multiple-choice knapsack: one option for every group, least loss under one budget.

A layer costs the product of the widths on its two sides, so there are costs of single groups and of pairs of groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from secateur.ir import Array


@dataclass(frozen=True, eq=False)
class Problem:
    """``loss[g][k]``, ``cost[g][k]`` of option k of group g; ``pairs[a, b][i, j]``: what i in a and j in b add."""

    loss: Sequence[Array]
    cost: Sequence[Array]
    pairs: Mapping[tuple[int, int], Array]
    budget: float

    def pair(self, a: int, b: int) -> Array:
        """f64[options of a, options of b]: what the two cost together, beyond what each costs."""
        return self.pairs[a, b] if (a, b) in self.pairs else self.pairs[b, a].T

    def cost_of(self, chosen: Sequence[int]) -> float:
        """What a choice costs."""
        single = sum(float(c[k]) for c, k in zip(self.cost, chosen, strict=True))
        return single + sum(float(m[chosen[a], chosen[b]]) for (a, b), m in self.pairs.items())

    def loss_of(self, chosen: Sequence[int]) -> float:
        """What a choice loses."""
        return sum(float(v[k]) for v, k in zip(self.loss, chosen, strict=True))

    def scaled(self) -> Problem:
        """The same choices with losses of at most 1, and costs as shares of the budget."""
        top = max((float(np.abs(v).max()) for v in self.loss if len(v)), default=1.0) or 1.0
        scale = float(self.budget) if self.budget > 0 else 1.0
        return Problem(
            [np.asarray(v, float) / top for v in self.loss],
            [np.asarray(c, float) / scale for c in self.cost],
            {key: np.asarray(m, float) / scale for key, m in self.pairs.items()},
            float(self.budget) / scale,
        )
