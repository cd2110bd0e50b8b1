"""Strassen's algorithm as an alternative to the direct template: where it fits, and the arguments of its call."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from secateur.codegen.kernels.conv.spec import ConvSpec
from secateur.codegen.plan.placement import Placement
from secateur.codegen.plan.program import Argument, Table, Weight
from secateur.codegen.plan.tensors import Address, Blocked, Floats, Ints
from secateur.codegen.targets import Target

from .packing import pack_strassen
from .spec import StrassenChoice, StrassenSpec
from .sums import LIMIT, error, strip


def alternatives(spec: ConvSpec, x: Blocked, reads: Ints, weight: Floats, target: Target) -> tuple[StrassenSpec, ...]:
    """The spec that computes the same, if there is one that promises to be faster and is exact with these weights.

    Each image of ``spec`` is halved by itself. ``reads``: the lanes of x that the convolution reads; ``weight``
    [outputs, reads, 1, 1].
    """
    blocks = np.unique(reads // x.extent.lanes)
    whole = x.extent.lanes == spec.lanes and len(reads) == len(blocks) * spec.lanes
    if spec.kernel != (1, 1) or not whole or len(blocks) % 2 or spec.blocks % 2 or spec.h * spec.w < 2:
        return ()
    follow = replace(x, blocks=tuple(x.blocks[b] for b in blocks)).contiguous
    sampled = replace(spec.x, row=spec.x.row * spec.stride[0], column=spec.x.column * spec.stride[1])
    work = StrassenSpec(
        spec.lanes, spec.n, len(blocks), spec.blocks, spec.h, spec.w, sampled, spec.y, not follow, spec.post_ops,
        spec.threads,
    )  # fmt: skip
    if work.estimate(target) >= spec.estimate(target) or not error(weight[:, :, 0, 0]) <= LIMIT:
        return ()
    return (work,)


def arguments(placement: Placement, spec: StrassenSpec, choice: StrassenChoice, x: Blocked, reads: Ints, weight: Floats,
              bias: Weight, corner: int) -> list[Argument]:  # fmt: skip
    """What the call begins with. ``corner``: from the first pixel to the first that is read."""
    blocks, lanes, order = np.unique(reads // x.extent.lanes), spec.lanes, np.argsort(reads)
    w = placement.program.weight(pack_strassen(weight[:, order, 0, 0], spec, choice))
    starts = tuple(Address(at.buffer, at.delta + corner) for at in (x.offset(int(b) * lanes) for b in blocks))
    scratch = Address(placement.program.arena.new(strip(spec, choice).vectors * lanes))
    return [placement.start, w, bias, Table((*(starts if spec.table else starts[:1]), scratch))]
