"""Whole ONNX models in and out: onnx's own light models, every operator set, single nodes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from secateur.ir.exporters.onnx.write import to_onnx
from secateur.ir.frontends.onnx.load import OnnxOrigin, load
from secateur.ir.graph import Node, Source, Sym
from secateur.ir.verify import verify
from support.onnx_models import F, close, drawn, model, round_trip, run, versioned

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


@pytest.mark.parametrize(
    "name", ["shufflenet", "squeezenet", "resnet50", "inception_v1", "inception_v2", "densenet121"]
)
def test_light_models(name: str) -> None:
    original = onnx.load(LIGHT / f"light_{name}.onnx")
    shapes = {i.name: onnx.numpy_helper.to_array(i) for i in original.graph.initializer}
    for node in list(original.graph.node):
        if node.op_type == "ConstantOfShape" and node.input[0] in shapes:
            shape = tuple(shapes[node.input[0]])
            array = drawn(*shape) / np.sqrt(max(1, int(np.prod(shape[1:]))), dtype=np.float32)
            array = np.abs(array) + np.float32(0.5) if len(shape) == 1 else array
            original.graph.node.remove(node)
            original.graph.initializer.append(onnx.numpy_helper.from_array(array, node.output[0]))
    graph = round_trip(original, drawn(1, 3, 224, 224))
    assert not any(n.op == "opaque" for n in graph.nodes)


def test_weights_made_by_nodes_are_weights() -> None:
    graph = load(LIGHT / "light_squeezenet.onnx")
    convs = [n for n in graph.nodes if n.op == "conv"]
    assert convs
    assert all(n.inputs[1] in graph.weights for n in convs)


# -- operator sets --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12, 13, 17, 18, 20, 21])
def test_operator_sets(opset: int) -> None:
    original = versioned(opset)
    graph = round_trip(original, drawn(1, 3, 16, 16))
    assert not any(n.op == "opaque" for n in graph.nodes)
    written = to_onnx(graph)
    assert written.opset_import[0].version == opset
    kept = {n.name for n in written.graph.node}
    assert {n.name for n in original.graph.node} <= kept


@pytest.mark.parametrize("auto", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("kind", ["Conv", "MaxPool", "AveragePool", "ConvTranspose"])
def test_automatic_padding(kind: str, auto: str) -> None:
    weighted = kind.startswith("Conv")
    attrs = {"auto_pad": auto, "strides": [2, 2]} | ({} if weighted else {"kernel_shape": [3, 2]})
    node = helper.make_node(kind, ["x", "w"] if weighted else ["x"], ["y"], **attrs)
    round_trip(
        model([node], {"x": [1, 4, 9, 8]}, ["y"], 13, **({"w": drawn(4, 4, 3, 2)} if weighted else {})),
        drawn(1, 4, 9, 8),
    )


def test_transposed_convolution_to_a_given_size() -> None:
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], output_shape=[10, 11])
    round_trip(model([node], {"x": [1, 4, 5, 5]}, ["y"], 13, w=drawn(4, 2, 3, 3)), drawn(1, 4, 5, 5))


@pytest.mark.parametrize("attrs", [{}, {"transA": 1}, {"alpha": 0.5}, {"beta": 3.0}, {"transA": 1, "alpha": 2.0}])
@pytest.mark.parametrize("bias", [(5,), (1, 5), (1,), None])
def test_gemm(attrs: dict[str, Any], bias: tuple[int, ...] | None) -> None:
    weights = {"w": drawn(4, 5)} | ({"c": drawn(*bias)} if bias else {})
    node = helper.make_node("Gemm", ["x", "w", "c"] if bias else ["x", "w"], ["y"], **attrs)
    shape = [4, 3] if attrs.get("transA") else [3, 4]
    round_trip(model([node], {"x": shape}, ["y"], 13, **weights), drawn(*shape))


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1])
@pytest.mark.parametrize("opset", [11, 13])
def test_softmax_of_old_flattens(axis: int, opset: int) -> None:
    node = helper.make_node("Softmax", ["x"], ["y"], axis=axis)
    round_trip(model([node], {"x": [2, 3, 4, 5]}, ["y"], opset), drawn(2, 3, 4, 5))


def test_slope_vector_aligns_from_the_last_axis() -> None:
    node = helper.make_node("PRelu", ["x", "w"], ["y"])
    round_trip(model([node], {"x": [2, 4, 4, 4]}, ["y"], 13, w=drawn(4)), drawn(2, 4, 4, 4))


def test_channels_last_input() -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["y"]),
    ]
    graph = round_trip(model(nodes, {"x": ["N", 8, 8, 3]}, ["y"], 13, w=drawn(4, 3, 3, 3)), drawn(2, 8, 8, 3))
    assert [n.op for n in graph.nodes] == ["transpose", "conv", "reduce_mean"]


def test_old_files_that_list_weights_as_inputs() -> None:
    original = model(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        {"x": [1, 3, 8, 8], "w": [4, 3, 3, 3]},
        ["y"],
        8,
        w=drawn(4, 3, 3, 3),
        unused=drawn(2),
    )
    original.ir_version = 3
    original.graph.input.append(helper.make_tensor_value_info("unused", F, [2]))
    graph = load(original)
    written = to_onnx(graph)
    assert [v.name for v in graph.inputs] == ["x"] == [i.name for i in written.graph.input]
    assert written.ir_version >= 4


def test_unknown_operators_pass_through_word_for_word() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("LpPool", ["c"], ["l"], kernel_shape=[2, 2], p=3, name="odd"),
        helper.make_node("Relu", ["l"], ["y"]),
    ]
    graph = round_trip(model(nodes, {"x": ["N", 3, 8, 8]}, ["y"], 13, w=drawn(4, 3, 3, 3)), drawn(2, 3, 8, 8))
    (odd,) = [n for n in graph.nodes if n.op == "opaque"]
    assert odd.attrs["target"] == "ai.onnx::LpPool"
    assert odd.out.shape == (1, 4, 5, 5)
    assert isinstance(odd.out.shape[0], Sym)
    assert to_onnx(graph).graph.node[1] == nodes[1]


def test_a_branch_reads_values_from_outside() -> None:
    then = helper.make_graph(
        [helper.make_node("Relu", ["c"], ["t"])], "then", [], [helper.make_tensor_value_info("t", F, None)]
    )
    other = helper.make_graph(
        [helper.make_node("Neg", ["c"], ["e"])], "else", [], [helper.make_tensor_value_info("e", F, None)]
    )
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("ReduceMax", ["c"], ["big"], keepdims=0),
        helper.make_node("Greater", ["big", "zero"], ["cond"]),
        helper.make_node("If", ["cond"], ["y"], then_branch=then, else_branch=other),
    ]
    original = model(nodes, {"x": [1, 3, 8, 8]}, ["y"], 13, w=drawn(4, 3, 3, 3), zero=np.array(0, np.float32))
    graph = round_trip(original, drawn(1, 3, 8, 8))
    branch = graph.producer["y"]
    assert branch.op == "opaque"
    assert branch.inputs == ("cond", "c")
    # A pass may call the value the branch reads by another name.
    renamed = [
        Node(n.op, tuple("z" if i == "c" else i for i in n.inputs), n.outputs, n.attrs, n.source) for n in graph.nodes
    ]
    first = renamed[0]
    renamed[0] = Node("conv", first.inputs, (type(first.out)("z", first.out.shape),), first.attrs, Source("z"))
    x = drawn(1, 3, 8, 8)
    close(run(to_onnx(verify(graph.rewrite(nodes=renamed))), x), run(original, x))


def test_a_branch_that_shapes_decide_is_taken() -> None:
    then = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["t"])], "then", [], [helper.make_tensor_value_info("t", F, None)]
    )
    other = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["e"])], "else", [], [helper.make_tensor_value_info("e", F, None)]
    )
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "one"], ["d"]),
        helper.make_node("Equal", ["d", "four"], ["cond"]),
        helper.make_node("If", ["cond"], ["y"], then_branch=then, else_branch=other),
    ]
    graph = round_trip(model(nodes, {"x": [2, 4]}, ["y"], 13, one=np.array(1), four=np.array(4)), drawn(2, 4))
    assert [n.op for n in graph.nodes] == ["relu", "identity"]


@pytest.mark.parametrize("opset", [9, 11, 17])
def test_gathers_count_their_axis_from_behind(opset: int) -> None:
    """OpenVINO 2026.4.1 drops a permutation of axis 1 before a convolution; before opset 11 there is no other way."""
    nodes = [
        helper.make_node("Gather", ["x", "order"], ["g"], axis=1), helper.make_node("Conv", ["g", "w"], ["y"]),
    ]  # fmt: skip
    weights = {"order": np.random.default_rng(0).permutation(64), "w": drawn(5, 64, 1, 1)}  # few pieces are no Gather
    x = drawn(1, 64, 6, 6)
    original = model(nodes, {"x": [1, 64, 6, 6]}, ["y"], opset, **weights)
    graph = round_trip(original, x)
    origin = graph.note(OnnxOrigin)
    assert origin is not None
    written = to_onnx(graph.with_note(dataclasses.replace(origin, originals={})))  # as of nodes that a pass made
    (gather,) = (n for n in written.graph.node if n.op_type == "Gather")
    assert gather.attribute[0].i == (-3 if opset >= 11 else 1)
    close(run(written, x), run(original, x))
