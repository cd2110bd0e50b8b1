"""Linear and cubic resizing."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.codegen.plan.post_ops import PostOp
from secateur.codegen.plan.strides import Strides


@dataclass(frozen=True)
class ResizeSpec:
    """Each output pixel is a weighted sum of ``taps`` rows by ``taps`` columns of the input, given by tables."""

    lanes: int
    n: int
    blocks: int
    h: int
    w: int
    taps: tuple[int, int]
    x: Strides
    y: Strides
    table: bool
    post_ops: tuple[PostOp, ...] = ()
    threads: int = 1
