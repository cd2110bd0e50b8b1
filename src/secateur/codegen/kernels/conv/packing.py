"""Dense weights in the order in which the kernel reads them, and the channel of each output lane."""

from __future__ import annotations

import numpy as np

from secateur.codegen.plan.tensors import Floats, Ints, natural_channels

from .spec import ConvSpec


def block_channels(outputs: int, groups: int, lanes: int) -> Ints:
    """The channel of each lane where no block holds outputs of more groups than it must, and few blocks are needed.

    A block that touches two groups reads the inputs of both. Groups begin at a block; narrow ones share a block. In
    their natural order the channels may take fewer blocks, which is kept where it costs no more reading.
    """
    natural = natural_channels(outputs, lanes)
    width = outputs // groups
    if groups == 1 or width % lanes == 0:
        return natural
    each = -(-width // lanes) * lanes if width >= lanes else lanes
    per = max(1, lanes // width)
    starts = [g // per * each + g % per * width for g in range(groups)]
    aligned = np.full(-(-groups // per) * each, -1, np.int64)
    for g, start in enumerate(starts):
        aligned[start : start + width] = np.arange(g * width, (g + 1) * width)
    less = reads(natural, width, lanes) - reads(aligned, width, lanes)
    return aligned if less > 0 or (less == 0 and len(aligned) * 7 <= len(natural) * 8) else natural


def groups_of(channels: Ints, width: int) -> tuple[int, int]:
    """The groups of ``width`` outputs that these channels are in: first and end."""
    used = channels[channels >= 0]
    return (int(used.min()) // width, int(used.max()) // width + 1) if used.size else (0, 1)


def reads(channels: Ints, width: int, lanes: int) -> int:
    """How many groups' inputs all blocks read together."""
    return sum(high - low for low, high in (groups_of(b, width) for b in channels.reshape(-1, lanes)))


def dense_weight(weight: Floats, channels: Ints, low: int, high: int, groups: int) -> Floats:
    """The weights of these outputs as a dense layer over the inputs of groups low..high, zeros between groups."""
    o, per_group, kh, kw = weight.shape
    width = o // groups
    part = np.zeros((len(channels), (high - low) * per_group, kh, kw), np.float32)
    for lane, out in enumerate(channels):
        if out >= 0:
            at = (out // width - low) * per_group
            part[lane, at : at + per_group] = weight[out]
    return part


def pack(weight: Floats, spec: ConvSpec, nb: int) -> Floats:
    """[O, I, kh, kw] in the order in which the kernel reads it: tiles of ``nb`` blocks, ``spec.order``, block, lane."""
    o, i, kh, kw = weight.shape
    v = spec.lanes
    parts = []
    for start, count, width in _tiles(o // v, nb):
        part = weight[start * v : (start + count * width) * v].reshape(count, width, v, i, kh, kw)
        if spec.order == "blocks":
            part = part.reshape(count, width, v, i // v, v, kh, kw).transpose(0, 3, 5, 6, 4, 1, 2)
        else:
            part = part.transpose((0, 4, 5, 3, 1, 2) if spec.order == "taps" else (0, 3, 4, 5, 1, 2))
        parts.append(part.reshape(-1))
    return np.ascontiguousarray(np.concatenate(parts), dtype=np.float32)


def _tiles(blocks: int, nb: int) -> list[tuple[int, int, int]]:
    """(first block, tiles, blocks in a tile): whole tiles, then a narrower one for what is left."""
    whole, rest = divmod(blocks, nb)
    cut = [(0, whole, nb), (whole * nb, 1, rest)]
    return [(start, count, width) for start, count, width in cut if count and width]
