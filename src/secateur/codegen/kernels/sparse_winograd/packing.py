"""Transformed 3x3 weights without the kernels that are zero, and the table that says which are left."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from secateur.codegen.kernels.block_sparse.packing import even_shares, nonzero_blocks
from secateur.codegen.kernels.winograd.transform import PAIRS, transform
from secateur.codegen.plan.tensors import Floats, Ints


@dataclass(frozen=True, eq=False)
class Kernels:
    """The kept kernels, output block by output block.

    ``weight``: for each output block [points, kept channels, lanes], one after the other; ``channel``: of each that is
    kept; ``starts`` [blocks + 1]: where those of an output block begin.
    """

    weight: Floats
    channel: Ints
    starts: Ints

    def table(self, places: Ints, workers: int) -> Ints:
        """What the kernel looks up: starts, each worker's first output block and the end, the place of each channel."""
        return np.concatenate([self.starts, even_shares(np.diff(self.starts), workers), places[self.channel]])


def head(blocks: int, workers: int) -> int:
    """Where places begin in the table."""
    return blocks + 1 + workers + 1


def pack_kernels(weight: Floats, lanes: int, m: int) -> Kernels:
    """The kernels of [O, I, 3, 3] that hold something for a block of ``lanes`` outputs, for tiles of m x m outputs."""
    kept = nonzero_blocks(np.abs(weight).max((2, 3), keepdims=True), lanes)[..., 0]
    points = transform(weight, PAIRS[m]).astype(np.float32)
    points = points.reshape(*points.shape[:2], len(kept), lanes)
    parts = [points[:, channels, block].reshape(-1) for block, channels in enumerate(kept)]
    starts = np.concatenate([[0], np.cumsum(kept.sum(1))])
    whole = np.concatenate(parts) if kept.any() else np.zeros(lanes, np.float32)
    return Kernels(whole, np.nonzero(kept)[1], starts)
