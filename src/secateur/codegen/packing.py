"""Weights in the order in which the kernels read them, and convolutions seen in a plainer shape."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from .specs import QUAD, ConvSpec, MapSpec, Strides
from .specs_fast import StrassenChoice, StrassenSpec, WinogradChoice, WinogradSpec
from .specs_fixed import RowSpec
from .strassen import weight_sums
from .tensors import Ints, natural_channels
from .winograd import PAIRS, transform

Floats = NDArray[np.float32]
S = TypeVar("S", ConvSpec, MapSpec, RowSpec)


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


def quad_channels(outputs: int, groups: int, lanes: int) -> Ints:
    """The channel of each lane where every group begins at a quad."""
    width = outputs // groups
    each = -(-width // QUAD) * QUAD
    channels = np.full(-(-groups * each // lanes) * lanes, -1, np.int64)
    for g in range(groups):
        channels[g * each : g * each + width] = np.arange(g * width, (g + 1) * width)
    return channels


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


def pack_winograd(weight: Floats, spec: WinogradSpec, choice: WinogradChoice) -> Floats:
    """[O, I, 3, 3] transformed: tiles of ``nb`` blocks, point, input channel, block, lane."""
    points = transform(weight, PAIRS[choice.m]).astype(np.float32)
    parts = []
    for start, count, width in _tiles(spec.blocks, choice.nb):
        part = points[:, :, start * spec.lanes : (start + count * width) * spec.lanes]
        part = part.reshape(len(points), spec.ci, count, width * spec.lanes).transpose(2, 0, 1, 3)
        parts.append(part.reshape(-1))
    return np.concatenate(parts)


def pack_strassen(weight: Floats, spec: StrassenSpec, choice: StrassenChoice) -> Floats:
    """[O, I] as the seven sums of halves: tiles of ``nb`` blocks, sum, input channel, block, lane."""
    sums = np.stack(weight_sums(weight)).transpose(0, 2, 1)  # [sum, I/2, O/2]
    parts = []
    for start, count, width in _tiles(spec.blocks // 2, choice.nb):
        part = sums[:, :, start * spec.lanes : (start + count * width) * spec.lanes]
        part = part.reshape(*sums.shape[:2], count, width * spec.lanes).transpose(2, 0, 1, 3)
        parts.append(part.reshape(-1))
    return np.concatenate(parts)


def _tiles(blocks: int, nb: int) -> list[tuple[int, int, int]]:
    """(first block, tiles, blocks in a tile): whole tiles, then a narrower one for what is left."""
    whole, rest = divmod(blocks, nb)
    cut = [(0, whole, nb), (whole * nb, 1, rest)]
    return [(start, count, width) for start, count, width in cut if count and width]


def flatten(spec: ConvSpec) -> ConvSpec:
    """A 1x1 convolution whose pixels follow each other reads them as one long row, those of all images."""
    return merge(spec) if _pointwise(spec) else spec


def long_rows(spec: ConvSpec) -> ConvSpec:
    """A 1x1 convolution whose pixels follow each other reads those of each image as one long row."""
    return _merge_rows(spec) if _pointwise(spec) else spec


def _pointwise(spec: ConvSpec) -> bool:
    return spec.kernel == (1, 1) and spec.stride == (1, 1)


def _every(spec: S) -> list[Strides]:
    return [spec.x, spec.y, *(s.strides for s in spec.steps if s.strides is not None)]


def _merge_rows(spec: S) -> S:
    """A kernel that works pixel by pixel, rows that follow each other as one long row."""
    one = all(s.row == spec.w * s.column for s in _every(spec))
    return replace(spec, h=1, w=spec.h * spec.w) if one else spec


def merge(spec: S) -> S:
    """A kernel that works pixel by pixel, rows and images that follow each other as one long row."""
    spec = _merge_rows(spec)
    every = _every(spec)
    if spec.h == 1 and (spec.w == 1 or all(s.image == spec.w * s.column for s in every)):
        steps = tuple(replace(s, strides=_images(s.strides, spec.w)) if s.strides else s for s in spec.steps)
        spec = replace(spec, n=1, w=spec.n * spec.w, x=_images(spec.x, spec.w), y=_images(spec.y, spec.w), steps=steps)
    return spec


def _images(s: Strides, w: int) -> Strides:
    """Images of one pixel each in a row, or rows that follow each other."""
    return replace(s, column=s.image) if w == 1 else s
