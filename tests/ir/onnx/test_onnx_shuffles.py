"""Permutations are written as what every runtime gets right: reshape, transpose and reshape, or split and concat."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, helper

from secateur.ir import Array, Graph, Node, Sym, Value, reinfer
from secateur.ir.exporters.onnx.write import to_onnx
from secateur.ir.onnx_origin import OnnxOrigin

FULL, BATCH, SIZE = (2, 12, 4, 5), (Sym(2, "N"), 12, 4, 5), (Sym(2, "N"), 12, Sym(4, "H"), Sym(5, "W"))
GRID = np.arange(12).reshape(3, 4).T.reshape(-1)
BLOCKS = np.array([6, 7, 8, 0, 1, 2, 9, 10, 11, 3, 4, 5])
WILD = np.array([5, 3, 8, 1, 11, 0, 2, 10, 9, 4, 7, 6])


def gather(shape: tuple[int, ...], order: Array, axis: int = 1) -> Graph:
    node = Node("gather", ("x", "order"), (Value("y", shape),), {"axis": axis})
    return reinfer(Graph("shuffle", (Value("x", shape),), (node,), ("y",), {"order": order.astype(np.int64)}))


def written(graph: Graph, opset: int) -> ModelProto:
    header = ModelProto(opset_import=[helper.make_opsetid("", opset)], ir_version=8)
    return to_onnx(graph.with_note(OnnxOrigin(header.SerializeToString(), opset)))


def answer(model: ModelProto, x: Array) -> Array:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": x})
    return np.asarray(found)


@pytest.mark.parametrize("opset", [9, 13, 17])
@pytest.mark.parametrize("shape", [FULL, BATCH, SIZE])
@pytest.mark.parametrize(
    ("order", "kinds"),
    [(GRID, ["Reshape", "Transpose", "Reshape"]), (BLOCKS, ["Split", "Concat"]), (WILD, ["Gather"])],
)
def test_permutations_of_channels(order: Array, kinds: list[str], shape: tuple[int, ...], opset: int) -> None:
    model = written(gather(shape, order), opset)
    moves = [n for n in model.graph.node if n.output[0] == "y" or (n.input[0] == "x" and n.op_type != "Shape")]
    assert moves[0].op_type == kinds[0]
    assert moves[-1].op_type == kinds[-1]
    assert all(n.op_type != "Gather" for n in moves) or kinds == ["Gather"]
    x = np.random.default_rng(0).standard_normal((3, 12, 6, 7) if shape is SIZE else FULL).astype(np.float32)
    assert np.array_equal(answer(model, x), x[:, order])


def test_the_last_axis_and_a_vector() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 12)).astype(np.float32)
    assert np.array_equal(answer(to_onnx(gather((2, 3, 12), GRID, 2)), x), x[..., GRID])


def test_what_is_no_permutation_stays_an_index() -> None:
    model = to_onnx(gather(FULL, np.array([0, 1, 2, 0, 1, 2])))
    assert [n.op_type for n in model.graph.node] == ["Gather"]
