"""LSTM and GRU compared with ONNX Runtime: states computed, constant or left out, and outputs that nobody names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from secateur import codegen
from secateur.capture import load

HIDDEN, STEPS, BATCH, INPUTS = 6, 5, 2, 8
GATES = {"LSTM": 4, "GRU": 3}


def layer(op: str, outputs: list[str], states: list[str], ways: int) -> onnx.ModelProto:
    """A recurrent layer on x; ``states``: "" none, "given" an input of the network, "constant" a weight."""
    rng = np.random.default_rng(0)
    sizes = {"w": (GATES[op] * HIDDEN, INPUTS), "r": (GATES[op] * HIDDEN, HIDDEN), "b": (2 * GATES[op] * HIDDEN,)}
    inputs = {"x": (STEPS, BATCH, INPUTS)}
    names = ["x", "w", "r", "b", ""]
    for i, kind in enumerate(states):
        name = f"{kind}{i}" if kind else ""
        names.append(name)
        (inputs if kind == "given" else sizes)[name] = (ways, BATCH, HIDDEN) if kind == "given" else (BATCH, HIDDEN)
    weights = [
        numpy_helper.from_array((rng.standard_normal((ways, *shape)) * 0.3).astype(np.float32), name)
        for name, shape in sizes.items() if name
    ]  # fmt: skip
    direction = "bidirectional" if ways == 2 else "forward"
    nodes = [helper.make_node(op, names, outputs, hidden_size=HIDDEN, direction=direction)]
    nodes.append(helper.make_node("Relu", [outputs[0]], ["z"]))
    results = ["z", *filter(None, outputs[1:])]
    value: Any = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [value(n, TensorProto.FLOAT, None) for n in results], weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("ways", [1, 2])
@pytest.mark.parametrize(
    ("op", "outputs", "states"),
    [
        ("LSTM", ["y", "h", "c"], ["constant", "constant"]), ("LSTM", ["y"], []), ("LSTM", ["y", "h"], []),
        ("LSTM", ["y", "", "c"], ["given", ""]), ("LSTM", ["y", "h", "c"], ["given", "constant"]),
        ("GRU", ["y", "h"], ["constant"]), ("GRU", ["y"], ["given"]),
    ],
)  # fmt: skip
def test_a_library_agrees_with_onnx_runtime(
    op: str, outputs: list[str], states: list[str], ways: int, tmp_path: Path
) -> None:
    model = layer(op, outputs, states, ways)
    onnx.save(model, tmp_path / "m.onnx")
    library = codegen.build(load(tmp_path / "m.onnx"))
    rng = np.random.default_rng(1)
    feed = {p.name: rng.standard_normal(p.shape).astype(np.float32) for p in library.metadata.inputs}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = library(**feed)
    for got, want in zip(found if isinstance(found, tuple) else (found,), session.run(None, feed), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-6)
