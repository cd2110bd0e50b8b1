"""Whole ONNX models in and out: onnx's own light models, every operator set, dynamic axes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper

from secateur.ir.exporters.onnx.write import to_onnx
from secateur.ir.frontends.onnx.load import OnnxOrigin, load
from secateur.ir.graph import Array, Graph, Node, Source, Sym
from secateur.ir.text import parse_graph, reinfer
from secateur.ir.verify import verify

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
F = TensorProto.FLOAT
RNG = np.random.default_rng(7)


def run(model: ModelProto, *feeds: Array) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    return list(session.run(None, dict(zip(names, feeds, strict=True))))


def close(mine: list[Array], theirs: list[Array]) -> None:
    for a, b in zip(mine, theirs, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * max(1e-6, float(np.abs(b).max(initial=0))))


def model(
    nodes: list[Any], inputs: dict[str, list[Any]], outputs: list[str], opset: int, **weights: Array
) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(n, F, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(o, F, None) for o in outputs],
        [onnx.numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def drawn(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def drop_originals(graph: Graph) -> Graph:
    """The same graph, every node of which has to be written anew."""
    origin = graph.note(OnnxOrigin)
    assert origin is not None
    return graph.with_note(OnnxOrigin(origin.header, origin.opset, names=origin.names, probes=origin.probes))


def round_trip(original: ModelProto, *feeds: Array) -> Graph:
    """Load and write, verbatim and anew; both must compute what the original computes."""
    graph = load(original)
    want = run(original, *feeds)
    for form in (graph, drop_originals(graph)):
        written = to_onnx(form)
        onnx.checker.check_model(written, full_check=True)
        close(run(written, *feeds), want)
    assert str(parse_graph(str(graph))) == str(graph)
    return graph


# -- whole models ---------------------------------------------------------------------------------------------
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
def versioned(opset: int) -> ModelProto:
    """One network through every operator whose form changed over time, spelled as this operator set spells it."""
    nodes: list[Any] = []
    weights: dict[str, Array] = {
        "w": drawn(8, 3, 3, 3),
        "fc": drawn(10, 8 * 16),
        "b": drawn(10),
        "slope": drawn(8, 1, 1),
    }

    def ints(*values: int) -> str:
        name = f"k{len(weights)}"
        weights[name] = np.array(values, np.int64)
        return name

    def add(kind: str, *inputs: str, out: str, **attrs: Any) -> None:
        nodes.append(helper.make_node(kind, list(inputs), out.split(), name=f"n_{out.split()[0]}", **attrs))

    def moved(kind: str, x: str, out: str, since: int, **lists: tuple[int, ...]) -> None:
        if opset >= since:
            add(kind, x, *(ints(*v) for v in lists.values()), out=out)
        else:
            add(kind, x, out=out, **{k: list(v) for k, v in lists.items()})

    add("Conv", "x", "w", out="c", auto_pad="SAME_UPPER", strides=[2, 2])
    if opset >= 11:
        weights["low"], weights["high"] = np.array(-1.0, np.float32), np.array(6.0, np.float32)
        add("Clip", "c", "low", "high", out="r")
    else:
        add("Clip", "c", out="r", min=-1.0, max=6.0)
    add("PRelu", "r", "slope", out="pr")
    moved("Pad", "pr", "p", 11, pads=(0, 0, 1, 1, 0, 0, 1, 1))
    moved("Slice", "p", "s", 10, starts=(1, 1), ends=(9, 1 << 40), axes=(2, 3)) if opset >= 10 else add(
        "Slice", "p", out="s", starts=[1, 1], ends=[9, 1 << 40], axes=[2, 3]
    )
    if opset >= 13:
        add("Split", "s", ints(2, 6), out="a d", axis=1)
    else:
        add("Split", "s", out="a d", axis=1, split=[2, 6])
    add("Concat", "d", "a", out="j", axis=1)
    moved("Unsqueeze", "j", "u", 13, axes=(2,))
    moved("Squeeze", "u", "q", 13, axes=(2,))
    moved("ReduceMean", "q", "m", 18, axes=(2, 3))
    add("Add", "q", "m", out="qm")
    add("Sum", "q", "qm", "q", out="t")
    if opset >= 12:
        weights["ratio"] = np.array(0.3, np.float32)
        add("Dropout", "t", "ratio", out="dr")
    else:
        add("Dropout", "t", out="dr", ratio=0.3)
    weights["scales"] = np.array([1, 1, 2, 2], np.float32)
    if opset < 9:
        add("Upsample", "dr", out="up", scales=[1.0, 1.0, 2.0, 2.0])
    elif opset == 9:
        add("Upsample", "dr", "scales", out="up")
    elif opset == 10:
        add("Resize", "dr", "scales", out="up")
    else:
        weights["roi"] = np.zeros(0, np.float32)
        add("Resize", "dr", "roi", "scales", out="up", mode="linear")
    add("MaxPool", "up", out="mp", kernel_shape=[4, 4], strides=[4, 4])
    add("Softmax", "mp", out="sm", axis=3 if opset < 13 else 1)
    add("Softmax", "sm", out="sf", axis=1)
    add("Reshape", "sf", ints(0, -1), out="f")
    add("Gemm", "f", "fc", "b", out="y", transB=1, alpha=0.5, beta=2.0)
    return model(nodes, {"x": [1, 3, 16, 16]}, ["y"], opset, **weights)


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


# -- dynamic axes ---------------------------------------------------------------------------------------------
def shaped(height: Any) -> ModelProto:
    """Flattening, shuffling and resizing through shape arithmetic, as exporters write it."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Shape", ["c"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Slice", ["s", "two", "four"], ["hw"]),
        helper.make_node("Unsqueeze", ["n", "zero_axis"], ["n1"]),
        helper.make_node("Concat", ["n1", "grid", "hw"], ["target"], axis=0),
        helper.make_node("Reshape", ["c", "target"], ["g"]),
        helper.make_node("Transpose", ["g"], ["gt"], perm=[0, 2, 1, 3, 4]),
        helper.make_node("Reshape", ["gt", "s"], ["sh"]),
        helper.make_node("Shape", ["x"], ["sx"]),
        helper.make_node("Slice", ["sx", "two", "four"], ["big"]),
        helper.make_node("Slice", ["s", "nil", "two"], ["nc"]),
        helper.make_node("Concat", ["nc", "big"], ["sizes"], axis=0),
        helper.make_node("Resize", ["sh", "", "", "sizes"], ["y"]),
    ]
    arrays = {
        "zero": np.array(0),
        "zero_axis": np.array([0]),
        "nil": np.array([0]),
        "two": np.array([2]),
        "four": np.array([4]),
        "grid": np.array([2, 4]),
    }
    return model(nodes, {"x": ["batch", 3, height, height]}, ["y"], 13, w=drawn(8, 3, 3, 3), **arrays)


def test_shape_arithmetic_is_folded_and_axes_stay_dynamic() -> None:
    original = shaped("side")
    graph = round_trip(original, drawn(3, 3, 32, 32))
    assert [n.op for n in graph.nodes] == ["conv", "reshape", "transpose", "reshape", "resize"]
    assert [d.name for d in graph.nodes[-1].attrs["size"]] == ["side", "side"]
    assert graph.inputs[0].shape[0].name == "batch"
    assert graph.inputs[0].shape[2].name == "side"  # type: ignore[attr-defined]
    for n, side in ((1, 64), (4, 96), (2, 37)):
        x = drawn(n, 3, side, side)
        close(run(to_onnx(drop_originals(graph)), x), run(original, x))


def test_an_axis_that_cannot_be_followed_is_fixed_and_named() -> None:
    """Which axes have one element, and go, depends on the batch: so does the rank of what follows."""
    nodes = [helper.make_node("Squeeze", ["x"], ["s"]), helper.make_node("Relu", ["s"], ["y"])]
    original = model(nodes, {"x": ["N", 6]}, ["y"], 13)
    graph = load(original)
    origin = graph.note(OnnxOrigin)
    assert origin is not None
    (text,) = origin.specialised
    assert "'N'" in text
    assert "fixed at 1" in text
    x = drawn(1, 6)
    close(run(to_onnx(graph), x), run(original, x))


def test_changed_nodes_are_written_anew_and_others_verbatim() -> None:
    graph = load(shaped("side"))
    conv = graph.nodes[0]
    narrower = conv.with_attrs(stride=(1, 1))
    changed = verify(reinfer(graph.rewrite(nodes=[narrower, *graph.nodes[1:]])))
    written = to_onnx(changed)
    assert {a.name: list(a.ints) for a in written.graph.node[0].attribute}["strides"] == [1, 1]
    assert written.graph.node[2] == next(n for n in shaped("side").graph.node if n.output[0] == "gt")


def test_names_that_text_cannot_print_come_back_on_export() -> None:
    nodes = [
        helper.make_node("Conv", ["an input", "w (1)"], ["a,b"]),
        helper.make_node("Relu", ["a,b"], ["the result"]),
    ]
    original = model(nodes, {"an input": [1, 3, 4, 4]}, ["the result"], 13, **{"w (1)": drawn(2, 3, 1, 1)})
    graph = round_trip(original, drawn(1, 3, 4, 4))
    assert "w_(1)" not in graph.weights
    assert not any(" " in v for v in graph.values)
    written = to_onnx(graph)
    assert written.graph.initializer[0].name == "w (1)"
    assert written.graph.output[0].name == "the result"


def test_metadata_stays() -> None:
    original = versioned(13)
    original.producer_name, original.doc_string, original.graph.doc_string = "me", "about", "inner"
    original.metadata_props.add(key="classes", value="cat,dog")
    written = to_onnx(load(original))
    assert (written.producer_name, written.doc_string, written.graph.doc_string) == ("me", "about", "inner")
    assert written.metadata_props[0].value == "cat,dog"


def test_node_names_are_unique_and_the_files_own_come_first() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="one"),
        helper.make_node("Relu", ["a"], ["b"], name="two"),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    graph = load(model(nodes, {"x": [1, 3, 8, 8]}, ["y"], 13, w=drawn(4, 3, 3, 3)))
    conv, relu, last = graph.nodes
    extra = [
        Node("neg", ("a",), (dataclasses.replace(conv.out, name="n"),), {}, Source("two")),
        Node("neg", ("n",), (dataclasses.replace(conv.out, name="m"),), {}, Source("one")),
        dataclasses.replace(relu, inputs=("m",)),
    ]
    written = to_onnx(verify(graph.rewrite(nodes=[conv, *extra, last])))
    assert [n.name for n in written.graph.node] == ["one", "two_1", "one_1", "two", ""]
    run(written, drawn(1, 3, 8, 8))
