"""LSTM and GRU on GPUs: by PoCL next to ONNX Runtime, by Oclgrind, and by nvcc."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from secateur import codegen
from secateur.capture import load
from secateur.codegen.gpu_library import GpuLibrary
from secateur.codegen.targets import GPUS
from secateur.ir import Graph, Unsupported
from support import gpu
from support.recurrent import by_runtime, layer

pytest.importorskip("tvm", reason="code generation needs apache-tvm")
pytestmark = gpu.marks()  # skipped where PoCL, Oclgrind or nvcc is missing, which Python alone does not bring


def read(model: onnx.ModelProto, folder: Path) -> tuple[Graph, dict[str, np.ndarray]]:
    """The graph of a model, and drawn inputs."""
    onnx.save(model, folder / "m.onnx")
    graph, rng = load(folder / "m.onnx"), np.random.default_rng(1)
    return graph, {v.name: rng.standard_normal(v.shape).astype(np.float32) for v in graph.inputs}


@pytest.mark.parametrize(
    ("op", "outputs", "states", "ways", "hidden"),
    [
        ("LSTM", ["y", "h", "c"], ["given", "constant"], 2, 6), ("LSTM", ["y"], [], 1, 270),
        ("GRU", ["y", "h"], ["constant"], 2, 33), ("GRU", ["y"], ["given"], 1, 6),
    ],
)  # fmt: skip
def test_steps_agree_with_onnx_runtime(
    op: str, outputs: list[str], states: list[str], ways: int, hidden: int, tmp_path: Path
) -> None:
    """Also more units than work items, units for a part of the work items, and states that are given or left out."""
    model = layer(op, outputs, states, ways, hidden)
    graph, feed = read(model, tmp_path)
    library = codegen.build(graph, "opencl")
    assert isinstance(library, GpuLibrary)
    assert library.metadata.kernels["recurrent"] == ways
    for got, want in zip(gpu.run(library, *feed.values()), by_runtime(model, feed), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=5e-6)


def test_weights_with_zeros_are_kept_whole(tmp_path: Path) -> None:
    """On processors these would be left out, by another kernel."""
    model = layer("LSTM", ["y"], [], 1, 64)
    for weight in model.graph.initializer:
        if weight.name == "r":
            array = onnx.numpy_helper.to_array(weight).copy()
            array[..., 4:] = 0
            weight.CopyFrom(onnx.numpy_helper.from_array(array, "r"))
    graph, feed = read(model, tmp_path)
    library = codegen.build(graph, "opencl")
    assert isinstance(library, GpuLibrary)
    (got,), (want,) = gpu.run(library, *feed.values()), by_runtime(model, feed)
    np.testing.assert_allclose(got, want, rtol=0, atol=5e-6)


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_steps_do_not_race(op: str, tmp_path: Path) -> None:
    """In a GRU whose reset gate comes before the weights what the gate leaves of the state is shared as well."""
    model = layer(op, ["y", "h"], ["constant"], 1, 3)
    graph, feed = read(model, tmp_path)
    library = codegen.build(graph, "opencl")
    assert isinstance(library, GpuLibrary)
    found, log = gpu.interpreted(library, tmp_path, *feed.values())
    assert not log
    for got, want in zip(found, by_runtime(model, feed), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=5e-6)


@pytest.mark.parametrize(("op", "hidden", "target"), [("LSTM", 1024, "cuda:sm_75"), ("GRU", 700, "cuda:sm_90")])
def test_cubins_keep_all_numbers_in_registers(op: str, hidden: int, target: str, tmp_path: Path) -> None:
    """The most units that a group has room for; more are left to the runtime."""
    graph, _ = read(layer(op, ["y"], [], 1, hidden), tmp_path)
    library = codegen.build(graph, target)
    assert isinstance(library, GpuLibrary)
    assert library.metadata.kernels["recurrent"] == 1
    for name, used in library.code.resources.items():
        assert not used.spilled, (name, used)
        assert used.shared <= GPUS[target].shared, (name, used)


def test_too_many_units_are_left_to_the_runtime(tmp_path: Path) -> None:
    graph, _ = read(layer("GRU", ["y"], [], 1, 1025), tmp_path)
    with pytest.raises(Unsupported, match=r"no code for gru .*1025 hidden units, .* up to 1024: prune it, or build"):
        codegen.show_plan(graph, "opencl")
