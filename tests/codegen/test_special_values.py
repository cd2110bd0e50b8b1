"""NaN and infinity compared with ONNX Runtime: an activation hands them on, as the network's own runtime does."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from secateur import codegen
from secateur.capture import load

VALUES = (np.nan, np.inf, -np.inf, 0.0, 1e-40, 100.0, -100.0, 88.7, 88.2, -90.0, 1e30, -1e30, 1.5, -1.5, 0.5, 400.0)
ACTIVATIONS: dict[str, dict[str, Any]] = {
    "Relu": {}, "Sigmoid": {}, "Tanh": {}, "Exp": {}, "Erf": {}, "Softplus": {}, "Softsign": {}, "Neg": {}, "Abs": {},
    "Floor": {}, "Ceil": {}, "Reciprocal": {}, "Sqrt": {}, "Selu": {}, "Elu": {"alpha": 0.7}, "Celu": {"alpha": 1.3},
    "LeakyRelu": {}, "HardSigmoid": {}, "HardSwish": {}, "Sign": {}, "Round": {}, "Log": {},
}  # fmt: skip
DOUBLE = ("Relu", "Sigmoid", "Tanh", "Exp", "Neg", "Abs", "Floor", "Reciprocal", "Sqrt", "Sign", "Log")


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_activations_hand_on_what_is_no_number(kind: str) -> None:
    """In float32 by our kernels, in float64 by TVM's operators; joined with others, too, from either side."""
    wide = kind == "float64"
    element = TensorProto.DOUBLE if wide else TensorProto.FLOAT
    nodes = [helper.make_node(op, ["x"], [op], **a) for op, a in ACTIVATIONS.items() if op in DOUBLE or not wide]
    nodes += [helper.make_node("Clip", ["x", "low", "high"], ["Clip"]), helper.make_node("Max", ["x", "z"], ["Max"]),
              helper.make_node("Min", ["z", "x"], ["Min"]), helper.make_node("Softmax", ["x"], ["Softmax"], axis=3),
              helper.make_node("LogSoftmax", ["x"], ["LogSoftmax"], axis=3)]  # fmt: skip
    weights = [numpy_helper.from_array(np.array(v, kind), name) for name, v in (("low", -1.0), ("high", 6.0))]
    value: Any = helper.make_tensor_value_info
    shape = [1, len(VALUES), 2, 3]
    graph = helper.make_graph(
        nodes, "g", [value("x", element, shape), value("z", element, shape)],
        [value(n.output[0], element, shape) for n in nodes], weights,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = np.zeros(shape, kind)
    x += np.array(VALUES, kind)[:, None, None]
    feed = {"x": x, "z": np.roll(x, 1, 1)}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = codegen.build(load(model))(**feed)
    for node, got, want in zip(nodes, found, session.run(None, feed), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6, err_msg=node.op_type)


def test_what_follows_a_convolution_hands_it_on() -> None:
    """An epilogue on pixels that are not finite, next to others of the same image, which stay what they are."""
    rng = np.random.default_rng(0)
    value: Any = helper.make_tensor_value_info
    weight = numpy_helper.from_array(rng.standard_normal((20, 6, 1, 1)).astype(np.float32), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Relu", ["c"], ["y"])]
    graph = helper.make_graph(nodes, "g", [value("x", TensorProto.FLOAT, [1, 6, 4, 5])],
                              [value("y", TensorProto.FLOAT, [1, 20, 4, 5])], [weight])  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = rng.standard_normal((1, 6, 4, 5)).astype(np.float32)
    x[0, 2, 1, 1], x[0, 3, 2, 4], x[0, 0, 3, 3] = np.nan, np.inf, 1e38
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (want,) = session.run(None, {"x": x})
    assert np.isnan(want).any() and np.isinf(want).any()
    np.testing.assert_allclose(codegen.build(load(model))(x), want, rtol=1e-5, atol=1e-5)
