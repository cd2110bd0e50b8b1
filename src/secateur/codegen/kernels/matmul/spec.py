"""Products of two computed tensors."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.codegen.plan.post_ops import PostOp
from secateur.codegen.plan.strides import Strides


@dataclass(frozen=True)
class MatmulSpec:
    """[n, h, w, k] times [n, h, k, blocks of lanes]; ``right.column`` is how far neighbouring k are apart.

    The left operand's channels lie in their order; an operand that is the same for all n or h has stride 0 there.
    """

    lanes: int
    n: int
    h: int
    w: int
    k: int
    blocks: int
    x: Strides
    right: Strides
    y: Strides
    post_ops: tuple[PostOp, ...] = ()
    threads: int = 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates, padding lanes included."""
        return self.n * self.h * self.w * self.k * self.blocks * self.lanes
