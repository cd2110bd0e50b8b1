"""Rows without their zeros as an alternative to the dense template: where they fit, and the arguments of the call."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from secateur.codegen.kernels.conv.spec import ConvSpec
from secateur.codegen.kernels.estimate import WORTH
from secateur.codegen.plan.placement import Placement
from secateur.codegen.plan.program import Argument, Table, Weight
from secateur.codegen.plan.tensors import Address, Blocked, Floats, Ints
from secateur.codegen.targets import Target

from .packing import Rows, choose, keep_rows
from .spec import RowSparseChoice, RowSparseSpec

MOST = 0.5  # of the weights: with more, nothing is gained
COARSE = 5  # per cent: records are kept for shares this far apart


def alternatives(spec: ConvSpec, x: Blocked, reads: Ints, weight: Floats, target: Target) -> tuple[RowSparseSpec, ...]:
    """The spec that computes the same, where many weights are zero: in any pattern, best one of each 2^b channels.

    ``reads``: the lanes of x that the convolution reads; ``weight`` [outputs, reads, 1, 1].
    """
    plain = spec.kernel == spec.stride == (1, 1)
    few = spec.n * spec.h * spec.w < spec.lanes  # pixels that fill a vector are better side by side: ``block_sparse``
    if not (plain and few and target.permute and weight.size and spec.lanes == x.extent.lanes and _in_order(x, reads)):
        return ()
    if np.count_nonzero(weight) > MOST * weight.size:
        return ()
    rows = weight.reshape(len(weight), -1)
    chosen = choose(rows, target)
    shares = [_coarse(len(own) / len(rows)) for own in chosen.values()]
    others = np.delete(rows, np.concatenate([np.zeros(0, np.int64), *chosen.values()]), 0)
    percent = _coarse(np.count_nonzero(others) / others.size) if others.size else 0
    work = RowSparseSpec(
        spec.lanes, spec.n, len(reads), spec.blocks, spec.h, spec.w, spec.x, spec.y, tuple(chosen), tuple(shares),
        percent, spec.post_ops, spec.threads,
    )  # fmt: skip
    return (work,) if work.estimate(target) <= WORTH * spec.estimate(target) else ()


def arguments(placement: Placement, spec: RowSparseSpec, choice: RowSparseChoice, x: Blocked, reads: Ints,
              weight: Floats, bias: Weight, corner: int) -> list[Argument]:  # fmt: skip
    """What the call begins with. ``corner``: from the first pixel to the first that is read."""
    rows = weight.reshape(len(weight), -1)
    kept = keep_rows(rows, spec.lanes, choose(rows, placement.target))
    at = x.offset(int(reads[0]))
    scratch = Address(placement.program.arena.new(spec.pixels * spec.blocks * spec.lanes))
    return [Address(at.buffer, at.delta + corner), *row_arguments(placement, kept, spec.x.block), bias, scratch]


def row_arguments(placement: Placement, kept: Rows, block: int) -> list[Argument]:
    """What ``RowProducts`` has for parameters, of inputs whose blocks are ``block`` floats apart."""
    weight, lanes = placement.program.weight, placement.lanes
    units, own = Table(kept.unit // lanes * block + kept.unit % lanes), kept.powers
    return [weight(kept.weight), units, Table(kept.starts), Table(kept.place),
            weight(own.weight), Table(own.words), Table(own.starts)]  # fmt: skip


def _in_order(x: Blocked, reads: Ints) -> bool:
    """Are these lanes those of blocks that follow each other, from the first on?"""
    if not len(reads):
        return False
    lanes, first = x.extent.lanes, int(reads[0])
    used = x.blocks[first // lanes : int(reads[-1]) // lanes + 1]
    return first % lanes == 0 and bool(np.all(np.diff(reads) == 1)) and replace(x, blocks=used).contiguous


def _coarse(share: float) -> int:
    """In per cent, to the nearest that records are kept for."""
    return round(100 * share / COARSE) * COARSE
