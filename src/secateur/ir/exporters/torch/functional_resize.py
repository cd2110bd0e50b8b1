"""Resizing as ONNX defines it, for generated modules: coordinates, rounding, and one axis at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def _axis_positions(size: int, out: int, scale: float, coordinate: str, device: Any) -> Tensor:
    """Where each output position lies in the input, in ONNX's coordinate systems.

    In float32 and in ONNX Runtime's order of operations: 3 / 0.6 is 5 there, and a little less in double precision.
    """
    i = torch.arange(out, dtype=torch.float32, device=device)
    factor = torch.tensor(scale, dtype=torch.float32, device=device)
    if coordinate == "align_corners":
        return i * (size - 1) / (out - 1) if out > 1 else i * 0
    if coordinate == "asymmetric":
        return i / factor
    if coordinate == "pytorch_half_pixel" and out == 1:
        return i * 0
    if coordinate == "half_pixel_symmetric":
        share = torch.full_like(factor, out) / (
            factor * size
        )  # of a number and a tensor torch multiplies by 1 / tensor
        offset = size / 2 * (1 - share)
        return (offset.double() + (i.double() + 0.5) / factor.double() - 0.5).float()  # the one that is in doubles
    if coordinate == "tf_half_pixel_for_nn":
        return (i + 0.5) / factor
    return (i + 0.5) / factor - 0.5


_TIE = 1e-6  # what is so near to half-way between two pixels lies half-way


def _rounded(position: Tensor, rounding: str) -> Tensor:
    if rounding == "floor":
        return position.floor()
    if rounding == "ceil":
        return position.ceil()
    if rounding == "round_prefer_ceil":
        return (position.double() + 0.5 + _TIE).floor()
    return (position.double() - 0.5 - _TIE).ceil()


def _cubic(t: Tensor, a: float = -0.75) -> list[Tensor]:
    """Weights of the four neighbours at distance t from the second."""
    far = [a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a for d in (t + 1, 2 - t)]
    near = [(a + 2) * d**3 - (a + 3) * d**2 + 1 for d in (t, 1 - t)]
    return [far[0], near[0], near[1], far[1]]


def _scaled(size: int, scale: float) -> int:
    """The size of what is resized by a scale: in float32 if that is what the scale is, as in ONNX, else in double."""
    both = torch.tensor([size, scale], dtype=torch.float32)
    return math.floor(both.prod().item() if both[1].item() == scale else size * scale)


def resize(
    x: Tensor, mode: str, size: Sequence[int] | None, scales: Sequence[float] | None, coordinate: str, rounding: str
) -> Tensor:
    """Resize one axis after another in any of ONNX's coordinate systems."""
    d = len(size if size is not None else scales or ())
    first = x.dim() - d
    before = x.shape[first:]
    after = list(size) if size is not None else [_scaled(n, s) for n, s in zip(before, scales or (), strict=True)]
    if after == list(before):  # as ONNX Runtime has it, whatever the scales
        return x
    for k, (n, out) in enumerate(zip(before, after, strict=True)):
        axis = first + k
        scale = float(scales[k]) if scales is not None else out / n
        if out == n and scale == 1:
            continue
        x = _resize_axis(x, axis, _axis_positions(n, out, scale, coordinate, x.device), mode, rounding)
    return x


def _resize_axis(x: Tensor, axis: int, position: Tensor, mode: str, rounding: str) -> Tensor:
    n = x.shape[axis]
    if mode == "nearest":
        return x.index_select(axis, _rounded(position, rounding).long().clamp(0, n - 1))
    if mode == "linear":
        position = position.clamp(0, n - 1)
    position = position.double()  # one rounding of each weight
    low = position.floor()
    t = position - low
    weights, offsets = ([1 - t, t], (0, 1)) if mode == "linear" else (_cubic(t), (-1, 0, 1, 2))
    view = [1] * x.dim()
    view[axis] = -1
    total: Tensor | None = None
    for weight, offset in zip(weights, offsets, strict=True):
        part = x.index_select(axis, (low.long() + offset).clamp(0, n - 1)) * weight.to(x.dtype).view(view)
        total = part if total is None else total + part
    assert total is not None
    return total
