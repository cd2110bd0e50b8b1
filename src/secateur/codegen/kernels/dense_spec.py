"""What the specs of dense convolutions share, whichever algorithm they are of."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

from secateur.codegen.plan.strides import Strides


class DenseShape(Protocol):
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
    def computes(self: DenseShape) -> Hashable:
        """Equal for specs that compute the same, whichever algorithm they are of."""
        return self.kernel, self.n, self.ci, self.blocks, self.h, self.w, self.y, self.threads

    @property
    def title(self: DenseShape) -> str:
        """Channels, kernel and size, for people."""
        return title_of(self)


def title_of(spec: DenseShape) -> str:
    """Channels, kernel and size, for people."""
    return f"{spec.ci}>{spec.blocks * spec.lanes} {spec.kernel[0]}x{spec.kernel[1]} {spec.h}x{spec.w}"
