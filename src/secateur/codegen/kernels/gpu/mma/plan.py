"""Tensor cores as an alternative to the dense convolution on planes: where they fit, and the arguments of the call."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.codegen.kernels.gpu.conv.spec import NARROW, GpuConvSpec
from secateur.codegen.plan.placement import Placement
from secateur.codegen.plan.program import Argument, Table, Weight
from secateur.codegen.plan.tensors import Blocked, Floats, Ints
from secateur.codegen.targets import Target

from .packing import packed
from .spec import MmaChoice, MmaConvSpec


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
