"""The scratch memory of a strip of outputs: the pixels that they read, rounded."""

from __future__ import annotations

from dataclasses import dataclass

from .spec import Bf16Choice, Bf16ConvSpec


@dataclass(frozen=True)
class Strip:
    """Rounded pixels as [block, row, column modulo the stride, column over the stride, lane], two lanes in a word.

    So neighbouring outputs read neighbouring words at every tap. ``high`` x ``wide`` outputs read ``rows`` x
    ``columns`` pixels. ``phase``, ``row`` and ``block``: words from one to the next; ``copies``, one for each thread.
    """

    high: int
    wide: int
    rows: int
    columns: int
    phase: int
    row: int
    block: int
    inputs: int
    copies: int

    @property
    def each(self) -> int:
        """Words of one copy: the last output of an odd number reads one pixel more, and drops what comes of it."""
        return -(-(self.inputs * self.block + self.phase + 16) // 16) * 16

    @property
    def size(self) -> int:
        """Words in all."""
        return self.each * self.copies


def strip(spec: Bf16ConvSpec, choice: Bf16Choice) -> Strip:
    """The strip of a kernel."""
    high, wide = (1, choice.strip) if spec.h == 1 else (choice.strip, spec.w)
    rows, columns = (
        (size - 1) * s + (taps - 1) * d + 1
        for size, s, taps, d in zip((high, wide), spec.stride, spec.kernel, spec.dilation, strict=True)
    )
    word = spec.lanes // 2
    phase = -(-columns // spec.stride[1]) * word
    row = phase * min(spec.stride[1], columns)
    # An odd number of cache lines from block to block: powers of two would put all channels of a pixel in a few sets.
    block = (-(-rows * row // 16) | 1) * 16
    return Strip(high, wide, rows, columns, phase, row, block, spec.inputs, spec.threads)
