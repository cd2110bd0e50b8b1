"""Weights of narrow groups in quads, in the order in which the kernel reads them."""

from __future__ import annotations

import numpy as np

from secateur.codegen.plan.tensors import Floats, Ints

from .spec import QUAD


def quad_channels(outputs: int, groups: int, lanes: int) -> Ints:
    """The channel of each lane where every group begins at a quad."""
    width = outputs // groups
    each = -(-width // QUAD) * QUAD
    channels = np.full(-(-groups * each // lanes) * lanes, -1, np.int64)
    for g in range(groups):
        channels[g * each : g * each + width] = np.arange(g * width, (g + 1) * width)
    return channels


def pack_quads(weight: Floats, quads: int) -> Floats:
    """[group, output, input, kh, kw], outputs and inputs in whole quads, in the order in which the kernel reads it.

    Group, tile of ``quads`` quads of outputs, taps, input, quad, output.
    """
    groups, o, i, kh, kw = weight.shape
    whole, rest = divmod(o // QUAD, quads)
    parts = []
    for start, count, width in ((0, whole, quads), (whole * quads, 1 if rest else 0, rest)):
        if count:
            part = weight[:, start * QUAD : (start + count * width) * QUAD]
            part = part.reshape(groups, count, width, QUAD, i, kh, kw).transpose(0, 1, 5, 6, 4, 2, 3)
            parts.append(part.reshape(groups, -1))
    return np.ascontiguousarray(np.concatenate(parts, axis=1), dtype=np.float32)
