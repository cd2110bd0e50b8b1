"""Corners of the ONNX format: scopes, sparse and packed weights, outputs that no node makes, reductions of nothing."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from secateur.ir import InputError
from secateur.ir.exporters.onnx.write import to_onnx
from secateur.ir.frontends.onnx.load import load
from secateur.ir.graph import Array

F = TensorProto.FLOAT
RNG = np.random.default_rng(11)


def drawn(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[int]],
    outputs: list[str],
    *tensors: TensorProto,
    opset: int = 17,
    sparse: tuple[onnx.SparseTensorProto, ...] = (),
) -> ModelProto:
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info(n, F, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(o, F, None) for o in outputs], list(tensors), sparse_initializer=list(sparse),
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8 if opset < 21 else 10)


def run(model: ModelProto, **feeds: Array) -> dict[str, Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))


def same(original: ModelProto, **feeds: Array) -> ModelProto:
    """What comes back gives the same outputs under the same names. Returns it."""
    written = to_onnx(load(original))
    want, have = run(original, **feeds), run(written, **feeds)
    assert list(want) == list(have)
    for name, array in want.items():
        np.testing.assert_allclose(have[name], array, rtol=1e-5, atol=1e-6)
    return written


# -- scopes ---------------------------------------------------------------------------------------------------
def branch(out: str, x: str, weight: TensorProto) -> onnx.GraphProto:
    node = helper.make_node("Conv", [x, weight.name], [out])
    return helper.make_graph([node], "side", [], [helper.make_tensor_value_info(out, F, None)], [weight])


def choice(condition: str, x: str, out: str) -> onnx.NodeProto:
    """An If whose branches have a weight called "weight" each, and a result called "r"."""
    sides = {
        f"{s}_branch": branch("r", x, numpy_helper.from_array(drawn(8, 8, 1, 1), "weight")) for s in ("then", "else")
    }
    return helper.make_node("If", [condition], [out], **sides)


@pytest.mark.parametrize("first", ["yes", "no"])
def test_names_inside_a_branch_are_its_own(first: str) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        choice(first, "c", "p"),
        helper.make_node("Relu", ["p"], ["q"]),
        choice("no", "q", "s"),
        choice("yes", "s", "t"),
        helper.make_node("Add", ["t", "p"], ["y"]),
    ]
    flags = [numpy_helper.from_array(np.array(v), n) for n, v in (("yes", True), ("no", False))]
    original = model(nodes, {"x": [1, 3, 6, 6]}, ["y"], numpy_helper.from_array(drawn(8, 3, 1, 1), "w"), *flags)
    same(original, x=drawn(1, 3, 6, 6))


def test_a_branch_may_use_a_name_that_the_model_uses_later() -> None:
    nodes = [
        choice("yes", "x", "p"),
        helper.make_node("Relu", ["p"], ["q"]),
        helper.make_node("Conv", ["q", "weight"], ["y"]),
    ]
    original = model(
        nodes, {"x": [1, 8, 6, 6]}, ["y"], numpy_helper.from_array(drawn(8, 8, 1, 1), "weight"),
        numpy_helper.from_array(np.array(True), "yes"),
    )  # fmt: skip
    written = same(original, x=drawn(1, 8, 6, 6))
    assert "weight" in {t.name for t in written.graph.initializer}


# -- weights --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("coordinates", [False, True])
def test_sparse_weights(coordinates: bool) -> None:
    full = np.where(RNG.random((8, 3, 3, 3)) < 0.3, drawn(8, 3, 3, 3), 0).astype(np.float32)
    places = np.argwhere(full) if coordinates else np.flatnonzero(full)
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(full[full != 0], "w"),
        numpy_helper.from_array(places.astype(np.int64), "at"),
        full.shape,
    )
    original = model([helper.make_node("Conv", ["x", "w"], ["y"])], {"x": [1, 3, 6, 6]}, ["y"], sparse=(sparse,))
    graph = load(original)
    np.testing.assert_array_equal(graph.weights["w"], full)


def test_sparse_weights_that_lie_outside_are_refused() -> None:
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(drawn(1), "w"), numpy_helper.from_array(np.array([99]), "at"), (2, 3, 1, 1)
    )
    original = model([helper.make_node("Conv", ["x", "w"], ["y"])], {"x": [1, 3, 6, 6]}, ["y"], sparse=(sparse,))
    with pytest.raises(InputError, match="sparse weight 'w' has indices outside of"):
        load(original)


@pytest.mark.parametrize("kind", [TensorProto.INT4, TensorProto.UINT4])
@pytest.mark.parametrize("count", [7, 8])
def test_types_below_a_byte_are_packed(kind: int, count: int) -> None:
    nodes = [helper.make_node("DequantizeLinear", ["q", "s"], ["w"]), helper.make_node("MatMul", ["x", "w"], ["y"])]
    quantised = helper.make_tensor("q", kind, [5, count], [i % 7 for i in range(5 * count)])
    original = model(
        nodes, {"x": [1, 5]}, ["y"], quantised, numpy_helper.from_array(np.float32(0.1), "s"), opset=21
    )  # fmt: skip
    same(original, x=drawn(1, 5))


# -- outputs --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("extra", ["table", "w", "x", "c", "s", "y"])
def test_outputs_that_no_node_makes_keep_their_names(extra: str) -> None:
    """An unread weight, a read one, the input, a constant, a folded shape, and an output named twice."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"]),
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(drawn(3))),
        helper.make_node("Shape", ["y"], ["s"]),
    ]
    original = model(
        nodes, {"x": [1, 3, 6, 6]}, ["y", extra], numpy_helper.from_array(drawn(8, 3, 1, 1), "w"),
        numpy_helper.from_array(drawn(5), "table"),
    )  # fmt: skip
    if extra == "s":
        original.graph.output[1].type.tensor_type.elem_type = TensorProto.INT64
    same(original, x=drawn(1, 3, 6, 6))


# -- reductions -----------------------------------------------------------------------------------------------
REDUCTIONS = ("L1", "L2", "Sum", "Mean", "Max", "Min", "Prod", "LogSumExp", "SumSquare", "LogSum")


@pytest.mark.parametrize("kind", REDUCTIONS)
@pytest.mark.parametrize("given", [True, False])
def test_reductions_over_no_axes_still_do_the_rest(kind: str, given: bool) -> None:
    node = helper.make_node(f"Reduce{kind}", ["x", "axes"] if given else ["x"], ["y"], noop_with_empty_axes=1)
    original = model([node], {"x": [1, 4]}, ["y"], numpy_helper.from_array(np.zeros(0, np.int64), "axes"), opset=18)
    x = np.array([[-1, 2, -3, 4]], np.float32)
    same(original, x=abs(x) if kind == "LogSum" else x)
