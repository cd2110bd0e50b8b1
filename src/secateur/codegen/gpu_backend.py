"""GPUs: how networks are planned and written for them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from secateur.ir import Graph

from .devices import nvcc
from .devices.code import Code
from .gpu_library import GpuLibrary
from .kernels.gpu.families import GPU_FAMILIES
from .metadata import Metadata
from .plan.family import Family, Template
from .plan.placement import Placement
from .plan.precision import F32, Precision
from .plan.program import Choose, Program, TensorSpec
from .plan.tensors import Arena
from .targets import Target


@dataclass(frozen=True, eq=False)
class GpuCompiled:
    """Kernels as text, and their launches."""

    code: Code
    target: Target

    @property
    def arena_words(self) -> int:
        """Of the device's memory."""
        return self.code.arena_words

    def library(self, metadata: Metadata) -> GpuLibrary:
        """Compiled by nvcc for CUDA; for OpenCL it is the driver's to compile. Raises InputError without nvcc."""
        code = self.code
        if self.target.triple == "cuda":
            binary, resources = nvcc.compile_cubin(code.source, self.target.mcpu)
            code = replace(code, binary=binary, resources=resources)
        return GpuLibrary(metadata, code)


@dataclass(frozen=True)
class GpuBackend:
    """GPUs: values in planes, channel by channel, in one piece of the device's memory, and kernels one after another.

    A plane is a block of one lane, so a concat, a split and a shuffle are lists of planes here as well.
    """

    families: tuple[Family, ...] = GPU_FAMILIES
    precision: Precision = F32

    @property
    def templates(self) -> Mapping[type, Template]:
        """How each kind of spec is written."""
        from .kernels.gpu.templates import GPU_TEMPLATES

        return GPU_TEMPLATES

    def exact(self, layers: Collection[str] | None = None) -> GpuBackend:
        """The same: there is no family whose rounding is coarser."""
        return self

    def placement(self, graph: Graph, target: Target, threads: int, choose: Choose | None) -> Placement:
        """Planes in an arena whose buffers begin at the 256 bytes that memory is read by."""
        return Placement(graph, target, 1, choose, self.families, Arena(64), precision=self.precision)

    def by_library(self, spec: TensorSpec) -> bool:
        """Copies to the caller's memory alone."""
        return spec.op == "identity" and spec.outputs[0][1] == "f32"

    def assemble(self, program: Program, graph: Graph, target: Target) -> GpuCompiled:
        """CUDA or OpenCL. Raises Unsupported where a memory is larger than a kernel can count."""
        from .emit.gpu.assemble import assemble
        from .kernels.gpu.pointwise import build_identity

        return GpuCompiled(assemble(program, graph, target, self.templates, build_identity), target)


GPU = GpuBackend()
