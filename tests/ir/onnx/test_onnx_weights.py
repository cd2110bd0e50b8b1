"""Reading a file's large weights past protobuf: the same network, one copy of the data, and no new ways to fail."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from secateur.ir.exporters.onnx.write import to_onnx
from secateur.ir.frontends.onnx.load import load
from secateur.ir.frontends.onnx.weights import read_apart, restored

F = TensorProto.FLOAT
RNG = np.random.default_rng(11)


def drawn(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.standard_normal(shape).astype(np.float32)


def model(*more: Any, width: int = 64) -> ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="first"),
        helper.make_node("Conv", ["a", "v", "k"], ["b"], name="second"),
        *(more or (helper.make_node("Relu", ["b"], ["y"]),)),
    ]
    weights = {"w": drawn(width, 8, 3, 3), "v": drawn(width, width, 1, 1), "k": drawn(width)}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", F, [1, 8, 8, 8])],
        [helper.make_tensor_value_info("y", F, None)],
        [onnx.numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def saved(proto: ModelProto, folder: Path) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def test_the_file_comes_apart_and_together_again(tmp_path: Path) -> None:
    whole = model()
    found = read_apart(saved(whole, tmp_path))
    assert found is not None
    bones, apart = found
    assert set(apart) == {"w", "v"}  # k is small
    assert [bool(t.raw_data) for t in bones.graph.initializer] == [False, False, True]
    assert restored(bones, apart) == whole


def test_a_file_gives_what_the_model_in_memory_gives(tmp_path: Path) -> None:
    whole = model()
    one, other = load(saved(whole, tmp_path)), load(whole)
    assert str(one) == str(other)
    assert list(one.weights) == list(other.weights)
    for name, array in one.weights.items():
        np.testing.assert_array_equal(array, other.weights[name])
        assert array.flags.aligned
    assert not one.weights["w"].flags.writeable
    assert to_onnx(one) == to_onnx(other)


@pytest.mark.parametrize("kind", ["float16", "float64", "int64", "uint8", "bool", "bfloat16"])
def test_element_types(kind: str, tmp_path: Path) -> None:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16) if kind == "bfloat16" else np.dtype(kind)
    array = RNG.integers(0, 2, (90, 100)).astype(dtype)
    proto = model()
    proto.graph.initializer.append(onnx.numpy_helper.from_array(array, "extra"))
    found = read_apart(saved(proto, tmp_path))
    assert found is not None
    assert found[1]["extra"].dtype == dtype
    np.testing.assert_array_equal(found[1]["extra"], array)


def test_packed_types_and_wrong_sizes_are_left_to_protobuf(tmp_path: Path) -> None:
    proto = model()
    packed = proto.graph.initializer.add(name="packed", data_type=TensorProto.INT4, dims=[100, 100])
    packed.raw_data = bytes(5000)
    assert read_apart(saved(proto, tmp_path)) is None
    proto = model()
    proto.graph.initializer[0].dims[0] = 63
    assert read_apart(saved(proto, tmp_path)) is None


def test_numbers_stored_as_floats_stay_in_the_model(tmp_path: Path) -> None:
    proto = model()
    w = onnx.numpy_helper.to_array(proto.graph.initializer[0])
    plain = helper.make_tensor("w", F, w.shape, w.reshape(-1).tolist())
    proto.graph.initializer[0].CopyFrom(plain)
    np.testing.assert_array_equal(load(saved(proto, tmp_path)).weights["w"], w)


def test_a_network_with_functions(tmp_path: Path) -> None:
    body = helper.make_function(
        "local", "Act", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], [helper.make_opsetid("", 13)]
    )
    proto = model(helper.make_node("Act", ["b"], ["y"], domain="local"))
    proto.functions.append(body)
    proto.opset_import.append(helper.make_opsetid("local", 1))
    graph = load(saved(proto, tmp_path))
    assert [n.op for n in graph.nodes] == ["conv", "conv", "relu"]


def test_a_run_that_tells_shapes_has_the_weights(tmp_path: Path) -> None:
    # How many elements are not zero is known only from a run with the real weights.
    nodes = [
        helper.make_node("Relu", ["b"], ["c"]), helper.make_node("NonZero", ["c"], ["d"]),
        helper.make_node("Cast", ["d"], ["y"], to=F),
    ]  # fmt: skip
    proto = model(*nodes)
    assert str(load(saved(proto, tmp_path))) == str(load(proto))


def test_only_one_copy_of_the_weights(tmp_path: Path) -> None:
    path = saved(model(width=1024), tmp_path)  # 4.5 MB
    load(path)
    tracemalloc.start()
    graph = load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.3 * sum(a.nbytes for a in graph.weights.values())
