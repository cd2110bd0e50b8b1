"""Choosing k of c by a quadratic programme: min -u'd + d'S d, d in {0, 1}^c, sum d = k, S positive semidefinite.

``solve`` relaxes, rounds and swaps.
"""

from __future__ import annotations

import numpy as np

from secateur.ir import Array

SWEEPS = 20
ITERATIONS = 200


def value(u: Array, s: Array, d: Array) -> float:
    """The objective."""
    return float(-(u @ d) + d @ s @ d)


def solve(u: Array, s: Array, k: int) -> Array:
    """bool[c]: a good choice of k: the relaxed programme, its largest entries, then swaps while they help."""
    if k <= 0 or k >= len(u):
        return np.full(len(u), k > 0)
    d, _ = relaxed(u, s, k)
    order = np.argsort(-d, kind="stable")
    chosen = np.zeros(len(u), bool)
    chosen[order[:k]] = True
    return swapped(u, s, chosen)


def relaxed(u: Array, s: Array, k: int, low: Array | None = None, high: Array | None = None) -> tuple[Array, float]:
    """(d in [low, high]^c with sum k, a lower bound of the objective): projected gradient with momentum (FISTA).

    The bound is that of the linearisation at d, which holds for every feasible point since S is positive semidefinite.
    """
    low = np.zeros(len(u)) if low is None else low
    high = np.ones(len(u)) if high is None else high
    step = 1.0 / max(2 * float(np.linalg.norm(s, 2)) if len(u) <= 64 else 2 * _largest(s), 1e-12)
    d = previous = project(np.full(len(u), k / len(u)), k, low, high)
    momentum = 1.0
    for _ in range(ITERATIONS):
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        at = d + (momentum - 1) / following * (d - previous)
        previous, momentum = d, following
        d = project(at - step * (2 * (s @ at) - u), k, low, high)
        if np.abs(d - previous).max() < 1e-9:
            break
    gradient = 2 * (s @ d) - u
    return d, value(u, s, d) + float(gradient @ (_lowest(gradient, k, low, high) - d))


def _largest(s: Array) -> float:
    """An upper bound of the largest eigenvalue: the least of the trace and the largest row sum."""
    return float(min(np.trace(s), np.abs(s).sum(1).max()))


def _lowest(gradient: Array, k: int, low: Array, high: Array) -> Array:
    """The feasible point with the least inner product with ``gradient``."""
    d = low.copy()
    left = k - d.sum()
    for i in np.argsort(gradient, kind="stable"):
        add = min(high[i] - low[i], left)
        d[i] += add
        left -= add
        if left <= 1e-12:
            break
    return d


def project(x: Array, k: float, low: Array, high: Array) -> Array:
    """The nearest point of [low, high]^c whose entries add up to k, by bisection on the shift."""
    a, b = float((low - x).min()), float((high - x).max())
    for _ in range(60):
        middle = (a + b) / 2
        if np.clip(x + middle, low, high).sum() < k:
            a = middle
        else:
            b = middle
    return np.clip(x + (a + b) / 2, low, high)


def swapped(u: Array, s: Array, chosen: Array) -> Array:
    """The choice after exchanging single members while the objective falls: O(c^2) a sweep."""
    d = chosen.astype(bool).copy()
    diagonal = np.diagonal(s)
    h = s @ d.astype(np.float64)
    for _ in range(SWEEPS * len(u)):
        inside, outside = np.flatnonzero(d), np.flatnonzero(~d)
        if not len(inside) or not len(outside):
            break
        add = -u[outside] + 2 * h[outside] + diagonal[outside]
        drop = u[inside] - 2 * h[inside] + diagonal[inside]
        change = add[:, None] + drop[None, :] - 2 * s[np.ix_(outside, inside)]
        at = int(change.argmin())
        k, i = outside[at // len(inside)], inside[at % len(inside)]
        if change.flat[at] >= -1e-12 * (1 + np.abs(u).max()):
            break
        d[k], d[i] = True, False
        h += s[k] - s[i]
    return d


def greedy(u: Array, s: Array, items: Array, before: Array) -> tuple[Array, Array]:
    """(``items`` in the order in which each adds least when all in ``before`` are chosen already, what each adds)."""
    h = 2 * s[:, before].sum(1)
    left = np.zeros(len(u), bool)
    left[items] = True
    order, added = np.empty(len(items), np.int64), np.empty(len(items))
    diagonal = np.diagonal(s)
    for step in range(len(items)):
        cost = np.where(left, -u + diagonal + h, np.inf)
        j = int(cost.argmin())
        order[step], added[step], left[j] = j, cost[j], False
        h += 2 * s[j]
    return order, added
