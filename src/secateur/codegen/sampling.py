"""Resizing, axis by axis: which input positions each output position reads, and with what weight (ONNX's Resize)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

Taps = Sequence[Sequence[tuple[int, float]]]

_ROUND: Mapping[str, Callable[[float], int]] = MappingProxyType(
    {
        "floor": math.floor,
        "ceil": math.ceil,
        "round_prefer_ceil": lambda p: math.floor(p + 0.5),
        "round_prefer_floor": lambda p: math.ceil(p - 0.5),
    }
)


def axis_taps(a: Mapping[str, Any], axis: int, rank: int, before: int, after: int) -> Taps | None:
    """For each output position (input position, weight) pairs, inside of the input; None where nothing changes."""
    size, scales = a["size"], a["scales"]
    k = axis - rank + len(size if size is not None else scales)
    if k < 0:
        return None
    scale = float(scales[k]) if scales is not None else after / before
    if after == before and scale == 1:
        return None
    found = []
    for position in _positions(before, after, scale, a["coordinate"]):
        at = min(max(position, 0.0), before - 1.0) if a["mode"] == "linear" else position
        found.append([(min(max(i, 0), before - 1), w) for i, w in _taps(at, a["mode"], a["rounding"])])
    return found


def _positions(size: int, out: int, scale: float, coordinate: str) -> list[float]:
    if coordinate == "align_corners":
        return [i * ((size - 1) / (out - 1)) if out > 1 else 0.0 for i in range(out)]
    if coordinate == "asymmetric":
        return [i / scale for i in range(out)]
    if coordinate == "pytorch_half_pixel" and out == 1:
        return [0.0]
    if coordinate == "half_pixel_symmetric":
        offset = size / 2 * (1 - out / (size * scale))
        return [offset + (i + 0.5) / scale - 0.5 for i in range(out)]
    if coordinate == "tf_half_pixel_for_nn":
        return [(i + 0.5) / scale for i in range(out)]
    return [(i + 0.5) / scale - 0.5 for i in range(out)]


def _taps(position: float, mode: str, rounding: str) -> list[tuple[int, float]]:
    if mode == "nearest":
        return [(_ROUND[rounding](position), 1.0)]
    low = math.floor(position)
    t = position - low
    if mode == "linear":
        return [(low, 1 - t), (low + 1, t)]
    c = -0.75
    far = [c * d**3 - 5 * c * d**2 + 8 * c * d - 4 * c for d in (t + 1, 2 - t)]
    near = [(c + 2) * d**3 - (c + 3) * d**2 + 1 for d in (t, 1 - t)]
    return [(low - 1, far[0]), (low, near[0]), (low + 1, near[1]), (low + 2, far[1])]
