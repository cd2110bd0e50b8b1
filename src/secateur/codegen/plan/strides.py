"""Floats between neighbouring parts of a blocked tensor."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Strides:
    """Floats between neighbouring blocks, images, rows and columns."""

    block: int
    image: int
    row: int
    column: int
