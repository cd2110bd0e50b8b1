"""Which units or connections stay, chosen directly: by share, by threshold, by number."""

from __future__ import annotations

import numpy as np

from secateur.ir import Array
from secateur.passes.allocate.select import by_score, by_share, climb, count_for_share
from secateur.passes.allocate.widths import stops
from secateur.passes.notes import Coupling


def select(
    coupling: Coupling,
    scores: Array,
    *,
    fraction: float | None = None,
    threshold: float | None = None,
    round_to: int = 1,
    floor: float = 0.0,
) -> Array:
    """bool[units]: keep ``fraction`` of every domain, or what scores at least ``threshold``, at widths that pay."""
    ladder = climb(coupling, scores, floor)
    if fraction is not None:
        order = by_share(ladder)
        count = count_for_share(ladder, order, fraction)
    else:
        order = by_score(ladder)
        least = -np.inf if threshold is None else threshold
        count = int(np.searchsorted(-ladder.score[order], -least, side="right"))
    return ladder.mask(stops(coupling, ladder, round_to).rounded(ladder.kept(order, count)))


def connection_sensitivity(weight: Array, gradient: Array) -> Array:
    """abs(w * g) over its sum: the score of single connections, adding up to 1 (all equal where all are 0)."""
    products = np.abs(weight.astype(np.float64) * gradient)
    total = products.sum()
    result: Array = products / total if total > 0 else np.full(products.shape, 1.0 / max(products.size, 1))
    return result


def top_connections(scores: Array, keep: int) -> Array:
    """bool[..]: the ``keep`` highest scores; among equals the first stay, so masks of rising ``keep`` are nested."""
    order = np.argsort(-scores.reshape(-1), kind="stable")
    mask = np.zeros(scores.size, bool)
    mask[order[:keep]] = True
    return mask.reshape(scores.shape)
