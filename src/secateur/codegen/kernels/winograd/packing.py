"""Transformed 3x3 weights in the order in which the kernel reads them."""

from __future__ import annotations

import numpy as np

from secateur.codegen.kernels.conv.packing import _tiles
from secateur.codegen.plan.tensors import Floats

from .spec import WinogradChoice, WinogradSpec
from .transform import PAIRS, transform


def pack_winograd(weight: Floats, spec: WinogradSpec, choice: WinogradChoice) -> Floats:
    """[O, I, 3, 3] transformed: tiles of ``nb`` blocks, point, input channel, block, lane."""
    points = transform(weight, PAIRS[choice.m]).astype(np.float32)
    parts = []
    for start, count, width in _tiles(spec.blocks, choice.nb):
        part = points[:, :, start * spec.lanes : (start + count * width) * spec.lanes]
        part = part.reshape(len(points), spec.ci, count, width * spec.lanes).transpose(2, 0, 1, 3)
        parts.append(part.reshape(-1))
    return np.concatenate(parts)
