"""The judge of written files: what it takes for equal, for fixed, for wrong."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bench.reach import onnx_sizes


def net(path: Path, scale: float = 1.0, batch: int | str = "n", width: int | str = "w") -> Path:
    weight = numpy_helper.from_array(np.arange(1, 25, dtype=np.float32).reshape(2, 4, 3) * scale, "weight")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "weight"], ["y"])], "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], [weight],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_the_same_network_is_compared_at_three_sizes_of_each_axis(tmp_path: Path):
    file = net(tmp_path / "a.onnx")
    found = onnx_sizes.compare(file, file, None, {})
    assert found["max_rel_err"] == 0 and not (found["differ"] or found["refused"] or found["fixed"])
    widths = {sizes["w"] for sizes in found["sizes"]}
    assert len(widths) == 4 and len({sizes["n"] for sizes in found["sizes"]}) == 4
    assert all(width % 32 for width in widths)


def test_another_network_differs_and_a_fixed_size_is_told_from_a_refusal(tmp_path: Path):
    file = net(tmp_path / "a.onnx")
    assert onnx_sizes.compare(file, net(tmp_path / "b.onnx", scale=1.001), None, {})["differ"]
    fixed = onnx_sizes.compare(file, net(tmp_path / "c.onnx", width=77), None, {})
    assert {entry["w"] for entry in fixed["fixed"]} == {45, 101, 233} and not fixed["refused"]


def test_columns_that_a_recipe_drops_are_zero_in_the_reference(tmp_path: Path):
    file = net(tmp_path / "a.onnx")
    recipe = {
        "original": {"weights": {"weight": [2, 4, 3]}}, "weights": {"weight": {"kept": {"1": [0, 2, 3]}}}, "mixing": [],
    }  # fmt: skip
    model = onnx.load(file)
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[:, 1] = 0
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "weight"))
    onnx.save(model, tmp_path / "masked.onnx")
    assert onnx_sizes.compare(file, tmp_path / "masked.onnx", recipe, {})["max_rel_err"] == 0
    assert onnx_sizes.compare(file, file, recipe, {})["differ"]
