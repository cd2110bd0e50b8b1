"""What planning asks of a backend: a target without one is refused, and a table that lacks a row is an error."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from secateur import InputError, codegen
from secateur.codegen.backends import backend_for
from secateur.codegen.cpu_backend import CPU, CpuBackend
from secateur.codegen.gpu_backend import GPU
from secateur.codegen.plan.lower import lower
from secateur.codegen.plan.placement import Placement
from secateur.codegen.plan.program import Choose
from secateur.codegen.targets import GPUS, TARGETS, Target
from secateur.codegen.tune.tuner import default_choice
from secateur.ir import Graph
from support.planned import NETWORKS

pytest.importorskip("tvm", reason="code generation needs apache-tvm")


def test_every_target_has_a_backend() -> None:
    assert {backend_for(target) for target in (*TARGETS.values(), *GPUS.values())} == {CPU, GPU}


def test_a_target_without_a_backend_is_refused() -> None:
    strange = replace(TARGETS["x86-avx2"], name="gpu", triple="nvptx64-nvidia-cuda", features=())
    with pytest.raises(
        InputError, match=r"target gpu: no backend .* for nvptx64; there are x86_64, aarch64, opencl, cuda"
    ):
        codegen.show_plan(NETWORKS["chain"](), strange)


def _default(target: Target) -> Choose:
    return lambda spec, *_: default_choice(spec, target)


def test_lowering_takes_placement_and_families_from_the_backend() -> None:
    asked: list[str] = []

    @dataclass(frozen=True)
    class Watched(CpuBackend):
        def placement(self, graph: Graph, target: Target, threads: int, choose: Choose | None) -> Placement:
            asked.append(graph.name)
            return super().placement(graph, target, threads, choose)

    target, graph = TARGETS["x86-avx512"], NETWORKS["chain"]()
    without = Watched(tuple(f for f in CPU.families if f.name != "conv"))
    program = lower(graph, target, 1, _default(target), without)
    assert asked == [graph.name]
    assert any(name.startswith("conv ") for name in program.by_library)


def test_a_backend_without_elementwise_kernels_is_an_error() -> None:
    target = TARGETS["x86-avx512"]
    bare = CpuBackend(tuple(f for f in CPU.families if f.name != "elementwise"))
    with pytest.raises(ValueError, match=r"no kernel family computes .*relu.*: a row of heads is missing"):
        lower(NETWORKS["chain"](), target, 1, _default(target), bare)


def test_a_spec_without_a_template_is_an_error() -> None:
    """It is not handed to TVM's operator library, which knows nothing of it."""
    from secateur.codegen.emit.assemble import compile_program

    target, graph = TARGETS["x86-avx512"], NETWORKS["chain"]()
    program = lower(graph, target, 1, _default(target), CPU)
    templates = {kind: t for kind, t in CPU.templates.items() if kind.__name__ != "ConvSpec"}
    with pytest.raises(ValueError, match="no template writes a ConvSpec"):
        compile_program(program, graph, target, templates)
