"""Weights in the order in which the kernels read them."""

from __future__ import annotations

import numpy as np

from secateur.codegen.plan.tensors import Floats

from .spec import GpuConvSpec
from .tiles import GpuConvChoice


def pack(weight: Floats, spec: GpuConvSpec, choice: GpuConvChoice) -> Floats:
    """[groups * co, ci, kh, kw] as the kernel of this choice reads it.

    "tile": [group, slice, depth, outputs, filled up to whole tiles]; "direct": [group, ci, tap, co]; "sum": [co, ci].
    """
    groups, ci, co, taps = spec.groups, spec.ci, spec.co, spec.taps
    w = weight.reshape(groups, co, ci, taps)
    if choice.kind == "sum":
        return np.ascontiguousarray(w.reshape(co, ci))
    if choice.kind == "direct":
        return np.ascontiguousarray(w.transpose(0, 2, 3, 1))
    depth, wide = choice.depth, -(-co // choice.outputs) * choice.outputs
    if spec.by_tap(depth):
        deep = -(-ci // depth) * depth
        packed = np.zeros((groups, taps, deep, wide), np.float32)
        packed[:, :, :ci, :co] = w.transpose(0, 3, 2, 1)
        return packed
    packed = np.zeros((groups, -(-ci * taps // depth) * depth, wide), np.float32)
    packed[:, : ci * taps, :co] = w.transpose(0, 2, 3, 1).reshape(groups, ci * taps, co)
    return packed
