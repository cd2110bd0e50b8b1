"""Tensors without data, which exporters make on purpose: parts of a Concat that add nothing."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from secateur.ir import InputError, Unsupported
from secateur.ir.exporters.onnx.session import Session
from secateur.ir.frontends.onnx.load import load

EMPTY = (
    helper.make_node("Shape", ["x"], ["s"]),
    helper.make_node("Gather", ["s", "first"], ["n"]),
    helper.make_node("Concat", ["n", "rest"], ["shape"], axis=0),
    helper.make_node("ConstantOfShape", ["shape"], ["ones"], value=numpy_helper.from_array(np.ones(1, np.float32))),
    helper.make_node("Mul", ["ones", "low"], ["empty"], name="fill"),
)


def model(out: str, parts: tuple[str, ...]) -> ModelProto:
    """An embedding of `x`, between parts that hold nothing."""
    rng = np.random.default_rng(0)
    held = {"first": np.array([0]), "rest": np.array([0, 4]), "low": np.float32(-1e9),
            "w": rng.standard_normal((5, 4)).astype(np.float32)}  # fmt: skip
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        *EMPTY,
        *([helper.make_node("Concat", list(parts), [out], axis=1)] if parts else []),
    ]
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 5])],
        [helper.make_tensor_value_info(out, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in held.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("parts", [("y", "empty"), ("empty", "y", "y"), ("empty", "y", "empty")])
def test_an_empty_part_of_a_concat_adds_nothing(parts: tuple[str, ...]) -> None:
    source = model("out", parts)
    graph = load(source)
    assert all(0 not in value.shape for node in graph.nodes for value in node.outputs)
    original = onnxruntime.InferenceSession(source.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        x = np.random.default_rng(batch).standard_normal((batch, 3, 5)).astype(np.float32)
        (want,), (have,) = original.run(None, {"x": x}), Session(graph).run({"x": x})
        np.testing.assert_allclose(have, want, rtol=1e-6)


@pytest.mark.parametrize(("out", "parts"), [("empty", ()), ("out", ("empty", "empty"))])
def test_an_output_without_data_is_refused(out: str, parts: tuple[str, ...]) -> None:
    with pytest.raises((InputError, Unsupported), match=r"size zero|size 0|no data"):
        load(model(out, parts))
