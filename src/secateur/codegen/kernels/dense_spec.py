"""What the specs of dense convolutions share, whichever algorithm they are of."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

from secateur.codegen.plan.strides import Strides


class _Shape(Protocol):
    """The fields that such a spec has."""

    @property
    def lanes(self) -> int: ...
    @property
    def n(self) -> int: ...
    @property
    def ci(self) -> int: ...
    @property
    def blocks(self) -> int: ...
    @property
    def h(self) -> int: ...
    @property
    def w(self) -> int: ...
    @property
    def kernel(self) -> tuple[int, int]: ...
    @property
    def y(self) -> Strides: ...
    @property
    def threads(self) -> int: ...


class DenseConvolution:
    """A convolution of all input channels onto blocks of outputs: its name, and what it computes."""

    @property
    def computes(self: _Shape) -> Hashable:
        """Equal for specs that compute the same, whichever algorithm they are of."""
        return self.kernel, self.n, self.ci, self.blocks, self.h, self.w, self.y, self.threads

    @property
    def title(self: _Shape) -> str:
        """Channels, kernel and size, for people."""
        return f"{self.ci}>{self.blocks * self.lanes} {self.kernel[0]}x{self.kernel[1]} {self.h}x{self.w}"
