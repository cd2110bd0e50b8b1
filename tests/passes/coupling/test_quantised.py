"""Quantised files: every format loses channels, scales and zero points along, and ONNX Runtime confirms it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnxruntime import quantization

import secateur
from bench.reach import onnx_reference
from secateur.passes.analysis.cost import cost

RNG = np.random.default_rng(0)
Array = np.ndarray[Any, Any]
node = helper.make_node
MS = "com.microsoft"


def model(nodes: list[NodeProto], weights: dict[str, Array], x: list[int], y: list[Any]) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, y)]
    given = [numpy_helper.from_array(np.asarray(w), n) for n, w in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, given)
    sets = [helper.make_opsetid("", 18), helper.make_opsetid(MS, 1)]
    return helper.make_model(graph, opset_imports=sets, ir_version=9)


def int8(*shape: int) -> Array:
    return RNG.integers(-60, 60, shape, dtype=np.int8)


def scales(count: int) -> Array:
    return (RNG.random(count) / 500 + 0.002).astype(np.float32)


S, U8, I8 = np.float32(0.03), np.uint8(100), np.int8(0)
PARAMETERS = {"s": S, "z": U8, "ws": np.float32(0.004), "wz": I8}


def q_conv(x: str, w: str, y: str, *rest: str, **attrs: int) -> NodeProto:
    return node("QLinearConv", [x, "s", "z", w, *(rest[:2] or ("ws", "wz")), "s", "z", *rest[2:]], [y], y, **attrs)


ENDS = [node("QuantizeLinear", ["x", "s", "z"], ["q"]), node("DequantizeLinear", ["last", "s", "z"], ["y"])]
PICTURE, RESULT = [1, 4, 9, 9], [1, 5, "h", "w"]


def q_linear() -> onnx.ModelProto:
    """A residual of quantised convolutions with a depthwise one, per channel and per tensor, and a head."""
    nodes = [
        ENDS[0], q_conv("q", "a", "c1", "as", "az", "ab", pads=[1, 1, 1, 1]),
        q_conv("c1", "d", "c2", "ds", "az", pads=[1, 1, 1, 1], group=16), q_conv("c2", "b", "c3", "bs", "az", "ab"),
        node("QLinearAdd", ["c3", "s", "z", "c1", "s", "z", "s", "z"], ["sum"], domain=MS),
        node("QLinearConcat", ["s", "z", "sum", "s", "z", "c2", "s", "z"], ["both"], domain=MS, axis=1),
        node("MaxPool", ["both"], ["pooled"], kernel_shape=[2, 2]), q_conv("pooled", "e", "last"), ENDS[1],
    ]  # fmt: skip
    weights = {
        "a": int8(16, 4, 3, 3), "as": scales(16), "az": np.zeros(16, np.int8), "ab": np.arange(16, dtype=np.int32) * 9,
        "d": int8(16, 1, 3, 3), "ds": scales(16) * 4, "b": int8(16, 16, 1, 1), "bs": scales(16), "e": int8(5, 32, 3, 3),
    }  # fmt: skip
    return model(nodes, weights | PARAMETERS, PICTURE, RESULT)


def q_matmul() -> onnx.ModelProto:
    nodes = [
        ENDS[0], node("QLinearMatMul", ["q", "s", "z", "a", "as", "az", "s", "z"], ["m"]),
        node("QLinearSigmoid", ["m", "s", "z", "s", "z"], ["g"], domain=MS),
        node("QGemm", ["g", "s", "z", "b", "bs", "wz", "bb", "s", "z"], ["last"], domain=MS, transB=1), ENDS[1],
    ]  # fmt: skip
    weights = {
        "a": int8(12, 24), "as": scales(24), "az": np.zeros(24, np.int8), "b": int8(7, 24), "bs": np.float32(0.01),
        "bb": np.arange(7, dtype=np.int32),
    }  # fmt: skip
    return model(nodes, weights | PARAMETERS, [5, 12], [5, 7])


def dynamic(x: str, y: str, product: str, w: str, zero: str) -> list[NodeProto]:
    """A product of integers whose input is quantised by what it holds, as ``quantize_dynamic`` writes it."""
    return [
        node("DynamicQuantizeLinear", [x], [f"{y}.q", f"{y}.s", f"{y}.z"]),
        node(product, [f"{y}.q", w, f"{y}.z", zero], [f"{y}.i"], f"{y}.product"),
        node("Cast", [f"{y}.i"], [f"{y}.f"], to=1), node("Mul", [f"{y}.s", "ws"], [f"{y}.scale"]),
        node("Mul", [f"{y}.f", f"{y}.scale"], [y]),
    ]  # fmt: skip


def integers() -> onnx.ModelProto:
    """ConvInteger and MatMulInteger, with weights whose zero point is not 0."""
    nodes = [
        *dynamic("x", "c", "ConvInteger", "a", "uz"), node("Relu", ["c"], ["r"]),
        *dynamic("r", "d", "ConvInteger", "b", "uz"), node("GlobalAveragePool", ["d"], ["p"]),
        node("Flatten", ["p"], ["f"]), *dynamic("f", "y", "MatMulInteger", "e", "wz"),
    ]  # fmt: skip
    weights = {
        "a": RNG.integers(0, 255, (16, 4, 3, 3), dtype=np.uint8),
        "b": RNG.integers(0, 255, (12, 16, 3, 3), dtype=np.uint8),
        "e": int8(12, 5), "uz": np.uint8(121),
    }  # fmt: skip
    return model(nodes, weights | PARAMETERS, PICTURE, [1, 5])


def recurrent() -> onnx.ModelProto:
    """Two quantised LSTMs in both directions, the first from states that it is given, and a head."""
    names = ["ws2", "wz2", "ws2", "wz2"]
    nodes = [
        node("DynamicQuantizeLSTM", ["x", "w", "r", "b", "", "h", "c", "", *names], ["a", "", ""], "one",
             domain=MS, hidden_size=8, direction="bidirectional"),
        node("Transpose", ["a"], ["t"], perm=[0, 2, 1, 3]), node("Reshape", ["t", "flat"], ["v"]),
        node("DynamicQuantizeLSTM", ["v", "w2", "r", "b", "", "", "", "", *names], ["a2", "", ""], "two",
             domain=MS, hidden_size=8, direction="bidirectional"),
        node("Transpose", ["a2"], ["t2"], perm=[0, 2, 1, 3]), node("Reshape", ["t2", "flat"], ["v2"]),
        node("DynamicQuantizeMatMul", ["v2", "e", "ws", "wz", "eb"], ["y"], domain=MS),
    ]  # fmt: skip
    weights = {
        "w": int8(2, 6, 32), "r": int8(2, 8, 32), "b": RNG.standard_normal((2, 64)).astype(np.float32),
        "w2": int8(2, 16, 32), "ws2": np.full(2, 0.01, np.float32), "wz2": np.zeros(2, np.int8), "e": int8(16, 5),
        "eb": RNG.standard_normal(5).astype(np.float32), "h": RNG.standard_normal((2, 1, 8)).astype(np.float32),
        "c": RNG.standard_normal((2, 1, 8)).astype(np.float32), "flat": np.array([0, 0, -1]),
    }  # fmt: skip
    return model(nodes, weights | PARAMETERS, [7, 1, 6], [7, 1, 5])


def fused() -> onnx.ModelProto:
    """What ONNX Runtime's optimiser makes of a convolution with an activation."""
    nodes = [
        node("FusedConv", ["x", "a", "b"], ["c"], domain=MS, activation="Relu"),
        node("FusedConv", ["c", "d"], ["e"], domain=MS, activation="LeakyRelu", activation_params=[0.1]),
        node("Conv", ["e", "f"], ["y"]),
    ]  # fmt: skip
    drawn = {"a": (16, 4, 3, 3), "b": (16,), "d": (12, 16, 3, 3), "f": (5, 12, 1, 1)}
    return model(nodes, {n: RNG.standard_normal(s).astype(np.float32) for n, s in drawn.items()}, PICTURE, RESULT)


def floating() -> onnx.ModelProto:
    """A small network to quantise."""
    nodes = [
        node("Conv", ["x", "a", "ab"], ["c"], pads=[1, 1, 1, 1]), node("Relu", ["c"], ["r"]),
        node("Conv", ["r", "b", "bb"], ["d"], pads=[1, 1, 1, 1]), node("Add", ["d", "r"], ["sum"]),
        node("Relu", ["sum"], ["s"]), node("GlobalAveragePool", ["s"], ["p"]), node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "e", "eb"], ["y"]),
    ]  # fmt: skip
    drawn = {"a": (16, 4, 3, 3), "ab": (16,), "b": (16, 16, 3, 3), "bb": (16,), "e": (16, 5), "eb": (5,)}
    return model(nodes, {n: RNG.standard_normal(s).astype(np.float32) / 4 for n, s in drawn.items()}, PICTURE, [1, 5])


class Batches(quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        self.left = [{"x": RNG.standard_normal(PICTURE).astype(np.float32)} for _ in range(4)]

    def get_next(self) -> dict[str, Array] | None:
        return self.left.pop() if self.left else None


def pruned(made: onnx.ModelProto, folder: Path, share: float = 0.5) -> tuple[secateur.Compiled, onnx.ModelProto]:
    """Pruned under the law, and checked with ONNX Runtime alone."""
    path = folder / "model.onnx"
    onnx.save(made, path)
    slim = secateur.compile(path, "l1", macs=share, seed=0)
    slim.save(folder / "slim.onnx")
    slim.recipe.save(folder / "recipe.json")
    recipe, written = json.loads((folder / "recipe.json").read_text()), onnx.load(folder / "slim.onnx")
    shape = [d.dim_value or 1 for d in made.graph.input[0].type.tensor_type.shape.dim]
    feed = {"x": np.random.default_rng(1).standard_normal(shape).astype(np.float32)}
    want = onnx_reference.answer(onnx_reference.masked(made, recipe, feed), feed)
    gap, what = onnx_reference.difference(want, onnx_reference.answer(written, feed))
    assert gap < 1e-5, what
    report = slim.report
    assert report.verification.law == "exact" and report.after.macs <= share * report.before.macs
    return slim, written


KINDS = {f.__name__: f for f in (q_linear, q_matmul, integers, recurrent, fused)}


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_this_kind_lose_half_of_their_macs(kind: str, tmp_path: Path) -> None:
    made = KINDS[kind]()
    slim, written = pruned(made, tmp_path)
    if kind != "fused":
        assert {n.op_type for n in written.graph.node} == {n.op_type for n in made.graph.node}
    assert cost(secateur.load(made)).macs == slim.report.before.macs


def test_states_that_are_constants_repeated_for_the_batch_become_narrower(tmp_path: Path) -> None:
    made = recurrent()
    made.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "n"
    made.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "n"
    given = {"at": np.array([1]), "two": np.array([2]), "eight": np.array([8]), "zero": np.zeros((1, 1, 1), np.float32)}
    made.graph.initializer.extend(numpy_helper.from_array(w, n) for n, w in given.items())
    before = [
        node("Shape", ["x"], ["sizes"]), node("Gather", ["sizes", "at"], ["n"]),
        node("Concat", ["two", "n", "eight"], ["wide"], axis=0), node("Expand", ["zero", "wide"], ["zeros"]),
    ]  # fmt: skip
    nodes = [*before, *made.graph.node]
    nodes[4].input[5] = nodes[4].input[6] = "zeros"
    kept = [t for t in made.graph.initializer if t.name not in ("h", "c")]
    del made.graph.node[:], made.graph.initializer[:]
    made.graph.node.extend(nodes)
    made.graph.initializer.extend(kept)
    pruned(made, tmp_path)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_what_onnx_runtime_quantises_is_pruned(form: str, per_channel: bool, tmp_path: Path) -> None:
    onnx.save(floating(), tmp_path / "float.onnx")
    quantization.quantize_static(
        tmp_path / "float.onnx", tmp_path / "q.onnx", Batches(), quant_format=quantization.QuantFormat[form],
        per_channel=per_channel, weight_type=quantization.QuantType.QInt8,
    )  # fmt: skip
    made = onnx.load(tmp_path / "q.onnx")
    assert any(n.op_type == ("DequantizeLinear" if form == "QDQ" else "QLinearConv") for n in made.graph.node)
    _, written = pruned(made, tmp_path)
    kinds = [{n.op_type for n in m.graph.node if "Quant" in n.op_type or n.op_type[0] == "Q"} for m in (written, made)]
    assert kinds[0] == kinds[1]


def test_dynamically_quantised_files_are_pruned(tmp_path: Path) -> None:
    onnx.save(floating(), tmp_path / "float.onnx")
    quantization.quantize_dynamic(
        tmp_path / "float.onnx", tmp_path / "q.onnx", weight_type=quantization.QuantType.QUInt8
    )
    made = onnx.load(tmp_path / "q.onnx")
    assert any("Integer" in n.op_type for n in made.graph.node)
    pruned(made, tmp_path)


def test_columns_whose_zero_is_not_0_stay_and_say_why() -> None:
    made = q_linear()
    for tensor in made.graph.initializer:
        if tensor.name == "wz":
            tensor.CopyFrom(numpy_helper.from_array(np.int8(3), "wz"))
    reasons = {g.frozen for g in secateur.inspect(secateur.load(made)).groups}
    assert any("QLinearConv last reads it with a weight whose zero point is not 0" in (r or "") for r in reasons)


def test_where_nothing_can_be_counted_the_message_says_quantised() -> None:
    nodes = [ENDS[0], node("QLinearSoftmax", ["q", "s", "z", "s", "z"], ["last"], domain=MS, opset=13, axis=1), ENDS[1]]
    made = model(nodes, PARAMETERS, PICTURE, PICTURE)
    with pytest.raises(secateur.Error, match="quantised"):
        secateur.compile(made, "l1", macs=0.5)
