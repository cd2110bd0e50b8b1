"""Processors with vectors: how networks are planned and written for them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from secateur.ir import Graph

from .kernels.families import FAMILIES
from .kernels.templates import templates
from .plan.backend import Compiled
from .plan.family import Family, Template, exact_families
from .plan.placement import Placement
from .plan.precision import F32, Precision
from .plan.program import Choose, Program, TensorSpec
from .plan.tensors import Arena
from .targets import Target


@dataclass(frozen=True)
class CpuBackend:
    """Processors with vectors: values in blocks on one arena, and one function that calls all kernels."""

    families: tuple[Family, ...] = FAMILIES
    direct: frozenset[str] = frozenset()  # labels of layers that do without inexact families
    precision: Precision = F32

    @property
    def templates(self) -> Mapping[type, Template]:
        """How each kind of spec is written. Raises ValueError where a family lacks a template."""
        return templates(self.families)

    def exact(self, layers: Collection[str] | None = None) -> CpuBackend:
        """Without Winograd's and Strassen's algorithms."""
        if layers is None:
            return replace(self, families=exact_families(self.families))
        return replace(self, direct=self.direct | frozenset(layers))

    def placement(self, graph: Graph, target: Target, threads: int, choose: Choose | None) -> Placement:
        """Values in blocks of ``target.lanes`` channels or row-major, all in one arena."""
        return Placement(graph, target, threads, choose, self.families, Arena(), self.direct, self.precision)

    def by_library(self, spec: TensorSpec) -> bool:
        """Everything: what it does not know it refuses itself."""
        return True

    def assemble(self, program: Program, graph: Graph, target: Target, stamped: bool = False) -> Compiled:
        """One function on the placed arena, compiled. Raises tvm.error.TVMError for what TVM or LLVM refuses."""
        from .emit.assemble import compile_program

        return compile_program(program, graph, target, self.templates, stamped)


CPU = CpuBackend()
