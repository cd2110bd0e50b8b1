"""bfloat16 as an alternative to the direct template: where it fits, and the arguments of its call.

Depthwise layers, groups of a few channels and the first layer, whose channels do not fill a vector, have no such
kernel: a product takes neighbouring channels, of which they have none or hardly any.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from secateur.codegen.dots import DOTS
from secateur.codegen.kernels.conv.spec import ConvSpec
from secateur.codegen.plan.placement import Placement
from secateur.codegen.plan.program import Argument, Table, Weight
from secateur.codegen.plan.tensors import Address, Blocked, Floats, Ints
from secateur.codegen.targets import Target

from .packing import in_lanes, masks, pack_bf16
from .spec import Bf16Choice, Bf16ConvSpec
from .strip import strip


def alternatives(spec: ConvSpec, x: Blocked, reads: Ints, weight: Floats, target: Target) -> tuple[Bf16ConvSpec, ...]:
    """The spec that computes the same with rounded numbers, if the target can and at least half of the lanes are read.

    ``reads``: the lanes of x that the convolution reads; ``weight`` [outputs, reads, kh, kw].
    """
    if not target.bf16 or x.extent.lanes != spec.lanes or min(spec.stride) < 1:
        return ()
    blocks = np.unique(reads // spec.lanes)
    used = len(np.unique(reads))
    if 2 * used < len(blocks) * spec.lanes:
        return ()
    follow = replace(x, blocks=tuple(x.blocks[b] for b in blocks)).contiguous
    source, stride = spec.x, spec.stride
    if spec.kernel == (1, 1):
        source, stride = replace(source, row=source.row * stride[0], column=source.column * stride[1]), (1, 1)
    return (
        Bf16ConvSpec(
            spec.lanes, spec.n, used, len(blocks), spec.blocks, spec.h, spec.w, spec.kernel, stride, spec.dilation,
            source, spec.y, not follow, spec.post_ops, spec.threads,
        ),
    )  # fmt: skip


def arguments(placement: Placement, spec: Bf16ConvSpec, choice: Bf16Choice, x: Blocked, reads: Ints, weight: Floats,
              bias: Weight, corner: int) -> list[Argument]:  # fmt: skip
    """What the call begins with. ``corner``: from the first pixel to the first tap."""
    blocks, lanes, program = np.unique(reads // spec.lanes), spec.lanes, placement.program
    dot = DOTS[placement.target.bf16]
    w = program.weight(pack_bf16(in_lanes(weight, reads, blocks, lanes), spec, min(choice.nb, spec.blocks), dot))
    starts = tuple(Address(at.buffer, at.delta + corner) for at in (x.offset(int(b) * lanes) for b in blocks))
    found: list[Argument] = [placement.start if spec.table else starts[0], w, bias]
    if spec.table:
        found.append(Table(starts))
    if not spec.full:
        found.append(program.weight(masks(reads, blocks, lanes)))
    return [*found, Address(program.arena.new(strip(spec, choice).size))]
