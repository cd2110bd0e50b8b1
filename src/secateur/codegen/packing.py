"""Weights in the order in which the kernels read them, and convolutions seen in a plainer shape."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from .specs import ConvSpec, MapSpec, Strides, WinogradChoice, WinogradSpec
from .specs_fixed import RowSpec
from .winograd import PAIRS, transform

Floats = NDArray[np.float32]
S = TypeVar("S", ConvSpec, MapSpec, RowSpec)


def groups_of(block: int, lanes: int, outputs: int, groups: int) -> tuple[int, int]:
    """The groups whose outputs lie in a block: first and end."""
    width = outputs // groups
    last = min((block + 1) * lanes, outputs) - 1
    return block * lanes // width, last // width + 1


def block_weight(weight: Floats, start: int, end: int, low: int, high: int, groups: int) -> Floats:
    """The weights of outputs start..end as a dense layer over the inputs of groups low..high, zeros between groups."""
    o, per_group, kh, kw = weight.shape
    width = o // groups
    part = np.zeros((end - start, (high - low) * per_group, kh, kw), np.float32)
    for out in range(start, min(end, o)):
        at = (out // width - low) * per_group
        part[out - start, at : at + per_group] = weight[out]
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


def pack_winograd(weight: Floats, spec: WinogradSpec, choice: WinogradChoice) -> Floats:
    """[O, I, 3, 3] transformed: tiles of ``nb`` blocks, point, input channel, block, lane."""
    points = transform(weight, PAIRS[choice.m]).astype(np.float32)
    parts = []
    for start, count, width in _tiles(spec.blocks, choice.nb):
        part = points[:, :, start * spec.lanes : (start + count * width) * spec.lanes]
        part = part.reshape(len(points), spec.ci, count, width * spec.lanes).transpose(2, 0, 1, 3)
        parts.append(part.reshape(-1))
    return np.concatenate(parts)


def _tiles(blocks: int, nb: int) -> list[tuple[int, int, int]]:
    """(first block, tiles, blocks in a tile): whole tiles, then a narrower one for what is left."""
    whole, rest = divmod(blocks, nb)
    cut = [(0, whole, nb), (whole * nb, 1, rest)]
    return [(start, count, width) for start, count, width in cut if count and width]


def flatten(spec: ConvSpec) -> ConvSpec:
    """A 1x1 convolution whose pixels follow each other reads them as one long row."""
    return merge(spec) if spec.kernel == (1, 1) and spec.stride == (1, 1) else spec


def merge(spec: S) -> S:
    """A kernel that works pixel by pixel, rows and images that follow each other as one long row."""
    every: list[Strides] = [spec.x, spec.y, *(s.strides for s in spec.steps if s.strides is not None)]
    if all(s.row == spec.w * s.column for s in every):
        spec = replace(spec, h=1, w=spec.h * spec.w)
    if spec.h == 1 and (spec.w == 1 or all(s.image == spec.w * s.column for s in every)):
        steps = tuple(replace(s, strides=_images(s.strides, spec.w)) if s.strides else s for s in spec.steps)
        spec = replace(spec, n=1, w=spec.n * spec.w, x=_images(spec.x, spec.w), y=_images(spec.y, spec.w), steps=steps)
    return spec


def _images(s: Strides, w: int) -> Strides:
    """Images of one pixel each in a row, or rows that follow each other."""
    return replace(s, column=s.image) if w == 1 else s
