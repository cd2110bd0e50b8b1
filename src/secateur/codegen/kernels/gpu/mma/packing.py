"""Numbers rounded as tensor cores take them, and weights as their kernels read them."""

from __future__ import annotations

import numpy as np

from secateur.codegen.emit.gpu.matrices import DEPTH, PRUNED
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
    rows = reduction(weight, spec, choice.outputs)
    if spec.pruned > 1:
        return compressed(rows, spec.joined)
    return words(rows, spec.joined)


def reduction(weight: Floats, spec: MmaConvSpec, outputs: int) -> Floats:
    """[numbers of the reduction, filled up to whole slices and of all groups, outputs, filled up to whole tiles]."""
    dense = pack(weight, spec, GpuConvChoice("tile", outputs, depth=spec.depth))
    return dense.reshape(-1, dense.shape[-1])


def words(rows: Floats, joined: int) -> Floats:
    """Rows of numbers as rows of words."""
    return tf32(rows) if joined == 1 else pairs(rows)


def halved(rows: Floats, joined: int) -> bool:
    """Are of each two numbers of the reduction (TF32), or of each four (FP16), half of them zero?"""
    chunks = rows.reshape(-1, PRUNED * joined, rows.shape[-1])
    return bool((np.count_nonzero(chunks, axis=1) <= joined).all())


def compressed(rows: Floats, joined: int) -> Floats:
    """Slices of 9 rows of words: 8 of the weights that are there, and one that says which these are.

    In the last row lanes 2 g and 2 g + 1 of each 16 have what a warp's lanes 4 g and 4 g + 1 give ``mma.sp``
    (``emit/gpu/fragments``): the chunks 0 to 3 and 4 to 7 of the outputs g (low half) and g + 8 (high half).
    """
    lanes = rows.shape[-1]
    chunks = rows.reshape(-1, PRUNED * joined, lanes)
    there = np.sort(np.argsort(chunks == 0, axis=1, kind="stable")[:, :joined], axis=1)
    kept = words(np.take_along_axis(chunks, there, 1).reshape(-1, lanes), joined).reshape(-1, DEPTH, lanes)
    first = there[:, 0].astype(np.uint32)
    bits = np.where(first == 0, 0b0100, 0b1110) if joined == 1 else first | there[:, 1].astype(np.uint32) << 2
    fours = bits.astype(np.uint32).reshape(-1, 2, 4, lanes) << np.arange(0, 16, 4, dtype=np.uint32)[:, None]
    halves = fours.sum(2, dtype=np.uint32).reshape(-1, 2, lanes // 16, 2, 8)  # [slice, half, 16 outputs, g + 8?, g]
    where = (halves[:, :, :, 0] | halves[:, :, :, 1] << 16).transpose(0, 2, 3, 1).reshape(-1, 1, lanes)
    return np.concatenate([kept, np.ascontiguousarray(where).view(np.float32)], axis=1)
