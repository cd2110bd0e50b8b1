"""Element-wise operators, and means over all pixels."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.codegen.plan.post_ops import PostOp
from secateur.codegen.plan.strides import Strides


@dataclass(frozen=True)
class MapSpec:
    """Element-wise: the post-ops on each vector of ``x``, ``pixels`` at a time."""

    lanes: int
    n: int
    blocks: int
    h: int
    w: int
    x: Strides
    y: Strides
    table: bool
    post_ops: tuple[PostOp, ...]
    threads: int = 1


@dataclass(frozen=True)
class MeanSpec:
    """The mean (or sum, max) over all pixels, one vector per block."""

    kind: str
    lanes: int
    n: int
    blocks: int
    h: int
    w: int
    x: Strides
    y: Strides
    table: bool
    post_ops: tuple[PostOp, ...] = ()
    threads: int = 1
