"""A layer seen as a matrix product: rows of its unfolded input, and of its output, at places drawn alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from secateur.ir import Array, Node

Tensor = torch.Tensor


def extent(x: Tensor, node: Node, kernel: Sequence[int], axis: int) -> tuple[int, ...]:
    """Along each axis of a layer's output but the batch and the channels: how long it is for this input.

    The data may have other sizes than the graph was captured at, where those are open.
    """
    if node.op != "conv":
        return tuple(size for a, size in enumerate(x.shape) if a not in (0, axis % x.dim()))
    pads, dims = node.attrs["pad"], len(kernel)
    wide = [size + pads[d] + pads[dims + d] for d, size in enumerate(x.shape[2:])]
    reach = [dilation * (taps - 1) for dilation, taps in zip(node.attrs["dilation"], kernel, strict=True)]
    return tuple((w - r - 1) // stride + 1 for w, r, stride in zip(wide, reach, node.attrs["stride"], strict=True))


def draw_places(sizes: Sequence[int], positions: int, rng: np.random.Generator) -> Array:
    """Which places of an output of this extent to look at: up to ``positions`` of them, in rising order."""
    size = math.prod(sizes)
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
    sizes = extent(x, node, kernel, axis)
    x = F.pad(x.float(), pads)
    at = np.stack(np.unravel_index(places, sizes)) * np.reshape(a["stride"], (dims, 1))
    parts = []
    for tap in np.ndindex(*kernel):
        shift = np.array([t * d for t, d in zip(tap, a["dilation"], strict=True)]).reshape(dims, 1)
        parts.append(x[(slice(None), slice(None), *torch.from_numpy(at + shift))])  # [n, channels, places]
    stacked = torch.stack(parts, 2)  # [n, channels, taps, places]
    return stacked.permute(0, 3, 1, 2).reshape(-1, stacked.shape[1] * stacked.shape[2])
