"""Winograd's algorithm without what is zero as an alternative to the dense templates: where it fits, and its call."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from secateur.codegen.kernels.block_sparse.plan import MOST, density
from secateur.codegen.kernels.conv.spec import ConvSpec
from secateur.codegen.kernels.winograd import plan as winograd
from secateur.codegen.plan.placement import Placement
from secateur.codegen.plan.program import Argument, Weight
from secateur.codegen.plan.tensors import Blocked, Floats, Ints
from secateur.codegen.targets import Target

from .packing import pack_kernels
from .spec import SparseWinogradChoice, SparseWinogradSpec


def alternatives(
    spec: ConvSpec, x: Blocked, reads: Ints, weight: Floats, target: Target
) -> tuple[SparseWinogradSpec, ...]:
    """The spec that computes the same, if enough kernels are zero for whole blocks of outputs, and if it promises to.

    ``reads``: the lanes of x that the convolution reads; ``weight`` [outputs, reads, 3, 3].
    """
    dense = winograd.spec_of(spec, x, reads)
    if dense is None or not weight.size:
        return ()
    percent = density(np.abs(weight).max((2, 3), keepdims=True), spec.lanes)
    work = SparseWinogradSpec(**{f.name: getattr(dense, f.name) for f in fields(dense)}, percent=percent)
    return (work,) if percent <= MOST and winograd.promises(work, spec, weight, target) else ()


def arguments(placement: Placement, spec: SparseWinogradSpec, choice: SparseWinogradChoice, x: Blocked, reads: Ints,
              weight: Floats, bias: Weight, corner: int) -> list[Argument]:  # fmt: skip
    """What the call begins with. ``corner``: from the first pixel to the first tap."""
    order = np.argsort(reads)
    packed = pack_kernels(weight[:, order], spec.lanes, choice.m)
    table = packed.table(winograd.places_of(spec, choice, x, reads[order]), spec.threads)
    return winograd.call(placement, spec, choice, x, reads, packed.weight, bias, corner, table)
