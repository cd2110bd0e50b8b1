"""Resizing, axis by axis: which input positions each output position reads, and with what weight (ONNX's Resize).

Positions are computed in float32 and in the order of operations of the runtime that is the reference: 3 / 0.6 is 5
there and a little less in double precision, and then the nearest pixel is another one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from secateur.ir.graph import Attr

Float = np.float32
Taps = Sequence[Sequence[tuple[int, float]]]

INVERSE = "inverse"  # attribute of a resize node: multiply by 1 / scale, as torch does, where ONNX Runtime divides
_TIE = 1e-6  # what is so near to half-way between two pixels lies half-way


def _half_up(position: float) -> int:
    return math.floor(position + 0.5 + _TIE)


def _half_down(position: float) -> int:
    return math.ceil(position - 0.5 - _TIE)


_ROUND: Mapping[str, Callable[[float], int]] = MappingProxyType(
    {"floor": math.floor, "ceil": math.ceil, "round_prefer_ceil": _half_up, "round_prefer_floor": _half_down}
)


def taps(a: Mapping[str, Attr], before: Sequence[int], after: Sequence[int]) -> list[Taps | None]:
    """For each axis its taps; None where nothing changes, as along all axes of what keeps its shape."""
    if tuple(before) == tuple(after) and not a.get(INVERSE):
        return [None] * len(after)
    return [_axis_taps(a, k - len(after), *sizes) for k, sizes in enumerate(zip(before, after, strict=True))]


def _axis_taps(a: Mapping[str, Attr], axis: int, before: int, after: int) -> Taps | None:
    """For each output position (input position, weight) pairs, inside of the input. ``axis`` counts from the last."""
    sizes = a["size"] if a["size"] is not None else a["scales"]
    if axis < -len(sizes):
        return None
    scales = a["scales"]
    scale = float(scales[axis]) if scales is not None else after / before
    if after == before and scale == 1:
        return None
    if a.get(INVERSE):
        step = Float(1 / scale) if scales is not None else Float(before) / Float(after)
        return [[(i, 1.0)] for i in _as_torch(before, after, step, 0.0 if a["coordinate"] == "asymmetric" else 0.5)]
    found = []
    for position in _positions(before, after, Float(scale), a["coordinate"]):
        at = min(max(position, 0.0), before - 1.0) if a["mode"] == "linear" else position
        found.append([(min(max(i, 0), before - 1), w) for i, w in _taps(at, a["mode"], a["rounding"])])
    return found


def _as_torch(before: int, after: int, step: Float, shift: float) -> list[int]:
    """The nearest pixels as torch takes them, which has rules of its own for the same and for twice the size."""
    if shift == 0 and after in (before, 2 * before):
        return [i * before // after for i in range(after)]
    return [min(math.floor((Float(i) + Float(shift)) * step), before - 1) for i in range(after)]


def _positions(size: int, out: int, scale: Float, coordinate: str) -> list[float]:
    half, last = Float(0.5), Float(size - 1)
    every = [Float(i) for i in range(out)]
    if coordinate == "align_corners":
        return [float(i * last / Float(out - 1)) if out > 1 else 0.0 for i in every]
    if coordinate == "asymmetric":
        return [float(i / scale) for i in every]
    if coordinate == "pytorch_half_pixel" and out == 1:
        return [0.0]
    if coordinate == "half_pixel_symmetric":
        offset = float(Float(size) / Float(2) * (Float(1) - Float(out) / (scale * Float(size))))
        return [float(Float(offset + (i + 0.5) / float(scale) - 0.5)) for i in range(out)]  # ONNX Runtime's one double
    if coordinate == "tf_half_pixel_for_nn":
        return [float((i + half) / scale) for i in every]
    return [float((i + half) / scale - half) for i in every]


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
