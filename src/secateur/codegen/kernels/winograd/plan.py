"""Winograd's algorithm as an alternative to the direct template: where it fits, and the arguments of its call."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from secateur.codegen.kernels.conv.spec import ConvSpec
from secateur.codegen.kernels.estimate import WORTH
from secateur.codegen.plan.placement import Placement
from secateur.codegen.plan.program import Argument, Table, Weight
from secateur.codegen.plan.tensors import Address, Blocked, Floats, Ints
from secateur.codegen.targets import Target

from .packing import pack_winograd
from .spec import WinogradChoice, WinogradSpec
from .transform import LIMIT, PAIRS, error, strip


def alternatives(spec: ConvSpec, x: Blocked, reads: Ints, weight: Floats, target: Target) -> tuple[WinogradSpec, ...]:
    """The spec that computes the same, if there is one that is not hopeless and exact enough with these weights.

    ``reads``: the lanes of x that the convolution reads; ``weight`` [outputs, reads, 3, 3].
    """
    shape = (spec.kernel, spec.stride, spec.dilation)
    if shape != ((3, 3), (1, 1), (1, 1)) or x.extent.lanes != spec.lanes:
        return ()
    blocks = _blocks(x, reads)
    follow = replace(x, blocks=tuple(x.blocks[b] for b in blocks)).contiguous
    work = WinogradSpec(
        spec.lanes, spec.n, len(reads), len(blocks), spec.blocks, spec.h, spec.w, spec.x, spec.y, not follow,
        spec.post_ops, spec.threads,
    )  # fmt: skip
    if work.estimate(target) > WORTH * spec.estimate(target) or not error(weight, PAIRS[4]) <= LIMIT:
        return ()
    return (work,)


def arguments(placement: Placement, spec: WinogradSpec, choice: WinogradChoice, x: Blocked, reads: Ints, weight: Floats,
              bias: Weight, corner: int) -> list[Argument]:  # fmt: skip
    """What the call begins with. ``corner``: from the first pixel to the first tap."""
    blocks, lanes, order = _blocks(x, reads), spec.lanes, np.argsort(reads)
    w = placement.program.weight(pack_winograd(weight[:, order], spec, choice))
    starts = tuple(Address(at.buffer, at.delta + corner) for at in (x.offset(int(b) * lanes) for b in blocks))
    found: list[Argument] = [placement.start if spec.table else starts[0], w, bias]
    if spec.table:
        found.append(Table(starts))
    if not spec.full:
        lane = np.searchsorted(blocks, reads[order] // lanes) * (choice.strip * lanes) + reads[order] % lanes
        found.append(Table(tuple(map(int, lane))))
    return [*found, Address(placement.program.arena.new(strip(spec, choice).size * lanes))]


def _blocks(x: Blocked, reads: Ints) -> Ints:
    """The blocks that hold these lanes."""
    return np.unique(reads // x.extent.lanes)
