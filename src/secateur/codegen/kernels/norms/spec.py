"""Group and instance norm: moments of channels, then scale and shift of groups."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.codegen.plan.strides import Strides


@dataclass(frozen=True)
class MomentSpec:
    """Mean and variance of each channel of each image, one vector each per block."""

    lanes: int
    n: int
    blocks: int
    h: int
    w: int
    x: Strides
    table: bool
    threads: int = 1


@dataclass(frozen=True)
class GroupNormSpec:
    """From the moments of channels to the scale and the shift of each: groups to mean 0 and variance 1."""

    lanes: int
    n: int
    blocks: int
    channels: int
    groups: int
    eps: float
