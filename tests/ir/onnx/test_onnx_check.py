"""ONNX files that break a rule: refused by the first fault, in a sentence, before anything uses them."""

from __future__ import annotations

import itertools
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import secateur
from bench.reach import mutant_seeds, mutants
from secateur.ir import InputError, Node, Unsupported, Value, infer_node
from secateur.ir.frontends.onnx.check import check
from secateur.ir.frontends.onnx.check_nodes import check_types
from secateur.ir.frontends.onnx.check_tensors import Damage
from secateur.ir.frontends.onnx.load import load
from secateur.ir.frontends.onnx.process import OnnxProcess

Fault = Callable[[ModelProto], object]


def seed(name: str) -> ModelProto:
    names = [make.__name__ for make in mutant_seeds.SEEDS]
    return ModelProto.FromString(mutant_seeds.seeds()[names.index(name)])


def node(m: ModelProto, kind: str) -> onnx.NodeProto:
    return next(n for n in m.graph.node if n.op_type == kind)


def attribute(m: ModelProto, kind: str, name: str) -> onnx.AttributeProto:
    return next(a for a in node(m, kind).attribute if a.name == name)


@pytest.mark.parametrize("make", mutant_seeds.SEEDS, ids=lambda make: make.__name__)
def test_sound_files_pass(make: Callable[[], ModelProto]) -> None:
    check(make(), "it")


def test_onnx_s_own_files_pass() -> None:
    """Files that the onnx package comes with: exported by early PyTorch and Caffe2, and every kind of node."""
    files = sorted(Path(onnx.__file__).parent.glob("backend/test/data/**/*.onnx"))
    assert len(files) > 100
    for path in files:
        check(onnx.load(path), path.parent.name)


def test_operands_of_any_types_pass() -> None:
    """What a Loop carries need not be of one type; a Concat's operands must."""
    carried = helper.make_node("Loop", ["n", "go", "a", "b"], ["c", "d"])
    check_types(carried, 17, {0: "int64", 1: "bool", 2: "float", 3: "int64"})
    with pytest.raises(Damage, match="input 1 is of type int64 and another one of type float"):
        check_types(helper.make_node("Concat", ["a", "b"], ["c"], axis=0), 17, {0: "float", 1: "int64"})


def _retyped(m: ModelProto) -> None:
    a = attribute(m, "Conv", "group")
    a.type, a.f = a.FLOAT, 1.0
    a.ClearField("i")


def _recursive(m: ModelProto) -> None:
    m.functions[0].node.append(helper.make_node("Block", ["a"], ["q"], domain="own"))


def _multiplying(m: ModelProto) -> None:
    """Each function calls the one before it ten times."""
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    for i in range(6):
        inner = f"F{i}" if i else "Gate"
        calls = [helper.make_node(inner, ["a"], [f"b{k}"], domain="own") for k in range(10)]
        m.functions.append(helper.make_function("own", f"F{i + 1}", ["a"], ["b0"], calls, imports))
    node(m, "Block").op_type = "F6"
    del node(m, "F6").attribute[:]


FAULTS: list[tuple[str, Fault, str]] = [
    ("plain", lambda m: m.graph.initializer[0].dims.insert(0, 7), r"weight 'w0' is FLOAT\[7, 8, 3, 3, 3\] and needs"),
    ("plain", lambda m: m.graph.initializer[0].dims.append(-1), r"weight 'w0' has the dimensions \[8, 3, 3, 3, -1\]"),
    ("plain", lambda m: m.graph.initializer[0].dims.extend([0, 1 << 62]), "dimensions beyond any memory"),
    ("plain", lambda m: setattr(m.graph.initializer[0], "data_type", 99), "no known element type"),
    ("plain", lambda m: m.graph.initializer[0].float_data.append(1), "holds its data twice"),
    ("plain", lambda m: setattr(m.graph.initializer[0], "data_type", 8), "is text and holds it in raw_data"),
    ("plain", lambda m: setattr(m.graph.initializer[1], "name", "w0"), "two weights called 'w0'"),
    ("plain", lambda m: setattr(m.graph.initializer[1], "data_location", 1), "data in another file"),
    ("packed", lambda m: m.graph.initializer[2].int32_data.pop(), r"'four' is INT4\[8, 6\] and needs 24 numbers"),
    ("packed", lambda m: m.graph.initializer[2].int32_data.__setitem__(0, 999), "holds numbers that INT4 cannot"),
    ("packed", lambda m: m.graph.initializer[4].int64_data.append(4), "in int64_data instead of float_data"),
    ("sparse", lambda m: m.graph.sparse_initializer[0].dims.__setitem__(0, 2), r"indices outside of \[2, 4\]"),
    ("sparse", lambda m: m.graph.sparse_initializer[0].dims.__setitem__(0, 1 << 40), "more than the"),
    ("plain", _retyped, "attribute 'group' of Conv 'Conv_0' is of kind FLOAT instead of INT"),
    ("plain", lambda m: setattr(attribute(m, "Conv", "group"), "i", -1), "attribute 'group' of Conv 'Conv_0' is -1"),
    ("plain", lambda m: attribute(m, "MaxPool", "strides").ints.append(0), r"'strides' of MaxPool .* is \[2, 2, 0\]"),
    ("plain", lambda m: setattr(attribute(m, "Conv", "group"), "name", "\x1b"), "is none that ONNX defines"),
    ("plain", lambda m: node(m, "Relu").attribute.add(name="a", ref_attr_name="b", type=1), "that no function has"),
    ("plain", lambda m: node(m, "Conv").input.extend("abcdefgh"), "has 11 inputs; ONNX defines 2 to 3"),
    ("plain", lambda m: node(m, "Conv").input.__setitem__(1, ""), "input 1 of Conv 'Conv_0' is missing"),
    ("plain", lambda m: node(m, "Relu").output.__setitem__(0, "v0"), "'v0' in the graph is defined twice"),
    ("plain", lambda m: setattr(m.graph.output[0], "name", "none"), "output 'none' of the graph is defined by nothing"),
    ("plain", lambda m: m.graph.input[0].type.tensor_type.shape.dim[2].__setattr__("dim_value", 1 << 50), "has size"),
    ("plain", lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 0), "no known element type"),
    ("resized", lambda m: setattr(attribute(m, "Resize", "mode"), "s", b"shiny"), "'mode' of Resize .* is b'shiny'"),
    ("resized", lambda m: setattr(attribute(m, "Resize", "mode"), "s", b"\xff"), "is not text in UTF-8"),
    ("looping", lambda m: attribute(m, "Loop", "body").g.node.pop(0), "output 'on' of the graph in Loop"),
    ("looping", lambda m: node(m, "Loop").output.append("q"), "the body of Loop 'Loop_1' gives 3 values"),
    ("branching", lambda m: node(m, "If").output.append("q"), "If 'If_1' gives 1 values instead of 2"),
    ("branching", lambda m: attribute(m, "If", "then_branch").g.node.reverse(), "which nothing before it defines"),
    ("folding", lambda m: attribute(m, "ConstantOfShape", "value").t.dims.append(3), "attribute 'value' of Constant"),
    ("calling", _recursive, "call each other in a circle"),
    ("calling", _multiplying, r"its functions grow to \d{7} nodes"),
]


@pytest.mark.parametrize(("name", "fault", "message"), FAULTS, ids=[f[2][:40] for f in FAULTS])
def test_a_fault_is_named(name: str, fault: Fault, message: str) -> None:
    damaged = seed(name)
    fault(damaged)
    with pytest.raises(InputError, match=f"^it: .*{message}.*; the file is damaged"):
        check(damaged, "it")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("location", "../weights.bin", "not a place next to the file"),
        ("location", "/etc/passwd", "not a place next to the file"),
        ("location", "none.bin", "is missing"),
        ("offset", "-4", "the offset '-4'"),
        ("offset", "999999", "ends at byte"),
        ("length", "8", "8 of 'weights.bin'"),
        ("length", "1e3", "the length '1e3'"),
    ],
)
def test_data_in_another_file(tmp_path: Path, key: str, value: str, message: str) -> None:
    whole = seed("plain")
    onnx.save_model(whole, tmp_path / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=64)
    apart = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    outside = next(t for t in apart.graph.initializer if t.external_data)
    next(e for e in outside.external_data if e.key == key).value = value
    onnx.save(apart, tmp_path / "m.onnx")
    with pytest.raises(InputError, match=message):
        load(tmp_path / "m.onnx")


def test_a_length_that_is_left_out_is_the_weight_s_own(tmp_path: Path) -> None:
    whole = seed("plain")
    want = numpy_helper.to_array(whole.graph.initializer[0])
    onnx.save_model(whole, tmp_path / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=64)
    apart = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    for tensor in apart.graph.initializer:
        kept = [e for e in tensor.external_data if e.key != "length"]
        del tensor.external_data[:]
        tensor.external_data.extend(kept)
    onnx.save(apart, tmp_path / "m.onnx")
    np.testing.assert_array_equal(load(tmp_path / "m.onnx").weights["w0"], want)


# -- folding --------------------------------------------------------------------------------------------------
def grown(*nodes: onnx.NodeProto, **constants: object) -> ModelProto:
    """x of shape [1, 4] plus the mean of what the nodes make of constants, called ``big``."""
    last = [
        helper.make_node("ReduceMean", ["big"], ["mean"], keepdims=0),
        helper.make_node("Add", ["x", "mean"], ["y"]),
    ]
    infos = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4])] for n in "xy"]
    weights = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph([*nodes, *last], "grown", *infos, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def doubled() -> ModelProto:
    names = [f"d{i}" for i in range(34)] + ["big"]
    nodes = [helper.make_node("Concat", [a, a], [b], axis=0) for a, b in itertools.pairwise(names)]
    return grown(*nodes, d0=np.ones(4, np.float32))


one, many = np.ones((1, 4), np.float32), np.array([1 << 16, 1 << 13])
BOMBS = {
    "tile": grown(helper.make_node("Tile", ["a", "n"], ["big"]), a=one, n=many),
    "expand": grown(helper.make_node("Expand", ["a", "n"], ["big"]), a=one[:, :1], n=many),
    "of shape": grown(helper.make_node("ConstantOfShape", ["n"], ["big"]), n=many),
    "range": grown(helper.make_node("Range", ["a", "n", "a"], ["big"]), a=np.float32(1), n=np.float32(1e9)),
    "pad": grown(helper.make_node("Pad", ["a", "n"], ["big"]), a=one, n=np.array([1 << 14] * 4)),
    "one hot": grown(
        helper.make_node("OneHot", ["a", "n", "v"], ["big"]), a=np.arange(1 << 14), n=np.array(1 << 16), v=one[0, :2]
    ),
    "resize": grown(
        helper.make_node("Resize", ["a", "", "n"], ["big"]), a=one, n=np.array([1 << 14, 1 << 14], np.float32)
    ),
    "doubled": doubled(),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_small_files_do_not_grow_without_bound(name: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"it makes a constant of \d+ bytes, more than"):
            load(BOMBS[name])
        assert tracemalloc.get_traced_memory()[1] < 700e6
    finally:
        tracemalloc.stop()


def test_what_folds_slowly_stays_a_node() -> None:
    """The evaluator resizes one element after the other: minutes for what a runtime does in a moment."""
    sizes = np.array([1, 1, 400, 400])
    model = grown(helper.make_node("Resize", ["a", "", "", "n"], ["big"]), a=np.ones((1, 1, 8, 8), np.float32), n=sizes)
    assert [n.op for n in load(model).nodes] == ["resize", "reduce_mean", "add"]


# -- operands -------------------------------------------------------------------------------------------------
def test_states_of_another_batch_never_reach_torch() -> None:
    """torch.lstm checks none of its operands: it would write beyond them."""
    m = seed("recurrent")
    lstm = node(m, "LSTM")
    state = next(t for t in m.graph.initializer if t.name == lstm.input[5])
    state.CopyFrom(numpy_helper.from_array(np.ones((1, 1, 3), np.float32), state.name))
    with pytest.raises(
        InputError, match=r"LSTM 'LSTM_0' .*the initial state has shape \(1, 1, 3\), expected \(1, 2, 8\)"
    ):
        load(m)


X = Value("x", (1, 8, 6, 6))
WINDOW = {"stride": (1, 1), "dilation": (1, 1), "pad": (0, 0, 0, 0), "groups": 1}


@pytest.mark.parametrize(
    ("op", "inputs", "attrs", "message"),
    [
        ("conv", [X, (8, 8, 3, 3)], {**WINDOW, "stride": (0, 1)}, "stride"),
        ("conv", [X, (8, 8, 3, 3)], {**WINDOW, "stride": (1,)}, "2 numbers are needed"),
        ("conv", [X, (8, 8, 3, 3)], {**WINDOW, "pad": (0, -1, 0, 0)}, "pad"),
        ("conv", [X, (8, 8, 3, 3), (4,)], WINDOW, "input 2 has shape"),
        ("conv", [X, (8, 8)], WINDOW, "windows over 0 axes"),
        ("max_pool", [X], {"kernel": (2,), "stride": (1,), "dilation": (1,), "pad": (0, 0), "ceil": False}, "rank 4"),
        ("batch_norm", [X, (8,), (8,), (8,), (7,)], {"eps": 1e-5, "momentum": 0.1}, "input 4 has shape"),
        ("batch_norm", [X, (8,), (8,)], {"eps": 1e-5, "momentum": 0.1}, "input 3 is missing"),
        ("concat", [X, X], {"axis": 4}, "axis 4"),
        ("reshape", [X], {"shape": (-1, -1)}, "two sizes open"),
        ("slice", [X], {"axes": (0,), "starts": (0,), "ends": (1,), "steps": (0,)}, "a step of 0"),
        ("gather", [X, (3,)], {"axis": 1}, "an index of type f32"),
        ("prelu", [X, (5,)], {}, "a slope of shape"),
        ("tile", [X], {"repeats": (1 << 20,) * 4}, "elements"),
        ("resize", [X], {"mode": "nearest", "size": None, "scales": (float("nan"), 2.0), "coordinate": "half_pixel",
                         "rounding": "floor"}, "scales"),
        ("gru", [Value("x", (3, 2, 4)), (1, 15, 4), (1, 15, 5), (1, 29)],
         {"hidden": 5, "direction": "forward", "linear_before_reset": 0}, r"the bias has shape \(1, 29\)"),
    ],
)  # fmt: skip
def test_operands_are_checked_before_a_shape_is_derived(
    op: str, inputs: list[Value | tuple[int, ...]], attrs: dict[str, object], message: str
) -> None:
    values = [i if isinstance(i, Value) else Value(f"w{k}", i) for k, i in enumerate(inputs)]
    wrong = Node(op, tuple(v.name for v in values), (Value("y", ()),), attrs)
    with pytest.raises(ValueError, match=message):
        infer_node(wrong, values)


def test_attributes_that_crash_shape_inference_end_a_process_of_its_own() -> None:
    node = helper.make_node("LayerNormalization", ["x", "w"], ["y", "mean"], axis=(1 << 63) - 1)
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4]) for n in ("x", "y", "mean")]
    weights = [numpy_helper.from_array(np.ones(4, np.float32), "w")]
    graph = helper.make_graph([node], "net", infos[:1], infos[1:], weights)
    with pytest.raises(
        InputError, match="LayerNormalization 'y': ONNX's shape inference crashes while deriving its shapes"
    ):
        load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def test_an_equation_may_name_no_letters() -> None:
    scalars = [Value("a", ()), Value("b", ())]
    assert infer_node(Node("einsum", ("a", "b"), (Value("y", ()),), {"equation": ",->"}), scalars)[0].shape == ()


def test_types_that_an_operator_does_not_take() -> None:
    m = seed("plain")
    name = node(m, "Conv").input[2]
    bias = next(t for t in m.graph.initializer if t.name == name)
    bias.CopyFrom(numpy_helper.from_array(np.ones(8, np.int64), name))
    with pytest.raises(InputError, match=r"Conv 'Conv_0' .*input 2 is of type int64, which Conv does not take"):
        load(m)


# -- mutants --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("pads", [10_000, 1, 1, 1], "a padding of 10000 and 1 around 8 positions"),
        ("kernel_shape", [5, 3], r"kernel_shape is \[5, 3\], the weight's is \[3, 3\]"),
    ],
)
def test_windows_that_no_exporter_writes(name: str, value: list[int], message: str) -> None:
    m = seed("plain")
    attribute(m, "Conv", name).ints[:] = value
    with pytest.raises(InputError, match=message):
        load(m)


def test_functions_of_another_opset_are_converted_or_refused() -> None:
    m = seed("calling")
    m.opset_import[0].version = 22
    with pytest.raises(Unsupported, match="function own::Block is written for another opset than the graph"):
        load(m)


def test_mutants_are_read_or_refused(tmp_path: Path) -> None:
    """bench/reach/mutate_onnx.py takes them through compile too, in processes of their own and ten thousand of them."""
    outcomes: Counter[str] = Counter()
    with OnnxProcess(patience=2.0) as process:
        for number in range(2000):
            _, path = mutants.write(number, tmp_path)
            try:
                load(path, process)
                outcomes["read"] += 1
            except secateur.Error as error:
                outcomes[type(error).__name__] += 1
    assert outcomes["read"] > 200
    assert outcomes["InputError"] > 1400
