"""Block-sparse weights as an alternative to the dense template: where they fit, and the arguments of the call."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from secateur.codegen.kernels.conv.spec import ConvSpec
from secateur.codegen.kernels.estimate import WORTH
from secateur.codegen.plan.placement import Placement
from secateur.codegen.plan.program import Argument, Table, Weight
from secateur.codegen.plan.tensors import Address, Blocked, Floats, Ints
from secateur.codegen.targets import Target

from .areas import tile_area
from .lists import Lists, pack_lists
from .packing import Packed, by_rows, nonzero_blocks, pack_blocks
from .panels import offsets_in, scratch
from .spec import (
    BlockSparseChoice,
    BlockSparseSpec,
    PanelChoice,
    PanelSpec,
    UnstructuredChoice,
    UnstructuredSpec,
)

MOST = 90  # per cent of the blocks: with more, nothing is gained
QUARTER = 4  # lanes from which on vectors can be transposed
COARSE = 5  # per cent: records are kept for densities this far apart, and below it for each


Specs = tuple[BlockSparseSpec | PanelSpec, ...]


def alternatives(spec: ConvSpec, x: Blocked, reads: Ints, weight: Floats, target: Target) -> Specs:
    """The specs that compute the same, if enough of these weights are zeros in whole blocks.

    ``reads``: the lanes of x that the convolution reads; ``weight`` [outputs, reads, kh, kw].
    """
    if not weight.size or spec.lanes < QUARTER:
        return ()
    percent, single = density(weight, spec.lanes), density(weight, 1)
    blocks = _blocks(x, reads)
    works: list[BlockSparseSpec | PanelSpec] = []
    if percent <= MOST:
        works.append(BlockSparseSpec(
            spec.lanes, spec.n, len(reads), len(blocks), spec.blocks, spec.h, spec.w, spec.kernel, spec.stride,
            spec.dilation, spec.x, spec.y, percent, spec.post_ops, spec.threads,
        ))  # fmt: skip
    if spec.w >= spec.lanes == x.extent.lanes and (spec.stride == (1, 1) or spec.kernel == (1, 1)):
        follow = replace(x, blocks=tuple(x.blocks[b] for b in blocks)).contiguous
        sampled = replace(spec.x, row=spec.x.row * spec.stride[0], column=spec.x.column * spec.stride[1])
        kinds = [(PanelSpec, percent)] if percent <= MOST else []
        if single < percent and _scattered(weight):
            kinds.append((UnstructuredSpec, single))
        works += [kind(
            spec.lanes, spec.n, len(blocks), spec.blocks, spec.h, spec.w, spec.kernel, spec.dilation, sampled, spec.y,
            not follow, share, spec.post_ops, spec.threads,
        ) for kind, share in kinds]  # fmt: skip
    return tuple(work for work in works if work.estimate(target) <= WORTH * spec.estimate(target))


def density(weight: Floats, lanes: int) -> int:
    """Per cent of the blocks of so many outputs that hold something, rounded up to what records are kept for."""
    share = 100 * float(nonzero_blocks(weight, lanes).mean())
    return max(1, int(np.ceil(share)) if share < COARSE else int(np.ceil(share / COARSE)) * COARSE)


def _scattered(weight: Floats) -> bool:
    """Are there zeros enough in outputs that hold something? Those that do not may be there to fill a block."""
    held = weight[weight.any((1, 2, 3))]
    return bool(100 * np.count_nonzero(held) <= MOST * held.size)


def arguments(placement: Placement, spec: BlockSparseSpec | PanelSpec, choice: BlockSparseChoice | PanelChoice,
              x: Blocked, reads: Ints, weight: Floats, bias: Weight, corner: int) -> list[Argument]:  # fmt: skip
    """What the call begins with. ``corner``: from the first pixel to the first tap."""
    used = _blocks(x, reads)
    lane = np.searchsorted(used, reads // x.extent.lanes) * x.extent.lanes + reads % x.extent.lanes
    places, room = tuple(x.offset(int(b) * x.extent.lanes) for b in used), len(used) * x.extent.lanes
    target, arena = placement.target, placement.program.arena
    starting = tuple(Address(p.buffer, p.delta + corner) for p in places)
    weights, starts, packed = _packed(weight, spec, choice, lane, room)
    if isinstance(spec, PanelSpec):
        starting = starting if spec.table else starting[:1]
        tables = [Table((*starting, Address(arena.new(scratch(spec, target))))),
                  Table(offsets_in(spec, packed, lane, target))]  # fmt: skip
    else:
        assert isinstance(packed, Packed) and isinstance(choice, BlockSparseChoice)
        area = tile_area(spec, target)
        copies = arena.new(spec.threads * area.floats if choice.copied else spec.lanes)
        offsets = Table(area.offsets(spec, packed, lane)[: len(packed.weight) if choice.copied else 0])
        tables = [Table((*starting, Address(copies))), _offsets(spec, x, packed, places, lane, corner), offsets]
    w = placement.program.weight(weights if weights.size else np.zeros(spec.lanes, np.float32))
    return [placement.start, w, bias, *tables, Table(starts)]


def _packed(weight: Floats, spec: BlockSparseSpec | PanelSpec, choice: BlockSparseChoice | PanelChoice, lane: Ints,
            room: int) -> tuple[Floats, Ints, Packed | Lists]:  # fmt: skip
    """What is kept, as the kernel reads it: weights, where they begin, and of which inputs they are."""
    if isinstance(choice, UnstructuredChoice):
        lists = pack_lists(weight, spec.lanes, choice.rows, choice.parts, spec.threads, lane, room)
        return lists.weight.reshape(-1), lists.table, lists
    packed = pack_blocks(weight, spec.lanes, lane, room)
    weights = by_rows(packed, choice.rows) if isinstance(choice, PanelChoice) else packed.weight.reshape(-1)
    return weights, np.concatenate([packed.starts, packed.shares(spec.threads)]), packed


def _offsets(spec: BlockSparseSpec, x: Blocked, packed: Packed, places: tuple[Address, ...], lane: Ints,
             corner: int) -> Table:  # fmt: skip
    """Where each kept block's input is in the arena. ``lane``: of each input channel, in the blocks at ``places``."""
    block, inside = np.divmod(lane[packed.channel], x.extent.lanes)
    row, column = np.divmod(packed.tap, spec.kernel[1])
    taps = row * spec.dilation[0] * x.extent.row + column * spec.dilation[1] * x.extent.column
    return Table(corner + inside + taps, None, places, block)


def _blocks(x: Blocked, reads: Ints) -> Ints:
    """The blocks that hold these lanes."""
    return np.unique(reads // x.extent.lanes)
