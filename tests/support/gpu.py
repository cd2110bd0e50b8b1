"""Libraries for GPUs in tests: built with any tiling, run on a processor by PoCL, and interpreted by Oclgrind."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from secateur.codegen.build import port
from secateur.codegen.devices import nvcc, opencl
from secateur.codegen.devices.opencl import OpenClSession
from secateur.codegen.gpu_backend import GPU
from secateur.codegen.gpu_library import GpuLibrary
from secateur.codegen.kernels.gpu.block_sparse.spec import GpuSparseChoice
from secateur.codegen.kernels.gpu.conv.spec import GpuConvSpec
from secateur.codegen.kernels.gpu.conv.tiles import GpuConvChoice, in_parts
from secateur.codegen.kernels.gpu.mma.spec import MmaChoice, MmaConvSpec
from secateur.codegen.metadata import Metadata
from secateur.codegen.plan.lower import lower
from secateur.codegen.plan.precision import Precision
from secateur.codegen.plan.program import Choice, Spec
from secateur.codegen.targets import Target, get_target
from secateur.ir import Graph

ROOT = Path(__file__).parents[2]
HEADERS = Path("/usr/include/CL/cl.h")
LOCAL = "131072"  # bytes of shared memory: Oclgrind counts that of a group more than once


def marks() -> list[pytest.MarkDecorator]:
    """Of tests that take PoCL, Oclgrind or nvcc.

    They are skipped where one of these is missing: the README's test command asks for nothing but Python. CI installs
    them, and with --gpu a skip of these tests fails there (tests/conftest.py).
    """
    why = missing()
    return [pytest.mark.gpu, pytest.mark.skipif(why is not None, reason=str(why))]


def missing() -> str | None:
    """Why kernels for GPUs cannot be checked here, and what to install; None where they can."""
    lacking = [*opencl.missing()]
    lacking += [] if shutil.which("oclgrind") else ["oclgrind (Debian's package oclgrind)"]
    lacking += [] if HEADERS.exists() else ["OpenCL's headers (Debian's package ocl-icd-opencl-dev)"]
    lacking += [] if nvcc.find() else [f"nvcc (pip install {nvcc.PACKAGES})"]
    return f"GPU kernels need {', '.join(lacking)}" if lacking else None


def every_choice(target: str | Target, first: int = 0) -> Callable[..., Choice | None]:
    """A choice of tiles that takes another one for each layer that has several, the ``first`` of the space at first.

    Reductions are whole, and in up to three parts, in turn. Alternatives to dense kernels are taken where they fit.
    """
    numbers = count(first)

    def choose(spec: Spec, *others: Spec) -> Choice | None:
        fitting = candidates((*others, spec)[0], target)
        number = next(numbers) if len(fitting) > 1 else 0
        return shared((*others, spec)[0], fitting[number % len(fitting)], 1 + number // 2 % 3)

    return choose


def in_halves(target: str | Target) -> Callable[..., Choice | None]:
    """The first choice of each layer; the reductions of every second one are in two parts."""
    numbers = count()

    def choose(spec: Spec, *others: Spec) -> Choice | None:
        found = candidates((*others, spec)[0], target)[0]
        return shared((*others, spec)[0], found, 2 - next(numbers) % 2 if found is not None else 1)

    return choose


def candidates(spec: Spec, target: str | Target) -> list[Choice | None]:
    """The space of a spec; None where there is nothing to choose."""
    space = GPU.templates[type(spec)].space
    return [None] if space is None else list(space(spec, get_target(target)))


def shared(spec: Spec, choice: Choice | None, parts: int) -> Choice | None:
    """A choice whose reduction is in so many parts, if it can be."""
    if isinstance(choice, GpuConvChoice) and choice.kind == "tile":
        assert isinstance(spec, GpuConvSpec)
        return in_parts(choice, spec.slices(choice.depth), (*range(parts, 0, -1),))[0]
    if isinstance(choice, MmaChoice):
        assert isinstance(spec, MmaConvSpec)
        return in_parts(choice, spec.slices(spec.depth), (*range(parts, 0, -1),))[0]
    if isinstance(choice, GpuSparseChoice) and choice.kind == "pixels":
        return replace(choice, parts=parts)
    return choice


def built(
    graph: Graph, target: str | Target, choose: Callable[..., Choice | None], precision: str = "f32"
) -> GpuLibrary:
    """A library in which every layer is tiled as ``choose`` says."""
    chosen, backend = get_target(target), replace(GPU, precision=Precision(precision))
    program = lower(graph, chosen, 1, choose, backend)
    compiled = backend.assemble(program, graph, chosen)
    inputs, outputs = ([port(graph, n) for n in names] for names in ([v.name for v in graph.inputs], graph.outputs))
    metadata = Metadata(graph.name, chosen, 1, tuple(inputs), tuple(outputs), compiled.arena_words, {})
    library = compiled.library(metadata)
    assert isinstance(library, GpuLibrary)
    return library


def run(library: GpuLibrary, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
    """Outputs by PoCL, whose optimiser takes longer than these kernels run and is left out."""
    library.__dict__["session"] = OpenClSession(library.code, ["-cl-opt-disable"])
    found = library(*inputs)
    return found if isinstance(found, tuple) else (found,)


def interpreted(library: GpuLibrary, folder: Path, *inputs: np.ndarray) -> tuple[list[np.ndarray], str]:
    """Outputs by Oclgrind, and what it has to say: races, places out of bounds, barriers that not all come to."""
    library.save(folder / "library")
    np.savez(folder / "inputs.npz", *inputs)
    program = (
        "import sys, numpy as np; from secateur.codegen.gpu_library import load_library as load\n"
        "given = np.load(sys.argv[2]); y = load(sys.argv[1])(*(given[k] for k in given.files))\n"
        "np.savez(sys.argv[3], *(y if isinstance(y, tuple) else (y,)))"
    )
    out, log = folder / "outputs.npz", folder / "log"
    command = ["oclgrind", "--data-races", "--local-mem-size", LOCAL, "--max-errors", "3", "--log", log]
    command += [sys.executable, "-c", program, folder / "library", folder / "inputs.npz", out]
    environment = {"PYTHONPATH": ":".join([str(ROOT / "src"), *sys.path]), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(out) as found:
        return [found[k] for k in found.files], log.read_text(errors="replace")
