"""The repair of a layer that lost columns, solved anew: an oracle."""

from __future__ import annotations

import numpy as np

from secateur.ir import Array


def repaired(second: Array, weight: Array, gone: Array, ridge: float) -> float:
    """The least of |W' - W|^2 in the damped moments over all W' whose columns ``gone`` are zero."""
    damped = second + ridge * np.trace(second) / len(second) * np.eye(len(second))
    keep = ~gone
    moved = np.zeros_like(weight)
    moved[:, keep] = np.linalg.solve(damped[np.ix_(keep, keep)], (weight @ damped)[:, keep].T).T
    return float(np.einsum("oc,cd,od->", moved - weight, damped, moved - weight))
