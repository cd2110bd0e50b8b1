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
    work = spec_of(spec, x, reads)
    return () if work is None or not promises(work, spec, weight, target) else (work,)


def spec_of(spec: ConvSpec, x: Blocked, reads: Ints) -> WinogradSpec | None:
    """The spec that computes the same, if the algorithm can."""
    shape = (spec.kernel, spec.stride, spec.dilation)
    if shape != ((3, 3), (1, 1), (1, 1)) or x.extent.lanes != spec.lanes:
        return None
    blocks = blocks_of(x, reads)
    follow = replace(x, blocks=tuple(x.blocks[b] for b in blocks)).contiguous
    return WinogradSpec(
        spec.lanes, spec.n, len(reads), len(blocks), spec.blocks, spec.h, spec.w, spec.x, spec.y, not follow,
        spec.post_ops, spec.threads,
    )  # fmt: skip


def promises(work: WinogradSpec, spec: ConvSpec, weight: Floats, target: Target) -> bool:
    """Is it not hopeless next to the direct kernel, and exact enough with these weights?"""
    return work.estimate(target) <= WORTH * spec.estimate(target) and error(weight, PAIRS[4]) <= LIMIT


def arguments(placement: Placement, spec: WinogradSpec, choice: WinogradChoice, x: Blocked, reads: Ints, weight: Floats,
              bias: Weight, corner: int) -> list[Argument]:  # fmt: skip
    """What the call begins with. ``corner``: from the first pixel to the first tap."""
    order = np.argsort(reads)
    packed = pack_winograd(weight[:, order], spec, choice)
    places = None if spec.full else places_of(spec, choice, x, reads[order])
    return call(placement, spec, choice, x, reads, packed, bias, corner, places)


def places_of(spec: WinogradSpec, choice: WinogradChoice, x: Blocked, reads: Ints) -> Ints:
    """Where the transformed inputs of each channel begin in a strip, at every point."""
    block = np.searchsorted(blocks_of(x, reads), reads // spec.lanes)
    found: Ints = block * (choice.strip * spec.lanes) + reads % spec.lanes
    return found


def call(placement: Placement, spec: WinogradSpec, choice: WinogradChoice, x: Blocked, reads: Ints, packed: Floats,
         bias: Weight, corner: int, channels: Ints | None) -> list[Argument]:  # fmt: skip
    """The arguments with these ``packed`` weights and this table of ``channels``."""
    lanes = spec.lanes
    places = (x.offset(int(b) * lanes) for b in blocks_of(x, reads))
    starts = tuple(Address(at.buffer, at.delta + corner) for at in places)
    found: list[Argument] = [placement.start if spec.table else starts[0], placement.program.weight(packed), bias]
    if spec.table:
        found.append(Table(starts))
    if channels is not None:
        found.append(Table(tuple(map(int, channels))))
    return [*found, Address(placement.program.arena.new(strip(spec, choice).size * lanes))]


def blocks_of(x: Blocked, reads: Ints) -> Ints:
    """The blocks that hold these lanes."""
    return np.unique(reads // x.extent.lanes)
