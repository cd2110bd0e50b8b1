"""ONNX files: what cannot be read or written ends in one clear error, and nothing is left half-written."""

from __future__ import annotations

import errno
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

import secateur.ir.exporters.onnx.write as exporter
from secateur.ir import files
from secateur.ir.errors import Error, InputError, Unsupported
from secateur.ir.exporters.onnx.write import save, to_onnx
from secateur.ir.frontends.onnx.load import load
from secateur.ir.graph import Graph

F = TensorProto.FLOAT


def model(
    *,
    weight: np.ndarray[Any, Any] | None = None,
    shape: tuple[Any, ...] = (1, 3, 8, 8),
    opset: int = 13,
    nodes: list[Any] | None = None,
) -> ModelProto:
    w = np.ones((4, 3, 3, 3), np.float32) if weight is None else weight
    graph = helper.make_graph(
        nodes if nodes is not None else [helper.make_node("Conv", ["x", "w"], ["y"], name="first")],
        "net",
        [helper.make_tensor_value_info("x", F, shape)],
        [helper.make_tensor_value_info("y", F, None)],
        [onnx.numpy_helper.from_array(w, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def refused(source: Any, *words: str, kind: type[Error] = InputError) -> str:
    with pytest.raises(kind) as caught:
        load(source)
    for word in words:
        assert word in str(caught.value)
    return str(caught.value)


# -- reading --------------------------------------------------------------------------------------------------
def test_missing_file_and_directory(tmp_path: Path) -> None:
    refused(tmp_path / "no.onnx", "no.onnx", "no such file")
    refused(tmp_path, "directory")


@pytest.mark.parametrize("content", [b"this is not a network at all", b"\x89PNG\r\n\x1a\n", b"{}"])
def test_another_kind_of_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(content)
    refused(path, "other.onnx")


def test_an_empty_file_and_an_empty_graph(tmp_path: Path) -> None:
    path = tmp_path / "empty.onnx"
    path.write_bytes(b"")
    refused(path, "empty.onnx", "holds no graph")
    refused(model(nodes=[]), "no nodes")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
def test_truncated_files(tmp_path: Path, share: float) -> None:
    data = model(weight=np.ones((64, 3, 3, 3), np.float32)).SerializeToString()
    path = tmp_path / "cut.onnx"
    path.write_bytes(data[: int(len(data) * share)])
    refused(path, "cut.onnx")


def test_missing_and_short_external_data(tmp_path: Path) -> None:
    path = tmp_path / "big.onnx"
    onnx.save_model(model(), str(path), save_as_external_data=True, location="big.bin", size_threshold=0)
    assert load(path).weights["w"].shape == (4, 3, 3, 3)
    (tmp_path / "big.bin").write_bytes(b"\0" * 10)
    refused(path, "weight 'w' ends at byte 432 of 'big.bin', which has 10")
    (tmp_path / "big.bin").unlink()
    refused(path, "'w'", "big.bin", "missing")


def test_cycles_and_dangling_reads() -> None:
    circle = [
        helper.make_node("Add", ["x", "b"], ["a"], name="A"),
        helper.make_node("Relu", ["a"], ["b"], name="B"),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    refused(model(nodes=circle), "cyclic", "'A'", "'B'")
    refused(model(nodes=[helper.make_node("Add", ["x", "ghost"], ["y"], name="A")]), "'ghost'", "'A'")


def test_nodes_out_of_order_are_sorted() -> None:
    nodes = [helper.make_node("Relu", ["c"], ["y"]), helper.make_node("Conv", ["x", "w"], ["c"])]
    assert [n.op for n in load(model(nodes=nodes)).nodes] == ["conv", "relu"]


def test_unknown_domains() -> None:
    strange = helper.make_node("Fancy", ["x"], ["y"], domain="my.company", name="F")
    refused(model(nodes=[strange]), "my.company::Fancy", "'F'", kind=Unsupported)
    typed = model(nodes=[strange])
    typed.opset_import.append(helper.make_opsetid("my.company", 1))
    typed.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", F, [1, 5]))
    graph = load(typed)
    assert graph.nodes[0].op == "opaque"
    assert graph.nodes[0].out.shape == (1, 5)
    assert to_onnx(graph).graph.node[0] == strange


def test_dynamic_channels_zero_sizes_and_unknown_ranks() -> None:
    refused(model(shape=("N", "C", 8, 8)), "'x'", "dynamic channel count", "axis 1")
    refused(model(shape=(1, 3, 0, 8)), "'x'", "size 0", "axis 2")
    blind = model()
    blind.graph.input[0].type.tensor_type.ClearField("shape")
    refused(blind, "'x'", "rank")


def test_shapes_that_do_not_fit() -> None:
    refused(model(shape=(1, 5, 8, 8)), "'first'", "Conv", "5")
    refused(model(shape=(1, 3, 2, 2)), "'first'", "window")
    refused(model(weight=np.ones((0, 3, 3, 3), np.float32)), "'first'")


@pytest.mark.parametrize(("bad", "word"), [(np.nan, "NaN"), (np.inf, "infinite")])
def test_weights_that_are_no_numbers(bad: float, word: str) -> None:
    w = np.ones((4, 3, 3, 3), np.float32)
    w[1, 2, 0, 0] = bad
    refused(model(weight=w), "'w'", "'first'", word)


def test_a_mask_may_hold_minus_infinity() -> None:
    mask = np.array([0, -np.inf, 0, 0, 0, 0, 0, 0], np.float32)
    load(model(weight=mask, nodes=[helper.make_node("Add", ["x", "w"], ["y"])]))


def test_operator_sets_too_old_and_too_new() -> None:
    refused(model(opset=6), "operator set 6", "7", kind=Unsupported)
    refused(model(opset=onnx.defs.onnx_opset_version() + 1), "upgrade onnx", kind=Unsupported)


def test_half_precision_is_accepted() -> None:
    half = model(weight=np.ones((4, 3, 3, 3), np.float16))
    half.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    assert load(half).nodes[0].out.dtype == "f16"


def test_the_callers_model_is_left_alone() -> None:
    original = model(shape=("N", 3, 8, 8))
    before = original.SerializeToString(deterministic=True)
    to_onnx(load(original))
    assert original.SerializeToString(deterministic=True) == before


# -- writing --------------------------------------------------------------------------------------------------
@pytest.fixture
def graph() -> Graph:
    return load(model())


def test_save_and_load(tmp_path: Path, graph: Graph) -> None:
    path = tmp_path / "out.onnx"
    save(graph, path)
    onnx.checker.check_model(str(path), full_check=True)
    assert str(load(path)) == str(graph)
    assert os.listdir(tmp_path) == ["out.onnx"]


def test_folders_that_cannot_be_written(tmp_path: Path, graph: Graph) -> None:
    with pytest.raises(InputError, match="does not exist"):
        save(graph, tmp_path / "nowhere" / "out.onnx")
    with pytest.raises(InputError, match="it is a folder"):
        save(graph, tmp_path)


@pytest.mark.parametrize(("number", "place"), [(errno.EACCES, "open"), (errno.ENOSPC, "fsync"), (errno.EROFS, "open")])
def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, graph: Graph, monkeypatch: pytest.MonkeyPatch, number: int, place: str
) -> None:
    path = tmp_path / "out.onnx"
    path.write_bytes(b"old")

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, place, fail)
    with pytest.raises(InputError, match=files.WHY[number]):
        save(graph, path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out.onnx"]


def test_large_models_put_their_weights_beside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "LARGEST", 1000)
    rng = np.random.default_rng(0)
    graph = load(model(weight=rng.standard_normal((64, 3, 3, 3)).astype(np.float32)))
    save(graph, tmp_path / "out.onnx")
    assert sorted(os.listdir(tmp_path)) == ["out.onnx", "out.onnx.data"]
    onnx.checker.check_model(str(tmp_path / "out.onnx"), full_check=True)
    np.testing.assert_array_equal(load(tmp_path / "out.onnx").weights["w"], graph.weights["w"])


def test_memory_stays_a_small_multiple_of_the_model(tmp_path: Path) -> None:
    size = 1 << 24
    path = tmp_path / "heavy.onnx"
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Gemm", ["f", "w"], ["y"])]
    onnx.save(model(weight=np.ones((192, size // 192 // 4), np.float32), nodes=nodes), str(path))
    tracemalloc.start()
    save(load(path), tmp_path / "out.onnx")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * size
