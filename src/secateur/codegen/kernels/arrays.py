"""Memory to time a kernel on: the sizes and strides of a workload, random numbers."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from secateur.codegen.plan.strides import Strides
from secateur.codegen.plan.tensors import Floats

DRAWN = 1 << 14


class Written(Protocol):
    """A spec whose results lie in blocks with strides ``y``."""

    @property
    def y(self) -> Strides: ...


class Blockwise(Written, Protocol):
    """A spec with as many batch entries, blocks, rows and columns of results."""

    @property
    def n(self) -> int: ...
    @property
    def blocks(self) -> int: ...
    @property
    def h(self) -> int: ...
    @property
    def w(self) -> int: ...


class Window(Protocol):
    """A spec whose results each read the taps of a window."""

    @property
    def n(self) -> int: ...
    @property
    def h(self) -> int: ...
    @property
    def w(self) -> int: ...
    @property
    def x(self) -> Strides: ...
    @property
    def kernel(self) -> tuple[int, int]: ...
    @property
    def stride(self) -> tuple[int, int]: ...
    @property
    def dilation(self) -> tuple[int, int]: ...


def random_floats(size: int) -> Floats:
    """Float32 from a normal distribution, always the same; some repeated, since to draw millions takes long."""
    return np.resize(np.random.default_rng(0).standard_normal(min(size, DRAWN), np.float32), size)


def reach(spec: Window) -> int:
    """Floats from the first tap of the first output to the last one of the last, in one block."""
    rows = spec.h * spec.stride[0] + spec.kernel[0] * spec.dilation[0]
    columns = spec.w * spec.stride[1] + spec.kernel[1] * spec.dilation[1]
    return spec.n * spec.x.image + rows * spec.x.row + columns * spec.x.column


def written(spec: Blockwise) -> int:
    """Floats from the first output to the last."""
    y = spec.y
    return (spec.blocks - 1) * y.block + spec.n * y.image + spec.h * y.row + spec.w * y.column
