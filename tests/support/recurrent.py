"""Recurrent layers as ONNX has them, and what ONNX Runtime computes of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

HIDDEN, STEPS, BATCH, INPUTS = 6, 5, 2, 8
GATES = {"LSTM": 4, "GRU": 3}


def layer(op: str, outputs: list[str], states: list[str], ways: int, hidden: int = HIDDEN) -> onnx.ModelProto:
    """A recurrent layer on x; ``states``: "" none, "given" an input of the network, "constant" a weight."""
    rng = np.random.default_rng(0)
    sizes = {"w": (GATES[op] * hidden, INPUTS), "r": (GATES[op] * hidden, hidden), "b": (2 * GATES[op] * hidden,)}
    inputs = {"x": (STEPS, BATCH, INPUTS)}
    names = ["x", "w", "r", "b", ""]
    for i, kind in enumerate(states):
        name = f"{kind}{i}" if kind else ""
        names.append(name)
        (inputs if kind == "given" else sizes)[name] = (ways, BATCH, hidden) if kind == "given" else (BATCH, hidden)
    weights = [
        numpy_helper.from_array((rng.standard_normal((ways, *shape)) * 0.3).astype(np.float32), name)
        for name, shape in sizes.items() if name
    ]  # fmt: skip
    direction = "bidirectional" if ways == 2 else "forward"
    nodes = [helper.make_node(op, names, outputs, hidden_size=hidden, direction=direction)]
    nodes.append(helper.make_node("Relu", [outputs[0]], ["z"]))
    results = ["z", *filter(None, outputs[1:])]
    value: Any = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [value(n, TensorProto.FLOAT, None) for n in results], weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def by_runtime(model: onnx.ModelProto, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of a model."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, dict(feed))
    return found
