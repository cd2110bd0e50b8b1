"""Blocks of weights that are not zero, in the order in which the kernel reads them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from secateur.codegen.plan.tensors import Floats, Ints

PIECES = 16  # of the input channels, of which each output block's kept blocks are counted


@dataclass(frozen=True, eq=False)
class Packed:
    """The kept blocks: output block by output block, then one block of inputs after the other, in each tap by tap.

    ``weight`` [kept, lanes]; ``block``, ``channel`` and ``tap`` say where each stands in the dense weight;
    ``starts`` [blocks * PIECES + 1]: where the kept blocks of each piece of the inputs of an output block begin.
    """

    weight: Floats
    block: Ints
    channel: Ints
    tap: Ints
    starts: Ints

    def unpacked(self, shape: tuple[int, int, int, int]) -> Floats:
        """The dense weight [O, I, kh, kw] again."""
        o, i, kh, kw = shape
        lanes = self.weight.shape[1]
        dense = np.zeros((o // lanes, i, kh * kw, lanes), np.float32)
        dense[self.block, self.channel, self.tap] = self.weight
        return np.ascontiguousarray(dense.transpose(0, 3, 1, 2)).reshape(shape)

    def shares(self, workers: int) -> Ints:
        """The output block at which each worker begins, and the end: with about as many kept blocks for each."""
        return even_shares(np.diff(self.starts[::PIECES]), workers)


def even_shares(kept: Ints, workers: int) -> Ints:
    """The output block at which each worker begins, and the end; ``kept``: what each output block has to do."""
    done = np.concatenate([[0], np.cumsum(kept)])
    wanted = np.arange(workers + 1) * (done[-1] / workers)
    found: Ints = np.searchsorted((done[1:] + done[:-1]) / 2, wanted)
    found[0], found[-1] = 0, len(kept)
    return found


def piece(inputs: int, lanes: int) -> int:
    """Channels of a piece: whole blocks of inputs."""
    return max(1, -(-inputs // (PIECES * lanes))) * lanes


def nonzero_blocks(weight: Floats, lanes: int) -> NDArray[np.bool_]:
    """[output blocks, inputs, taps]: the blocks of [O, I, kh, kw] that hold something."""
    o, i, kh, kw = weight.shape
    found: NDArray[np.bool_] = (weight.reshape(o // lanes, lanes, i, kh * kw) != 0).any(1)
    return found


def pack_blocks(weight: Floats, lanes: int, places: Ints | None = None, room: int = 0) -> Packed:
    """The blocks of [O, I, kh, kw] that are kept.

    ``places``: the lane of each input channel, of ``room``, by which they are ordered and counted; else in order.
    """
    o, i, kh, kw = weight.shape
    places, room = (np.arange(i), i) if places is None else (places, room)
    block, channel, tap = np.nonzero(nonzero_blocks(weight, lanes))
    order = np.lexsort((channel, tap, places[channel] // lanes, block))
    block, channel, tap = block[order], channel[order], tap[order]
    dense = weight.reshape(o // lanes, lanes, i, kh * kw).transpose(0, 2, 3, 1)
    starts = np.zeros(o // lanes * PIECES + 1, np.int64)
    np.add.at(starts, 1 + block * PIECES + places[channel] // piece(room, lanes), 1)
    return Packed(np.ascontiguousarray(dense[block, channel, tap]), block, channel, tap, np.cumsum(starts))


def by_rows(packed: Packed, rows: int) -> Floats:
    """The weights for a kernel that computes ``rows`` outputs of a block at a time: all its kept blocks, then again."""
    edges = packed.starts[::PIECES]
    parts = (packed.weight[a:b] for a, b in pairwise(edges))
    return np.concatenate([p.reshape(len(p), p.shape[1] // rows, rows).swapaxes(0, 1).reshape(-1) for p in parts])


def random_pattern(blocks: int, lanes: int, inputs: int, kernel: tuple[int, int], percent: int) -> Packed:
    """As many blocks of ones in each output block, the same ones again and again: to time kernels on."""
    taps = inputs * kernel[0] * kernel[1]
    weight = np.zeros((blocks, lanes, taps), np.float32)
    rng = np.random.default_rng(0)
    for block in weight:
        block[:, rng.permutation(taps)[: max(1, taps * percent // 100)]] = 1
    return pack_blocks(weight.reshape(blocks * lanes, inputs, *kernel), lanes)
