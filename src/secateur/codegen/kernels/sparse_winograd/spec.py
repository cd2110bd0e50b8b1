"""A 3x3 convolution of which whole kernels are zero, by Winograd's algorithm: what it computes."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.codegen.kernels.dense_spec import title_of
from secateur.codegen.kernels.winograd.spec import WinogradChoice, WinogradSpec


@dataclass(frozen=True)
class SparseWinogradSpec(WinogradSpec):
    """Winograd's convolution without the products whose weights are zero.

    Zeros of single taps are lost when weights are transformed; a whole kernel of zeros is zero at every point. What may
    be left out is all taps of an input channel for the ``lanes`` outputs of a block; ``percent`` of these are kept, by
    which records are looked up: the machine code does not depend on which, nor on how many.
    """

    percent: int = 100

    # Fitted to layers of 128 to 512 channels at densities of 0.05 to 0.9, next to the dense kernel and cautiously: a
    # channel is looked up, and its numbers are loaded for one output block.
    reached, moved = 0.72, 8
    several = False
    full = False  # every channel is looked up

    @property
    def kept(self) -> float:
        """Channels that an output block is multiplied with."""
        return max(1.0, self.ci * self.percent / 100)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the convolution without its zeros, so that speed over peak may pass 1."""
        return int(self.n * self.h * self.w * self.kept * 9 * self.blocks * self.lanes)

    @property
    def title(self) -> str:
        """Channels, kernel, size and the share of kernels that are kept, for people."""
        return f"{title_of(self)} {self.percent}%"


@dataclass(frozen=True)
class SparseWinogradChoice(WinogradChoice):
    """As for the dense kernel, with one output block at a time."""
