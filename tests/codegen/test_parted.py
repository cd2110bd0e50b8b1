"""Networks of which some operators have no code: libraries in parts that say what runs where, or one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

import secateur
from secateur import codegen, deploy
from secateur.codegen.parted import PartedLibrary
from secateur.codegen.plan.fusion import Chain
from secateur.codegen.plan.lower import Lowering
from secateur.codegen.plan.tensors import Blocked
from secateur.ir import InputError, Unsupported

RNG = np.random.default_rng(0)
X = RNG.standard_normal((1, 3, 8, 8)).astype(np.float32)
node = helper.make_node
Array = np.ndarray[Any, Any]


def model(nodes: list[NodeProto], weights: dict[str, Array], out: list[int | str], kind: int = TensorProto.FLOAT,
          given: int = TensorProto.FLOAT) -> onnx.ModelProto:  # fmt: skip
    x = helper.make_tensor_value_info("x", given, [1, 3, 8, 8])
    y = helper.make_tensor_value_info("y", kind, out)
    graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(w, n) for n, w in weights.items()])
    sets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=sets, ir_version=9)


def weight(*shape: int) -> Array:
    return (RNG.standard_normal(shape) / 4).astype(np.float32)


def original(made: onnx.ModelProto, x: Array = X) -> Array:
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    found: Array = session.run(None, {"x": x})[0]
    return found


CONVS = {"a": weight(8, 3, 3, 3), "b": weight(4, 8, 3, 3)}
BETWEEN = [
    node("Conv", ["x", "a"], ["c"], "first"), node("Relu", ["c"], ["r"]), node("Det", ["r"], ["d"], "det"),
    node("Unsqueeze", ["d", "axes"], ["u"]), node("Mul", ["r", "u"], ["m"]), node("Conv", ["m", "b"], ["y"], "second"),
]  # fmt: skip


def test_an_operator_without_code_stands_between_two_compiled_parts(tmp_path: Path) -> None:
    made = model(BETWEEN, {**CONVS, "axes": np.array([2, 3])}, [1, 4, 4, 4])
    library = deploy.build(secateur.load(made))
    assert isinstance(library, PartedLibrary)
    assert [bool(part.what) for part in library.parts] == [False, True, False]
    assert library.metadata.kernels["onnxruntime"] == 1 and library.metadata.kernels["conv"] == 2
    assert any("ONNX Runtime" in note and "Det 'det'" in note for note in library.metadata.notes)
    np.testing.assert_allclose(library(X), original(made), rtol=1e-4, atol=1e-5)
    library.save(tmp_path / "l.so")
    loaded = codegen.load_library(tmp_path / "l.so")
    assert loaded.metadata.to_json() == library.metadata.to_json()
    np.testing.assert_array_equal(loaded(X), library(X))


def test_a_plain_recurrent_layer_is_left_to_the_runtime() -> None:
    nodes = [
        node("Reshape", ["x", "flat"], ["v"]), node("RNN", ["v", "w", "r"], ["h"], "plain", hidden_size=4),
        node("Conv", ["h", "f"], ["y"]),
    ]  # fmt: skip
    weights = {"flat": np.array([3, 8, 8]), "w": weight(1, 4, 8), "r": weight(1, 4, 4), "f": weight(2, 1, 3, 3)}
    made = model(nodes, weights, [3, 2, 6, 2])
    library = deploy.build(secateur.load(made))
    assert isinstance(library, PartedLibrary) and len(library.parts) == 2
    assert "rnn 'plain'" in library.parts[0].what
    np.testing.assert_allclose(library(X), original(made), rtol=1e-4, atol=1e-5)


def test_the_plan_names_what_the_runtime_computes() -> None:
    made = model(BETWEEN, {**CONVS, "axes": np.array([2, 3])}, [1, 4, 4, 4])
    lines = deploy.show_plan(secateur.load(made)).splitlines()
    assert sum("ONNX Runtime: Det 'det'" in line for line in lines) == 1
    assert sum(" conv" in line for line in lines) >= 2


def test_what_follows_a_size_that_the_data_tell_is_not_compiled() -> None:
    nodes = [
        node("Conv", ["x", "a"], ["c"]), node("NonZero", ["c"], ["n"]), node("Cast", ["n"], ["f"], to=1),
        node("ReduceMean", ["f"], ["y"], keepdims=0),
    ]  # fmt: skip
    made = model(nodes, {"a": CONVS["a"]}, [])
    library = deploy.build(secateur.load(made))
    assert isinstance(library, PartedLibrary) and len(library.parts) == 2
    for scale in (1.0, 0.0):
        np.testing.assert_allclose(library(X * scale), original(made, X * np.float32(scale)), rtol=1e-5, equal_nan=True)


@pytest.fixture
def stumbling(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The labels of nodes at which planning fails, to be filled."""
    labels: set[str] = set()
    plan = Lowering._plan_chain

    def stumble(self: Lowering, chain: Chain) -> Blocked:
        assert chain.head.label not in labels, "an inconsistency"
        return plan(self, chain)

    monkeypatch.setattr(Lowering, "_plan_chain", stumble)
    return labels


TWO = [node("Conv", ["x", "a"], ["c"], "first"), node("Conv", ["c", "b"], ["y"], "second")]


def test_what_cannot_be_planned_is_left_to_the_runtime(stumbling: set[str]) -> None:
    made = model(TWO, CONVS, [1, 4, 4, 4])
    stumbling.add("second")
    library = deploy.build(secateur.load(made))
    assert isinstance(library, PartedLibrary)
    assert [part.what for part in library.parts] == [(), ("conv 'second'",)]
    assert "ONNX Runtime: conv 'second'" in deploy.show_plan(secateur.load(made))
    np.testing.assert_allclose(library(X), original(made), rtol=1e-4, atol=1e-5)


def test_a_network_of_which_nothing_can_be_planned_is_refused(stumbling: set[str]) -> None:
    stumbling.update(("first", "second"))
    with pytest.raises(Unsupported, match=r"no code for conv 'first', conv 'second'"):
        deploy.build(secateur.load(model(TWO, CONVS, [1, 4, 4, 4])))


def test_a_resize_by_sums_reads_what_a_product_over_the_last_axis_made() -> None:
    """Its channels are axis 1 whatever the maker's were: else whoever reads it takes another shape for its own."""
    nodes = [
        node("MatMul", ["x", "m"], ["r"]), node("Resize", ["r", "", "scales"], ["u"], mode="linear"),
        node("Conv", ["u", "w"], ["y"], pads=[1, 1, 1, 1]),
    ]  # fmt: skip
    scales = np.array([1, 1, 2, 2], np.float32)
    made = model(nodes, {"m": weight(8, 8), "scales": scales, "w": weight(4, 3, 3, 3)}, [1, 4, 16, 16])
    library = deploy.build(secateur.load(made))
    assert not isinstance(library, PartedLibrary)
    np.testing.assert_allclose(library(X), original(made), rtol=1e-4, atol=1e-5)


def test_a_network_that_has_no_code_at_all_is_refused_in_a_sentence() -> None:
    made = model([node("Det", ["x"], ["y"], "det")], {}, [1, 3])
    with pytest.raises(Unsupported, match=r"there is no code for Det 'det'.*ONNX Runtime"):
        deploy.build(secateur.load(made))


def test_damaged_parts_are_refused(tmp_path: Path) -> None:
    made = model(BETWEEN, {**CONVS, "axes": np.array([2, 3])}, [1, 4, 4, 4])
    path = tmp_path / "l.so"
    deploy.build(secateur.load(made)).save(path)
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"reads"', b'"raeds"'))
    with pytest.raises(InputError, match="damaged"):
        codegen.load_library(path)


ROWS, PLACES = np.array([[0, 1], [0, -1]]), np.array([[[[0, 2, -1, 1, 0, 0, 1, 2]]]])
CODED = {
    "DequantizeLinear": [
        node("QuantizeLinear", ["c", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ],
    "per channel": [
        node("QuantizeLinear", ["c", "sc", "zc"], ["q"], axis=1),
        node("DequantizeLinear", ["q", "sc", "zc"], ["y"], axis=1),
    ],
    "ScatterND": [node("ScatterND", ["c", "rows", "new"], ["y"])],
    "GatherElements": [node("GatherElements", ["c", "places"], ["y"], axis=1)],
    "Clip": [
        node("ReduceMin", ["c"], ["least"], keepdims=0),
        node("Neg", ["least"], ["most"]),
        node("Clip", ["c", "least", "most"], ["y"]),
    ],
    "FusedConv": [node("FusedConv", ["c", "f", "g"], ["y"], domain="com.microsoft", activation="Relu")],
    "FusedMatMul": [node("FusedMatMul", ["c", "c"], ["y"], domain="com.microsoft", transB=1, alpha=0.5)],
    "Gelu": [node("Gelu", ["c"], ["y"], domain="com.microsoft")],
    "QuickGelu": [node("QuickGelu", ["c"], ["y"], domain="com.microsoft")],
    "Scaler": [node("Scaler", ["c"], ["y"], domain="ai.onnx.ml", offset=[1.0], scale=[0.5])],
}  # fmt: skip
WEIGHTS = {
    "a": CONVS["a"], "f": weight(8, 8, 1, 1), "g": weight(8), "s": np.float32(0.02), "z": np.uint8(100),
    "sc": (RNG.random(8) / 20 + 0.01).astype(np.float32), "zc": np.arange(8, dtype=np.int8) - 4, "rows": ROWS,
    "new": weight(2, 6, 6), "places": PLACES[..., :6].repeat(6, 2),
}  # fmt: skip


@pytest.mark.parametrize("kind", CODED)
def test_operators_without_a_name_in_the_ir_have_code(kind: str) -> None:
    nodes = [node("Conv", ["x", "a"], ["c"]), *CODED[kind]]
    read = {i for n in nodes for i in n.input}
    shape: list[int | str] = [1, "c", 6, 6] if kind != "GatherElements" else ["n", "c", "h", "w"]
    made = model(nodes, {n: np.asarray(w) for n, w in WEIGHTS.items() if n in read}, shape)
    library = deploy.build(secateur.load(made))
    assert not isinstance(library, PartedLibrary)
    want = original(made)
    near = 0.021 if "Quant" in kind or kind == "per channel" else 1e-5  # what lies between two steps may go either way
    have = np.asarray(library(X))
    assert have.shape == want.shape
    assert np.abs(have - want).max() <= near * (8 if kind == "per channel" else 1)
    assert (np.abs(have - want) > 1e-4).mean() < 0.01


def test_half_precision_is_computed_in_float32() -> None:
    weights = {"a": CONVS["a"].astype(np.float16), "b": CONVS["b"].astype(np.float16)}
    nodes = [node("Conv", ["x", "a"], ["c"]), node("Relu", ["c"], ["r"]), node("Conv", ["r", "b"], ["y"])]
    made = model(nodes, weights, [1, 4, 4, 4], TensorProto.FLOAT16, TensorProto.FLOAT16)
    library = deploy.build(secateur.load(made))
    half = X.astype(np.float16)
    assert library.metadata.inputs[0].dtype == library.metadata.outputs[0].dtype == "f16"
    assert library.metadata.inputs[0].name == "x" and library.metadata.outputs[0].name == "y"
    np.testing.assert_allclose(np.asarray(library(half)), original(made, half), rtol=0.01, atol=0.005)


def test_the_tuner_takes_what_is_built(tmp_path: Path) -> None:
    """Half precision is computed in float32 there too, and text is left to the runtime."""
    weights = {"w": weight(8, 3, 3, 3).astype(np.float16)}
    nodes = [node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16), node("Conv", ["h", "w"], ["c"], "conv"),
             node("Cast", ["c"], ["y"], to=TensorProto.STRING)]  # fmt: skip
    graph = secateur.load(model(nodes, weights, [1, 8, 6, 6], TensorProto.STRING))
    outcome, _ = codegen.tune(graph, 60, tmp_path / "r.jsonl")
    assert outcome.measured == 1
    library = codegen.build(graph, records=tmp_path / "r.jsonl")
    assert isinstance(library, PartedLibrary)
    assert library.metadata.kernels["conv"] == 1


def test_bfloat16_goes_in_and_out_of_a_library() -> None:
    """It is computed in float32; the runtime, which takes none from NumPy, makes the two of each other."""
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 1)).bfloat16().eval()
    x = torch.from_numpy(X).bfloat16()
    found = secateur.compile(module, "none", example_inputs=(x,)).build()(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, module(x), rtol=0.05, atol=0.05)
