"""Tensor cores as an alternative to the dense convolution on planes: where they fit, and the arguments of the call."""

from __future__ import annotations

from dataclasses import dataclass, replace

from secateur.codegen.emit.gpu.matrices import ROWS
from secateur.codegen.kernels.gpu.conv.spec import NARROW, GpuConvSpec
from secateur.codegen.plan.placement import Placement
from secateur.codegen.plan.program import Argument, Table, Weight
from secateur.codegen.plan.tensors import Blocked, Floats, Ints
from secateur.codegen.targets import Target

from .packing import halved, packed, reduction
from .spec import MmaChoice, MmaConvSpec, SparseConvSpec


@dataclass(frozen=True)
class TensorCores:
    """The alternative of one type of numbers, by its spec."""

    kind: type[MmaConvSpec]

    def alternatives(self, spec: GpuConvSpec, x: Blocked, reads: Ints, weight: Floats,
                     target: Target) -> tuple[MmaConvSpec, ...]:  # fmt: skip
        """The spec that computes the same of rounded numbers, where float32 would take tiles."""
        if not target.tensor_cores or spec.few or (spec.groups > 1 and spec.co <= NARROW) or not weight.size:
            return ()
        return (self.kind.of(spec),)

    def arguments(self, placement: Placement, spec: MmaConvSpec, choice: MmaChoice, x: Blocked, reads: Ints,
                  weight: Floats, bias: Weight, corner: int) -> list[Argument]:  # fmt: skip
        """What the call begins with, as that of the dense kernel."""
        words = placement.program.weight(packed(weight, spec, choice))
        table: list[Argument] = [Table(tuple(x.offset(int(p)) for p in reads))] if spec.table else []
        return [placement.start if spec.table else x.offset(0), words, bias, *table]


@dataclass(frozen=True)
class SparseTensorCores(TensorCores):
    """The alternative where half of the weights are zero as tensor cores can leave them out, whoever made them."""

    kind: type[SparseConvSpec]

    def alternatives(self, spec: GpuConvSpec, x: Blocked, reads: Ints, weight: Floats,
                     target: Target) -> tuple[SparseConvSpec, ...]:  # fmt: skip
        """The reduction goes tap by tap, or through all taps of each input, whichever fits the zeros."""
        if not super().alternatives(spec, x, reads, weight, target):
            return ()
        by_tap = self.kind.of(spec)
        orders = [by_tap, replace(by_tap, taps_first=True)] if spec.taps > 1 else [by_tap]
        return tuple(s for s in orders if halved(reduction(weight, s, ROWS), s.joined))[:1]
