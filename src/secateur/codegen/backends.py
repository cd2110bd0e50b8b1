"""The kinds of machine that code is generated for, by the architecture of a target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from secateur.ir import Graph, InputError

from .kernels.families import FAMILIES
from .kernels.templates import templates
from .plan.backend import Backend, Compiled
from .plan.family import Family, Template, exact_families
from .plan.placement import Placement
from .plan.program import Choose, Program
from .targets import Target


@dataclass(frozen=True)
class CpuBackend:
    """Processors with vectors: values in blocks on one arena, and one function that calls all kernels."""

    families: tuple[Family, ...] = FAMILIES

    @property
    def templates(self) -> Mapping[type, Template]:
        """How each kind of spec is written. Raises ValueError where a family lacks a template."""
        return templates(self.families)

    def exact(self) -> CpuBackend:
        """Without Winograd's and Strassen's algorithms."""
        return replace(self, families=exact_families(self.families))

    def placement(self, graph: Graph, target: Target, threads: int, choose: Choose | None) -> Placement:
        """Values in blocks of ``target.lanes`` channels or row-major, all in one arena."""
        return Placement(graph, target, threads, choose, self.families)

    def assemble(self, program: Program, graph: Graph, target: Target, stamped: bool = False) -> Compiled:
        """One function on the placed arena, compiled. Raises tvm.error.TVMError for what TVM or LLVM refuses."""
        from .emit.assemble import compile_program

        return compile_program(program, graph, target, self.templates, stamped)


CPU = CpuBackend()
BACKENDS: Mapping[str, Backend] = MappingProxyType({"x86_64": CPU, "aarch64": CPU})


def backend_for(target: Target) -> Backend:
    """The backend of a target, by the first part of its triple. Raises InputError where there is none."""
    architecture = target.triple.partition("-")[0]
    if architecture not in BACKENDS:
        raise InputError(
            f"target {target.name}: no backend generates code for {architecture}; there are {', '.join(BACKENDS)}"
        )
    return BACKENDS[architecture]
