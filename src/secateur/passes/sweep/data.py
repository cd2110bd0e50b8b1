"""Calibration data as a note on the graph: passes that need data find them there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True, eq=False)
class Calibration:
    """Batches that can be gone through more than once. Whoever has them adds this note; ``None`` is nobody.

    ``progress(examples)`` is told how many have been seen.
    """

    outlives_rewrites: ClassVar[bool] = True
    data: Iterable[Any] = field(repr=False)
    seed: int = 0
    progress: Callable[[int], None] | None = field(default=None, repr=False)
