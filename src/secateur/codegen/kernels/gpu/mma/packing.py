"""Numbers rounded as tensor cores take them, and weights as their kernels read them."""

from __future__ import annotations

import numpy as np

from secateur.codegen.kernels.gpu.conv.packing import pack
from secateur.codegen.kernels.gpu.conv.tiles import GpuConvChoice
from secateur.codegen.plan.tensors import Floats

from .spec import MmaChoice, MmaConvSpec


def tf32(x: Floats) -> Floats:
    """Rounded to ten bits after the first, halves away from zero, as ``cvt.rna.tf32`` does."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded: Floats = ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)
    return np.where(np.isfinite(x), rounded, x)


def pairs(x: Floats) -> Floats:
    """[2 n, lanes] as n rows of words: two rows in FP16 each, the first in the low half."""
    rows = x.reshape(-1, 2, x.shape[-1]).transpose(0, 2, 1).astype("<f2")
    return np.ascontiguousarray(rows).view("<f4")[..., 0]


def packed(weight: Floats, spec: MmaConvSpec, choice: MmaChoice) -> Floats:
    """[groups * co, ci, kh, kw] as [group, slice, row, outputs] words, filled up to whole tiles."""
    tile = GpuConvChoice("tile", choice.outputs, choice.pixels, spec.depth)
    dense = pack(weight, spec, tile)
    rows = dense.reshape(-1, dense.shape[-1])
    return tf32(rows) if spec.joined == 1 else pairs(rows)
