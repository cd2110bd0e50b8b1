"""Libraries for GPUs on a machine without one: templates by PoCL next to the torch executor, tiny ones by Oclgrind,
and all sizes of tile by nvcc.

Whole networks, all cases under Oclgrind and cubins of them are measured by ``python -m bench.reach.gpu``.
"""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.reach.gpu_cases import GPU_CASES, TINY, together
from secateur import codegen
from secateur.codegen.devices import nvcc
from secateur.codegen.emit.gpu.assemble import THEN
from secateur.codegen.gpu_library import GpuLibrary
from secateur.codegen.targets import GPUS
from secateur.ir import Graph
from secateur.ir.exporters.torch.module import evaluate
from secateur.ir.frontends.torch.trace import trace
from support import gpu
from support.network import Net

pytest.importorskip("tvm", reason="code generation needs apache-tvm")
pytestmark = gpu.marks()  # skipped where PoCL, Oclgrind or nvcc is missing, which Python alone does not bring


def agree(found: tuple[np.ndarray, ...] | list[np.ndarray], graph: Graph, inputs: tuple[np.ndarray, ...],
          names: list[str]) -> None:  # fmt: skip
    wanted = evaluate(graph, dict(zip((v.name for v in graph.inputs), inputs, strict=True)))
    for name, got, want in zip(names, found, wanted, strict=True):
        assert got.shape == want.shape, name
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max(), name


def traced(cases: list[str]) -> tuple[Graph, tuple[np.ndarray, ...]]:
    module, inputs = together(cases)
    return trace(module, inputs, name="together"), tuple(x.numpy() for x in inputs)


EXAMPLE = Path(__file__).parents[2] / "examples" / "cpp" / "gpu.cc"
CASES = [
    "dense 3x3, stride 2", "image of three channels", "signal", "groups of 5 to 10", "shuffle, split, concat",
    "gates and residuals", "attention", "activations", "padded on one side", "transposed, depthwise", "moves",
    "tiles of 128x128", "few tiles, deep", "block-sparse 3x3", "block-sparse, stride 2", "block-sparse linear",
]  # fmt: skip


def test_templates_compute_what_torch_does() -> None:
    """Layers take all sizes of tile in turn, with whole reductions and shared ones: one result, whatever the run."""
    assert set(CASES) <= set(GPU_CASES)
    graph, inputs = traced(CASES)
    library = gpu.built(graph, "opencl", gpu.every_choice("opencl"))
    found = gpu.run(library, *inputs)
    agree(found, graph, inputs, CASES)
    again = library(*inputs)
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))


@pytest.fixture(scope="module")
def tiny() -> tuple[Graph, tuple[np.ndarray, ...], GpuLibrary]:
    graph, inputs = traced(list(TINY))
    return graph, inputs, gpu.built(graph, "opencl", gpu.in_halves("opencl"))


def test_no_work_item_races_another_or_leaves_its_memory(
    tiny: tuple[Graph, tuple[np.ndarray, ...], GpuLibrary], tmp_path: Path
) -> None:
    graph, inputs, library = tiny
    found, log = gpu.interpreted(library, tmp_path, *inputs)
    assert not log
    assert any(name.endswith(THEN) for name in library.code.kernels)
    agree(found, graph, inputs, list(TINY))


def test_a_barrier_that_is_missing_is_found(tmp_path: Path) -> None:
    """The check above does see what it is there for."""
    net = Net(1, 4, 3, 3)
    graph = net.graph(net.node("reduce_mean", "x", axes=(2, 3), keepdims=True))
    library = codegen.build(graph, "opencl")
    assert isinstance(library, GpuLibrary)
    assert "barrier(" in library.code.source
    library.code = replace(library.code, source=library.code.source.replace("barrier(CLK_LOCAL_MEM_FENCE);", ""))
    _, log = gpu.interpreted(library, tmp_path, np.ones((1, 4, 3, 3), np.float32))
    assert "data race" in log


CUDA = [name for name in GPUS if name.startswith("cuda")]


@pytest.mark.parametrize("number", range(len(CUDA)))
def test_cubins_keep_all_numbers_in_registers(number: int) -> None:
    """Nothing spills, and a group finds room; each architecture is asked for other sizes of tile."""
    target, net = CUDA[number], Net(1, 16, 4, 4)
    sparse, height = [net.conv("x", 32, kernel) for kernel in (1, 3)], (32, 16, 8, 4)[number]
    for name in sparse:  # two blocks are left in a row
        net.weights[f"{name}.weight"].reshape(32 // height, height, -1)[:, :, 2:] = 0
    graph = net.graph(*(net.conv("x", 16, kernel) for kernel in (1, 3, 1)), net.conv("x", 16, groups=16), *sparse)
    library = gpu.built(graph, target, gpu.every_choice(target, 3 * number))
    assert set(library.code.resources) == set(library.code.kernels)
    assert library.code.source.count("int* __restrict__ places") >= len(sparse)
    for name, used in library.code.resources.items():
        assert not used.spilled, (name, used)
        assert used.registers * library.code.kernels[name].items <= 65536, (name, used)
        assert used.shared <= GPUS[target].shared, (name, used)
    assert library.code.binary.startswith(b"\x7fELF")


def test_a_library_is_saved_loaded_and_called_like_any(tmp_path: Path) -> None:
    net = Net(1, 3, 4, 4)
    library = codegen.build(net.graph(net.head(net.conv("x", 4))), "opencl")
    assert isinstance(library, GpuLibrary)
    library.save(tmp_path / "a.lib")
    loaded = codegen.load_library(tmp_path / "a.lib")
    assert isinstance(loaded, GpuLibrary)
    assert loaded.code.launches == library.code.launches
    x = np.random.default_rng(0).standard_normal((1, 3, 4, 4)).astype(np.float32)
    (first,) = gpu.run(loaded, x)
    assert torch.equal(loaded(x=torch.from_numpy(x)), torch.from_numpy(first))


def test_what_has_no_kernel_is_left_to_the_runtime() -> None:
    net = Net(1, 4, 6, 6)
    graph = net.graph(net.conv(net.node("cumsum", net.conv("x", 4), axis=3), 4))
    library = codegen.build(graph, "opencl")
    assert library.metadata.kernels["onnxruntime"] == 1
    assert "cumsum" in library.metadata.notes[0]
    x = np.random.default_rng(0).standard_normal((1, 4, 6, 6)).astype(np.float32)
    agree((library(x),), graph, (x,), ["cumsum"])


def test_the_cpp_example_needs_nothing_but_opencl(tmp_path: Path) -> None:
    net = Net(1, 3, 5, 6)
    graph = net.graph(net.head(net.relu(net.conv("x", 4))))
    codegen.build(graph, "opencl").save(tmp_path / "a.lib")
    x = np.random.default_rng(0).standard_normal((1, 3, 5, 6)).astype(np.float32)
    x.tofile(tmp_path / "x.bin")
    program = tmp_path / "gpu"
    subprocess.run(["g++", "-std=c++17", str(EXAMPLE), "-o", str(program), "-lOpenCL"], check=True)
    command = [str(program), str(tmp_path / "a.lib"), str(tmp_path / "x.bin"), "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    agree((np.fromfile(tmp_path / "output0.bin", np.float32).reshape(1, 5),), graph, (x,), ["output"])


def test_nvcc_says_what_a_kernel_takes() -> None:
    kernel = 'extern "C" __global__ void k(float* x) { float a[4]; a[threadIdx.x] = 1; x[0] = a[threadIdx.y]; }'
    _, found = nvcc.compile_cubin(kernel, "sm_90")
    assert found["k"].spilled == 16
