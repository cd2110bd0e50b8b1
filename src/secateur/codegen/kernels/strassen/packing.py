"""Sums of halves of 1x1 weights in the order in which the kernel reads them."""

from __future__ import annotations

import numpy as np

from secateur.codegen.kernels.conv.packing import _tiles
from secateur.codegen.plan.tensors import Floats

from .spec import StrassenChoice, StrassenSpec
from .sums import weight_sums


def pack_strassen(weight: Floats, spec: StrassenSpec, choice: StrassenChoice) -> Floats:
    """[O, I] as the seven sums of halves: tiles of ``nb`` blocks, sum, input channel, block, lane."""
    sums = np.stack(weight_sums(weight)).transpose(0, 2, 1)  # [sum, I/2, O/2]
    parts = []
    for start, count, width in _tiles(spec.blocks // 2, choice.nb):
        part = sums[:, :, start * spec.lanes : (start + count * width) * spec.lanes]
        part = part.reshape(*sums.shape[:2], count, width * spec.lanes).transpose(2, 0, 1, 3)
        parts.append(part.reshape(-1))
    return np.concatenate(parts)
