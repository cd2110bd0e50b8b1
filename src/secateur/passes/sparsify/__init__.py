"""Zeros in weights: patterns that say where they may stand, by magnitude or by second moments."""

from .blocks import pattern_of
from .sparsify import Sparsify
from .zeros import Sparsified

__all__ = ["Sparsified", "Sparsify", "pattern_of"]
