"""Weights rounded to bfloat16, in the order in which the kernel reads them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secateur.codegen.dots import Dot
from secateur.codegen.kernels.conv.packing import _tiles
from secateur.codegen.plan.tensors import Floats, Ints

from .spec import Bf16ConvSpec


def rounded(array: Floats) -> NDArray[np.uint16]:
    """The nearest bfloat16 of each number, as its bits: ties to even, NaN stays NaN, what is too large becomes Inf."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    near = (bits + (0x7FFF + (bits >> 16 & 1)).astype(np.uint32)) >> 16
    return np.where(np.isnan(array), bits >> 16 | 0x40, near).astype(np.uint16)


def in_lanes(weight: Floats, reads: Ints, blocks: Ints, lanes: int) -> Floats:
    """[O, reads, kh, kw] as [O, all lanes of ``blocks``, kh, kw]: 0 where a lane is not read."""
    o, _, kh, kw = weight.shape
    whole = np.zeros((len(blocks) * lanes, o, kh, kw), np.float32)
    place = np.searchsorted(blocks, reads // lanes) * lanes + reads % lanes
    np.add.at(whole, place, weight.swapaxes(0, 1))  # a channel may be read twice
    return whole.swapaxes(0, 1)


def masks(reads: Ints, blocks: Ints, lanes: int) -> Floats:
    """For each lane of the blocks all bits where it is read, as float32."""
    used = np.isin(np.arange(lanes)[None] + blocks[:, None] * lanes, reads)
    return np.where(used, np.uint32(0xFFFFFFFF), np.uint32(0)).astype(np.uint32).view(np.float32)


def pack_bf16(weight: Floats, spec: Bf16ConvSpec, nb: int, dot: Dot) -> Floats:
    """[O, I, kh, kw] in words of two: tiles of ``nb`` blocks, tap, step of ``dot.channels``, block, lane, channel."""
    o, i, kh, kw = weight.shape
    v, step = spec.lanes, dot.channels
    parts = []
    for start, count, width in _tiles(o // v, nb):
        part = weight[start * v : (start + count * width) * v].reshape(count, width * v, i // step, step, kh, kw)
        parts.append(rounded(part.transpose(0, 4, 5, 2, 1, 3)).reshape(-1))
    return np.concatenate(parts).view(np.float32)
