"""From numbers per position to one number per unit, and domains made comparable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from secateur.ir import Array
from secateur.passes.notes import Coupling


def mean_by_unit(size: int, parts: Iterable[tuple[Array, Array]]) -> Array:
    """f64[size]: each unit's mean over (units, values) pairs; NaN for a unit in none of them."""
    total, count = np.zeros(size), np.zeros(size)
    for units, values in parts:
        live = units >= 0
        np.add.at(total, units[live], values[live])
        np.add.at(count, units[live], 1.0)
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, total / count, np.nan)


def domains(coupling: Coupling) -> Iterator[tuple[int, Array]]:
    """(number, units in rising order) of every domain that has units to choose from."""
    free = np.flatnonzero(~coupling.frozen.astype(bool))
    for number in np.unique(coupling.domain[free]).tolist():
        yield number, free[coupling.domain[free] == number]


def over_mean(coupling: Coupling, scores: Array) -> Array:
    """Scores divided by the mean of their domain, so that domains can be compared; a domain of zeros stays."""
    result = scores.copy()
    for _, units in domains(coupling):
        known = units[~np.isnan(scores[units])]
        mean = float(np.abs(scores[known]).mean()) if len(known) else 0.0
        if mean > 0:
            result[known] = scores[known] / mean
    return result


def over_norm(coupling: Coupling, scores: Array) -> Array:
    """Scores divided by the Euclidean norm of their domain (Molchanov et al. 2017, section 2.2)."""
    result = scores.copy()
    for _, units in domains(coupling):
        known = units[~np.isnan(scores[units])]
        norm = float(np.sqrt((scores[known] ** 2).sum()))
        if norm > 0:
            result[known] = scores[known] / norm
    return result


def by_order(order: Array, added: Array) -> Array:
    """f64[n]: a score for each item of a removal order that rises strictly along it.

    ``added`` is what each step costs; a score is the largest cost so far, told apart by rank.
    """
    size = len(added)
    top = np.maximum.accumulate(np.maximum(added, 0.0)) if size else added
    scale = float(top[-1]) if size and top[-1] > 0 else 1.0
    scores = np.empty(size)
    scores[order] = top + scale * 1e-9 * np.arange(size) / max(size, 1)
    return scores
