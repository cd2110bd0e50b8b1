"""One step of a matrix product in registers: numbers of pixels times vectors of weights, added to a tile of sums.

A number is loaded and broadcast, next to its multiplications. Where a multiplication takes its number from any lane of
a vector (``Target.by_lane``), a vector of input channels of each pixel is loaded once, for as many steps.
"""

from __future__ import annotations

from collections.abc import Sequence

from secateur.codegen.emit.builder import KernelBuilder
from secateur.codegen.emit.types import Buffer, Expr
from secateur.codegen.targets import Target

LINE = 16  # floats of a cache line


def most_pixels(target: Target, nb: int) -> int:
    """How many pixels by ``nb`` blocks fit the registers, with what is multiplied."""
    if target.by_lane:
        return max(1, (target.registers - nb - 1) // (nb + 1))
    return max(1, (target.registers - nb - 2) // nb)


def multiply(k: KernelBuilder, x: Buffer, places: Sequence[Expr], w: Buffer, at: Expr, nb: int,
             sums: Sequence[Buffer], channels: int = 1, ahead: int = 0) -> None:  # fmt: skip
    """``sums[pixel * nb + block] += x[place of the pixel] * w[at ..]``, for channels that follow each other in both.

    ``channels``: 1, or a vector of them. ``ahead``: weights so many floats further on are asked for.
    """
    v = k.lanes
    xs = [k.vector(k.load(x, place)) for place in places] if channels > 1 else []
    for i in range(channels):
        ws = [k.vector(k.load(w, at + (i * nb + j) * v)) for j in range(nb)]
        if i == 0 and ahead:
            for j in range(0, channels * nb * v, LINE):
                k.prefetch(w, at + (ahead + j))
        for p, place in enumerate(places):
            wide = k.vector(k.shuffle([xs[p]], [i] * v) if channels > 1 else k.splat(k.scalar(x, place)))
            for j in range(nb):
                k.add(sums[p * nb + j], wide * ws[j])
