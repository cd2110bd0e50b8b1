"""Memory to time a kernel on: the sizes and strides of a workload, random numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

DRAWN = 1 << 14


def random_floats(size: int) -> Any:
    """Float32 from a normal distribution, always the same; some repeated, since to draw millions takes long."""
    return np.resize(np.random.default_rng(0).standard_normal(min(size, DRAWN), np.float32), size)


def reach(spec: Any) -> int:
    """Floats from the first tap of the first output to the last one of the last, in one block."""
    rows = spec.h * spec.stride[0] + spec.kernel[0] * spec.dilation[0]
    columns = spec.w * spec.stride[1] + spec.kernel[1] * spec.dilation[1]
    return int(spec.n * spec.x.image + rows * spec.x.row + columns * spec.x.column)


def written(spec: Any) -> int:
    """Floats from the first output to the last."""
    y = spec.y
    return int((spec.blocks - 1) * y.block + spec.n * y.image + spec.h * y.row + spec.w * y.column)
