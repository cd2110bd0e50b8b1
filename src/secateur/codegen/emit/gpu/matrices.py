"""Sizes of the small matrices that a warp multiplies (``fragments``), in words. TVM is not imported for it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

WARP, LEFT, RIGHT, SUMS = 32, 4, 2, 4  # lanes, and words and sums of each
ROWS, COLUMNS, DEPTH = 16, 8, 8  # of the sums, and words of the reduction
PRUNED = 2  # a product of which only each second number of the left matrix is there is twice as deep
JOINED: Mapping[str, int] = MappingProxyType({"tf32": 1, "f16": 2})  # numbers of a word
