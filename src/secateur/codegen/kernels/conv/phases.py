"""Transposed convolutions as plain ones, one for each residue of the output's position modulo the stride.

Output o = i * stride - pad + k * dilation, so the outputs o = q * stride + r read the taps k with
k * dilation = r + pad (mod stride), at inputs q + (r + pad - k * dilation) / stride: the taps are every
stride / gcd(stride, dilation)-th one, in falling order of k as the input rises.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from secateur.codegen.plan.program import Attrs


@dataclass(frozen=True)
class Phase:
    """Along one axis: outputs ``first``, ``first + stride``, ..; the taps each reads, and where the first one lies.

    ``start``: the input position of the first tap for the first output (it may lie outside); ``dilation`` between taps.
    """

    first: int
    count: int
    taps: tuple[int, ...]
    start: int
    dilation: int


def phases(stride: int, dilation: int, pad: int, kernel: int, outputs: int) -> list[Phase]:
    """The phases of an axis that have outputs; one without taps has an empty tuple."""
    found = []
    for first in range(min(stride, outputs)):
        taps = [k for k in range(kernel) if (first + pad - k * dilation) % stride == 0][::-1]
        start = (first + pad - taps[0] * dilation) // stride if taps else 0
        count = -(-(outputs - first) // stride)
        found.append(Phase(first, count, tuple(taps), start, dilation // math.gcd(stride, dilation)))
    return found


def reach(attrs: Attrs, weight: Sequence[int], before: Sequence[int], after: Sequence[int]) -> int:
    """How far outside of its input a transposed convolution reads, at most, along any axis."""
    worst = 0
    for j, (s, d) in enumerate(zip(attrs["stride"], attrs["dilation"], strict=True)):
        for p in phases(s, d, attrs["pad"][j], weight[2 + j], after[2 + j]):
            last = p.start + p.count - 1 + (len(p.taps) - 1) * p.dilation
            worst = max(worst, -p.start, last - before[2 + j] + 1)
    return worst
