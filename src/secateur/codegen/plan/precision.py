"""In which element type layers multiply: what a caller asks for, and which layers it leaves in float32."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Precision:
    """``mode`` "f32"; "bf16": every layer that has such a kernel; "auto": where it is faster, measured or estimated.

    "tf32" and "f16" on tensor cores of GPUs, every layer that has such a kernel; "auto" takes neither.

    ``plain``: labels of layers that stay in float32 nevertheless, because they would be too coarse.
    """

    mode: str = "f32"
    plain: frozenset[str] = frozenset()

    def takes(self, dtype: str, label: str) -> bool:
        """May a kernel that multiplies in ``dtype`` compute this layer?"""
        asked = "bf16" if self.mode == "auto" else self.mode
        return dtype == "f32" or (dtype == asked and label not in self.plain)


F32 = Precision()
