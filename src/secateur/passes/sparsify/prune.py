"""Which weights go: greedy removal, with update of what remains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from secateur.ir import Array

from .balanced import Balanced
from .exchange import exchange
from .fit import STEPS, Quadratic
from .pattern import Mask, Pattern

FINE = 10  # rounds where they are affordable
AFFORDABLE = 1 << 34  # multiply-accumulates of a round: some seconds


def prune(loss: Quadratic, weight: Array, pattern: Pattern, sparsity: float, rounds: int) -> tuple[Array, Mask]:
    """Weights [groups, outputs, columns] with this share of zeros in a pattern, and which stay.

    Greedy removal with update of what remains, in ``rounds``, or in more where these are affordable; in each of them as
    large a share of what is left goes. Columns of balanced blocks are exchanged afterwards (``exchange``).
    """
    outputs, columns = weight.shape[0] * weight.shape[1], weight.shape[2]
    rounds = max(rounds, FINE) if outputs * columns**2 * STEPS <= AFFORDABLE else rounds
    rounds = max(rounds, FINE) if _exact(weight, pattern) else rounds
    shares = [1 - (1 - sparsity) ** (number / rounds) for number in range(1, rounds)]
    *_, (now, left) = path(loss, weight, pattern, [*shares, sparsity])
    if isinstance(pattern, Balanced) and pattern.columns == 1 and _exact(weight, pattern):
        left = exchange(loss, left, pattern.outputs)
        now = loss.solve(now, left)
    return now, left


def path(loss: Quadratic, weight: Array, pattern: Pattern, shares: Sequence[float]) -> Iterator[tuple[Array, Mask]]:
    """(weights, which stay) after each of rising shares: the least important go, and the others are solved again.

    ``Quadratic.importance`` says what is important; where outputs have the same mask in blocks, and the inverses of
    what is left are affordable, ``Quadratic.remaining``.
    """
    shape, left, now = weight.shape, np.ones(weight.shape, bool), weight.astype(np.float64)
    exact = _exact(weight, pattern)
    alike, together = (pattern.outputs, pattern.columns) if isinstance(pattern, Balanced) else (1, 1)
    for share in shares:
        worth = loss.remaining(now, left, alike, together) if exact else loss.importance(now, together)
        important = np.where(left, worth, 0.0).reshape(-1, shape[-1])
        left = left & pattern.toward(important, share, shares[-1]).reshape(shape)
        now = loss.solve(now, left)
        yield now, left


def _exact(weight: Array, pattern: Pattern) -> bool:
    """Do outputs have the same mask in blocks, whose inverses are affordable?"""
    groups, outputs, columns = weight.shape
    if not isinstance(pattern, Balanced) or pattern.outputs == 1:
        return False
    # Outputs are counted through the gates of a recurrent layer, with each of which blocks begin anew.
    if pattern.units not in (0, groups * outputs) and pattern.units % pattern.outputs:
        return False
    return bool(groups * -(-outputs // pattern.outputs) * columns**3 <= AFFORDABLE)
