"""Scores whose sums are measured: what leaving units out, best repaired, does to the outputs of the network.

Sums of layer-wise costs foretell badly what a network answers: errors of neighbouring places are alike and add up in
the mean over a picture, and what one layer gets wrong the next may not see. So of every domain some shares of the units
are left out, the least scores first, no other domain's; the layers that read them are repaired as ``refit`` does, and
the network is run on a few examples. The scores of the units between two shares are scaled to add up to what was
measured between them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from secateur.ir import Array, Graph
from secateur.passes.context import context_of
from secateur.passes.notes import Coupling
from secateur.passes.sweep.needs import Moments, Statistics
from secateur.passes.sweep.read_sites import units_at

from .positions import domains
from .reconstruction import moment_needs

SHARES = (0.125, 0.25, 0.5, 0.75, 0.9)  # of a domain's units that are left out
EXAMPLES = 32
ROWS = 2  # times as many as a layer has columns: with fewer it keeps the weights of what it still reads
LEAST = 1e-9  # of the outputs' energy, that units between two shares are worth together


def measured(graph: Graph, coupling: Coupling, statistics: Statistics, scores: Array, ridge: float) -> Array:
    """f64[units]: the scores, scaled so. Errors are squared, as shares of the outputs' mean square."""
    from secateur.passes.sweep.outputs import Answers, apart, feeds  # which load torch

    calibration = context_of(graph).calibration
    assert calibration is not None, "there are statistics, so there are data"
    answers, found = Answers(graph, feeds(graph, calibration.data, EXAMPLES)), scores.copy()
    whole = answers({})

    def error(gone: Array) -> float:
        return apart(answers(without(graph, coupling, statistics, gone, ridge)), whole) ** 2

    for _, units in domains(coupling):
        known = units[~np.isnan(scores[units])]
        order = known[np.argsort(scores[known], kind="stable")]
        if len(order):
            found[order] = _scaled(scores[order], _errors(order, error))
    return found


def _errors(order: Array, error: Callable[[Array], float]) -> dict[int, float]:
    """By the number of units that are left out, from the first of ``order`` on: the error."""
    counts = sorted({round(share * len(order)) for share in SHARES} - {0})
    return {count: error(order[:count]) for count in counts}


def _scaled(scores: Array, errors: dict[int, float]) -> Array:
    """Rising scores, scaled so that the first ``count`` add up to an error; beyond the last count as before it."""
    found, begin, known, factor = scores.copy(), 0, 0.0, 1.0
    for count, error in errors.items():
        part, more = scores[begin:count], max(error - known, LEAST)
        total = float(part.sum())
        factor = more / total if total > 0 else factor
        found[begin:count] = part * factor if total > 0 else more / len(part)
        begin, known = count, max(known, error)
    found[begin:] = scores[begin:] * factor
    return np.maximum.accumulate(found)


def without(graph: Graph, coupling: Coupling, statistics: Statistics, gone: Array, ridge: float) -> dict[str, Array]:
    """Weights and biases of the layers that read these units: without them, those of what else is read make up best."""
    found: dict[str, Array] = {}
    for need in moment_needs(graph, coupling):
        _, units = units_at(graph, coupling, need.site)
        if not np.isin(units, gone).any():
            continue
        node, moments = graph.producer[need.site.node], statistics.of(need, Moments)
        name, of_bias = node.inputs[1] or "", node.inputs[2] if len(node.inputs) > 2 else None
        stored = graph.weights[name]
        weight = (stored.T if node.attrs.get("transposed", False) else stored).astype(np.float64)
        groups, columns = moments.first.shape
        seconds, means = moments.second / max(moments.rows, 1), moments.first / max(moments.rows, 1)
        parts, shifts = [], []
        for g, w in enumerate(weight.reshape(groups, -1, columns)):
            second, mean = seconds[g], means[g]
            seen = second if of_bias is None else second - np.outer(mean, mean)
            damped = seen + max(ridge * float(np.trace(second)) / columns, 1e-12) * np.eye(columns)
            keep = ~np.isin(np.repeat(units.reshape(groups, -1)[g], moments.taps), gone)
            moved = w * keep
            if moments.rows >= ROWS * columns:  # of fewer, what is fitted to them says nothing of others
                moved[:, keep] = np.linalg.solve(damped[np.ix_(keep, keep)], (w @ damped)[:, keep].T).T
            parts.append(moved)
            shifts.append((w - moved) @ mean)
        made = np.concatenate(parts).reshape(weight.shape)
        found[name] = np.ascontiguousarray(made.T if node.attrs.get("transposed", False) else made, stored.dtype)
        if of_bias is not None:
            bias = graph.weights[of_bias]
            found[of_bias] = (bias + np.concatenate(shifts)).astype(bias.dtype)
    return found
