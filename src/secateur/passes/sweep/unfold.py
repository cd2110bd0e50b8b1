"""A layer seen as a matrix product: rows of its unfolded input, and of its output, at places drawn alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from secateur.ir import Array, Node

Tensor = torch.Tensor


def draw_places(node: Node, axis: int, positions: int, rng: np.random.Generator) -> Array:
    """Which places of a layer's output to look at: up to ``positions`` of them, in rising order."""
    size = math.prod(int(d) for a, d in enumerate(node.out.shape) if a not in (0, axis))
    return np.arange(size) if size <= positions else np.sort(rng.choice(size, positions, replace=False))


def points(x: Tensor, axis: int, places: Array) -> Tensor:
    """f32[examples * places, channels]: the channels of x at these places of each example."""
    flat = x.float().movedim(axis, -1).reshape(len(x), -1, x.shape[axis])
    return flat[:, torch.from_numpy(places)].reshape(-1, x.shape[axis])


def windows(x: Tensor, node: Node, kernel: Sequence[int], axis: int, places: Array) -> Tensor:
    """f32[examples * places, channels * taps]: what a layer reads for its output at these places of each example."""
    if node.op != "conv":
        return points(x, axis, places)
    a, dims = node.attrs, len(kernel)
    pads = [p for d in reversed(range(dims)) for p in (a["pad"][d], a["pad"][dims + d])]
    x = F.pad(x.float(), pads)
    at = np.stack(np.unravel_index(places, [int(d) for d in node.out.shape[2:]])) * np.reshape(a["stride"], (dims, 1))
    parts = []
    for tap in np.ndindex(*kernel):
        shift = np.array([t * d for t, d in zip(tap, a["dilation"], strict=True)]).reshape(dims, 1)
        parts.append(x[(slice(None), slice(None), *torch.from_numpy(at + shift))])  # [n, channels, places]
    stacked = torch.stack(parts, 2)  # [n, channels, taps, places]
    return stacked.permute(0, 3, 1, 2).reshape(-1, stacked.shape[1] * stacked.shape[2])
