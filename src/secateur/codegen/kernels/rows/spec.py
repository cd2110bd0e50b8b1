"""Softmax and norms along the channels of each pixel."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.codegen.plan.post_ops import PostOp
from secateur.codegen.plan.strides import Strides


@dataclass(frozen=True)
class RowSpec:
    """Along the ``width`` channels of each pixel: softmax, log_softmax, layer_norm or rms_norm."""

    kind: str
    lanes: int
    n: int
    blocks: int
    h: int
    w: int
    width: int
    x: Strides
    y: Strides
    table: bool
    eps: float
    post_ops: tuple[PostOp, ...] = ()
    threads: int = 1
