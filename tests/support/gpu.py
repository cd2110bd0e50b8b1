"""Libraries for GPUs in tests: built with any tiling, run on a processor by PoCL, and interpreted by Oclgrind."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np

from secateur.codegen.backends import GPU
from secateur.codegen.build import port
from secateur.codegen.devices import nvcc, opencl
from secateur.codegen.devices.opencl import OpenClSession
from secateur.codegen.gpu_library import GpuLibrary
from secateur.codegen.kernels.gpu.conv.packing import slices
from secateur.codegen.kernels.gpu.conv.space import in_parts
from secateur.codegen.kernels.gpu.conv.spec import GpuConvChoice, GpuConvSpec
from secateur.codegen.metadata import Metadata
from secateur.codegen.plan.lower import lower
from secateur.codegen.plan.program import Choice, Spec
from secateur.codegen.targets import GPUS
from secateur.ir import Graph

ROOT = Path(__file__).parents[2]
HEADERS = Path("/usr/include/CL/cl.h")
LOCAL = "131072"  # bytes of shared memory: Oclgrind counts that of a group more than once


def missing() -> str | None:
    """Why kernels for GPUs cannot be checked here, and what to install; None where they can."""
    lacking = [*opencl.missing()]
    lacking += [] if shutil.which("oclgrind") else ["oclgrind (Debian's package oclgrind)"]
    lacking += [] if HEADERS.exists() else ["OpenCL's headers (Debian's package ocl-icd-opencl-dev)"]
    lacking += [] if nvcc.find() else [f"nvcc (pip install {nvcc.PACKAGES})"]
    return f"GPU kernels need {', '.join(lacking)}" if lacking else None


def every_choice(target: str, first: int = 0) -> Callable[..., Choice | None]:
    """A choice of tiles that takes another one for each layer that has several, the ``first`` of the space at first.

    Reductions are whole, and in up to three parts, in turn.
    """
    numbers = count(first)

    def choose(spec: Spec, *others: Spec) -> Choice | None:
        space = GPU.templates[type(spec)].space
        if space is None:
            return None
        fitting = list(space(spec, GPUS[target]))
        if len(fitting) == 1:
            return fitting[0]
        number = next(numbers)
        tile = fitting[number % len(fitting)]
        assert isinstance(spec, GpuConvSpec)
        return in_parts(tile, slices(spec, tile.depth), tuple(range(1 + number // 2 % 3, 0, -1)))[0]

    return choose


def in_halves(target: str) -> Callable[..., Choice | None]:
    """The first choice of each layer; the reductions of every second one are in two parts."""
    numbers = count()

    def choose(spec: Spec, *others: Spec) -> Choice | None:
        space = GPU.templates[type(spec)].space
        found = None if space is None else next(iter(space(spec, GPUS[target])))
        if not isinstance(found, GpuConvChoice) or found.kind != "tile":
            return found
        assert isinstance(spec, GpuConvSpec)
        return in_parts(found, slices(spec, found.depth), (2 - next(numbers) % 2, 1))[0]

    return choose


def built(graph: Graph, target: str, choose: Callable[..., Choice | None]) -> GpuLibrary:
    """A library in which every layer is tiled as ``choose`` says."""
    program = lower(graph, GPUS[target], 1, choose, GPU)
    compiled = GPU.assemble(program, graph, GPUS[target])
    inputs, outputs = ([port(graph, n) for n in names] for names in ([v.name for v in graph.inputs], graph.outputs))
    metadata = Metadata(graph.name, GPUS[target], 1, tuple(inputs), tuple(outputs), compiled.arena_words, {})
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
