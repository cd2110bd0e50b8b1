"""One budget of zeros for a whole network: which layer loses how many of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from secateur.ir import Array, InputError

from .fit import TINY, Quadratic
from .pattern import Pattern
from .prune import path

SHARES = (0.25, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
STEP = 0.01  # of a layer's weights


@dataclass(frozen=True)
class Curve:
    """What a layer of ``size`` weights, or of as many multiply-accumulates, loses: shares of zeros, from 0 on, and the
    relative error of its outputs, or how far it moves the network's.
    """  # fmt: skip

    size: int
    shares: tuple[float, ...]
    losses: tuple[float, ...]


def curve(loss: Quadratic, weight: Array, pattern: Pattern, reach: float | None = None) -> Curve:
    """The curve of a layer, weights f[groups, outputs, columns], at ``SHARES`` as far as the pattern expresses them.

    ``reach``: what the network's outputs lose for each loss of the layer; without it, losses are relative to the layer.
    """
    start, weights = loss.loss(weight), weight.astype(np.float64)
    factor = 1 / max(-start, TINY) if reach is None else reach  # the loss of weights that are all zero is 0
    found = [(0.0, 0.0)]
    steps = [SHARES] if pattern.nested else [(share,) for share in SHARES]
    try:
        for shares in steps:
            for share, (now, _) in zip(shares, path(loss, weights, pattern, shares), strict=True):
                found.append((share, (loss.loss(now) - start) * factor))
    except InputError:  # a share that short rows cannot express; smaller ones are known
        pass
    return Curve(weight.size, tuple(s for s, _ in found), tuple(y for _, y in found))


def divided(curves: Mapping[str, Curve], sparsity: float) -> dict[str, float]:
    """The share of each layer, such that ``sparsity`` of what sizes count goes and the sum of relative errors is least.

    Along the lower convex hulls of the curves in steps of a hundredth, the cheapest for its size first. Raises
    InputError where the layers together cannot lose as much.
    """
    steps = [step for name, layer in curves.items() for step in _steps(name, layer)]
    asked = sparsity * sum(layer.size for layer in curves.values())
    shares, gone = dict.fromkeys(curves, 0.0), 0.0
    for _, name, width in sorted(steps, key=lambda s: s[0]):
        if gone >= asked - 1e-9:
            break
        taken = min(width, (asked - gone) / curves[name].size)
        shares[name] += taken
        gone += taken * curves[name].size
    if gone < asked - 1e-6:
        most = gone / max(1, sum(layer.size for layer in curves.values()))
        raise InputError(f"sparsify: one budget for all layers removes {most:.1%} at most here; ask for that")
    return shares


def _steps(name: str, layer: Curve) -> list[tuple[float, str, float]]:
    """(loss for each weight, layer, share) of steps along the lower hull: they become dearer."""
    grid = np.append(np.arange(0, layer.shares[-1] - STEP / 2, STEP), layer.shares[-1])
    losses = np.interp(grid, *_hull(layer))
    widths = np.diff(grid)
    rates = np.maximum.accumulate(np.diff(losses) / (widths * layer.size)) if len(widths) else widths
    return [(float(r), name, float(w)) for r, w in zip(rates, widths, strict=True)]


def _hull(layer: Curve) -> tuple[list[float], list[float]]:
    """Corners of the lower convex hull."""
    corners: list[tuple[float, float]] = []
    for x, y in zip(layer.shares, layer.losses, strict=True):
        while len(corners) > 1 and _above(corners[-2], corners[-1], (x, y)):
            corners.pop()
        corners.append((x, y))
    return [x for x, _ in corners], [y for _, y in corners]


def _above(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    """Does b lie on or above the line from a to c?"""
    return (b[1] - a[1]) * (c[0] - a[0]) >= (c[1] - a[1]) * (b[0] - a[0])
