"""ThiNet: Luo, Wu and Lin, "ThiNet: A Filter Level Pruning Method for Deep Neural Network Compression", ICCV 2017."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Array

from .positions import by_order
from .reconstruction import Contributions, OfReaders


@dataclass(frozen=True)
class ThiNet(OfReaders):
    """Order in which units leave when each step adds least to the error of the layers that read them (ThiNet, 2017).

    The greedy choice of the paper, exact over all sampled positions (Gram form) rather than over drawn outputs. A
    unit's score is the relative error that its removal adds, or the largest before it, so scores rise along the order
    and compare across layers.
    """

    name: ClassVar[str] = "thinet"

    def scores_of(self, part: Contributions) -> Array:
        """f64[units of the domain]: see the class."""
        return by_order(*removal_order(part.gram))


def removal_order(gram: Array) -> tuple[Array, Array]:
    """(units in the order in which they go, what each adds to 1_T' G 1_T); ties go to the lower index.

    ``gram``: f64[c, c]. One step costs O(c): the increment of j is G[j, j] + 2 sum of G[j, T].
    """
    size = len(gram)
    cross, diagonal = np.zeros(size), np.diagonal(gram).copy()
    order, added = np.empty(size, np.int64), np.empty(size)
    for step in range(size):
        j = int(np.argmin(diagonal + cross))
        order[step], added[step] = j, diagonal[j] + cross[j]
        cross += 2 * gram[j]
        diagonal[j] = np.inf
    return order, added
