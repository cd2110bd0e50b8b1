"""Changes of placement: copies channel by channel, lane to lane, by tables, and zeros in a halo."""

from __future__ import annotations

from dataclasses import dataclass

from .strides import Strides


@dataclass(frozen=True)
class CopySpec:
    """Channel by channel from looked-up places to looked-up places: every change of placement.

    An input place of -1 writes zeros.
    """

    channels: int
    n: int
    h: int
    w: int
    x: Strides
    y: Strides
    inner: str  # "channels" or "pixels": the loop that runs innermost
    threads: int = 1


@dataclass(frozen=True)
class MoveSpec:
    """Channels to other lanes. ``picks``: for each block the lane of its sources that each of its lanes takes, or -1.

    The sources of all blocks are looked up one after another; lanes are counted through those of the same block.
    """

    lanes: int
    n: int
    h: int
    w: int
    x: Strides
    y: Strides
    picks: tuple[tuple[int, ...], ...]
    threads: int = 1


@dataclass(frozen=True)
class FillSpec:
    """Zeros in the halo of blocks."""

    lanes: int
    n: int
    blocks: int
    h: int
    w: int
    halo: int
    threads: int = 1


@dataclass(frozen=True)
class TableCopySpec:
    """``y[yo[o] + yi[i]] = x[xo[o] + xi[i]]``, ``lanes`` floats at a time, by four tables; zeros if ``zero``."""

    lanes: int
    outer: int
    inner: int
    zero: bool = False
    threads: int = 1
