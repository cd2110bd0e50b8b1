"""Irregular pruning: the least weights of a layer, wherever they are (Han et al., NIPS 2015)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from secateur.ir import Array

from .pattern import Mask, Pattern, kept_of, largest


@dataclass(frozen=True)
class Irregular(Pattern):
    """No rule at all: the most important weights of the whole matrix stay."""

    name: ClassVar[str] = "irregular"

    def mask(self, importance: Array, sparsity: float) -> Mask:
        """The weights that stay."""
        flat = importance.reshape(-1)
        return largest(flat, kept_of(flat.size, sparsity)).reshape(importance.shape)
