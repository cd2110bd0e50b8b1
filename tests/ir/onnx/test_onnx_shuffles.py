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


def joined(order: Array, sizes: tuple[int, ...], *, read: bool = False, op: str = "split") -> Graph:
    """Two layers joined, shuffled and split, each part read by a layer; ``read``: the shuffle's result as well."""
    n = len(order)
    ends = np.cumsum(sizes).tolist()
    parts = [Value(f"p{i}", (2, size, 4, 5)) for i, size in enumerate(sizes)]
    nodes = [
        Node("relu", ("x",), (Value("a", FULL),)),
        Node("sigmoid", ("x",), (Value("b", FULL),)),
        Node("concat", ("a", "b"), (Value("c", (2, n, 4, 5)),), {"axis": 1}),
        Node("gather", ("c", "order"), (Value("s", (2, n, 4, 5)),), {"axis": 1}),
    ]
    if op == "split":
        nodes.append(Node("split", ("s",), tuple(parts), {"axis": 1, "sizes": sizes}))
    else:
        nodes += [
            Node("slice", ("s",), (part,), {"axes": (1,), "starts": (end - size,), "ends": (end,), "steps": (1,)})
            for part, size, end in zip(parts, sizes, ends, strict=True)
        ]
    nodes += [Node("neg", (part.name,), (Value(f"y{i}", part.shape),)) for i, part in enumerate(parts)]
    outputs = (*(f"y{i}" for i in range(len(sizes))), *(["s"] if read else []))
    return reinfer(Graph("joined", (Value("x", FULL),), tuple(nodes), outputs, {"order": order.astype(np.int64)}))


def arrays(graph: Graph, x: Array) -> list[Array]:
    session = onnxruntime.InferenceSession(to_onnx(graph).SerializeToString(), providers=["CPUExecutionProvider"])
    return [np.asarray(found) for found in session.run(None, {"x": x})]


PIECEMEAL = np.concatenate([np.arange(5), np.arange(12, 19), np.arange(5, 12), np.arange(19, 24)])
LARGE_GRID = np.arange(24).reshape(2, 12).T.reshape(-1)


@pytest.mark.parametrize("op", ["split", "slice"])
@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize("sizes", [(12, 12), (10, 14), (5, 7, 12), (24,)])
@pytest.mark.parametrize("order", [PIECEMEAL, PIECEMEAL[::-1].copy(), np.roll(np.arange(24), 12), LARGE_GRID])
def test_parts_of_a_shuffle_are_put_together_from_pieces(
    order: Array, sizes: tuple[int, ...], read: bool, op: str
) -> None:
    graph = joined(order, sizes, read=read, op=op)
    x = np.random.default_rng(0).standard_normal(FULL).astype(np.float32)
    whole = np.concatenate([np.maximum(x, 0), 1 / (1 + np.exp(-x))], 1)[:, order]
    want = [-part for part in np.split(whole, np.cumsum(sizes)[:-1], 1)] + ([whole] if read else [])
    for have, expected in zip(arrays(graph, x), want, strict=True):
        assert np.allclose(have, expected, atol=1e-6)


def test_pieces_are_taken_from_the_layers_themselves() -> None:
    model = to_onnx(joined(PIECEMEAL, (10, 14)))
    found = {node.output[0]: node for node in model.graph.node}
    assert "c" not in found
    assert "s" not in found
    assert [node.op_type for node in model.graph.node].count("Split") == 2
    assert {found[name].op_type for name in ("p0", "p1")} == {"Concat"}
    assert [t.name for t in model.graph.initializer if t.name == "order"] == []


def test_a_grid_in_equal_parts_is_written_as_it_was() -> None:
    kinds = [node.op_type for node in to_onnx(joined(LARGE_GRID, (12, 12))).graph.node]
    assert "Transpose" in kinds
    assert kinds.count("Split") == 1
