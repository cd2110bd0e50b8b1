"""Every operator of the IR, written as ONNX, run in ONNX Runtime, against the torch executor."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from secateur.ir.errors import Unsupported
from secateur.ir.exporters.onnx.write import EMIT, to_onnx
from secateur.ir.exporters.torch.module import evaluate
from secateur.ir.frontends.onnx.load import load
from secateur.ir.graph import Array, Graph, Node, Value, dtype_of, numpy_dtype
from secateur.ir.onnx_origin import OnnxOrigin
from secateur.ir.ops import BINARY, COMPARE, END, OPS, REDUCE, UNARY
from secateur.ir.text import reinfer
from secateur.ir.verify import verify

X, V, S = (2, 6, 8, 8), (6,), (2, 4, 6)
Case = tuple[str, str, dict[str, Any], list[Any], int]  # name, op, attrs, inputs, outputs


def case(op: str, *inputs: Any, outs: int = 1, name: str = "", **attrs: Any) -> Case:
    """``inputs``: a shape is fed, a ("w", shape) is a weight, an array is itself, None is absent."""
    return (f"{op}{'-' if name else ''}{name}", op, attrs, list(inputs), outs)


def w(*shape: int) -> tuple[str, tuple[int, ...]]:
    return ("w", shape)


def resize(mode: str, coordinate: str, rounding: str, **target: Any) -> Case:
    attrs = {"size": None, "scales": None, **target}
    return case(
        "resize",
        X,
        name=f"{mode}-{coordinate}-{'size' if attrs['size'] else 'scales'}",
        mode=mode,
        coordinate=coordinate,
        rounding=rounding,
        **attrs,
    )


P = (1, 1, 1, 1)
UNARY_ATTRS: dict[str, dict[str, Any]] = {
    "gelu": {"approximate": "none"},
    "softplus": {"beta": 1.0, "threshold": 20.0},
    "hard_sigmoid": {"alpha": 1 / 6, "beta": 0.5},
    "elu": {"alpha": 0.7},
    "celu": {"alpha": 1.3},
    "leaky_relu": {"slope": 0.2},
    "clip": {"min": -0.5, "max": None},
    "dropout": {"p": 0.3},
}
CASES: list[Case] = [
    *(case(op, X, **UNARY_ATTRS.get(op, {})) for op in sorted(set(UNARY) - {"not"})),
    case("not", np.array([True, False])),
    case("gelu", X, name="tanh", approximate="tanh"),
    case("clip", X, name="both", min=0.0, max=0.5),
    case("softplus", X, name="low", beta=2.0, threshold=1.0),
    *(case(op, X, (6, 1, 1)) for op in sorted(BINARY)),
    *(case(op, X, (8,)) for op in sorted(COMPARE - {"and", "or", "xor"})),
    *(
        case(op, np.array([True, False, True, False]), np.array([True, True, False, False]))
        for op in ("and", "or", "xor")
    ),
    case("where", np.array([[True], [False]]), (2, 3), (3,)),
    case("conv", X, w(4, 6, 3, 3), w(4), stride=(2, 1), dilation=(1, 2), pad=(1, 0, 1, 2), groups=1),
    case("conv", X, w(9, 2, 1, 1), name="grouped", stride=(1, 1), dilation=(1, 1), pad=(0,) * 4, groups=3),
    case("conv", S, w(4, 4, 3), w(4), name="1d", stride=(1,), dilation=(1,), pad=(1, 1), groups=1),
    case(
        "conv", (1, 2, 4, 4, 4), w(3, 2, 2, 2, 2), name="3d", stride=(1,) * 3, dilation=(1,) * 3, pad=(0,) * 6, groups=1
    ),
    case(
        "conv_transpose", X, w(6, 2, 3, 3), w(4), stride=(2, 2), dilation=(1, 1), pad=P, output_padding=(1, 1), groups=2
    ),
    case("linear", (3, 6), w(5, 6), w(5), transposed=False),
    case("linear", S, w(5, 6), name="3d", transposed=False),
    case("linear", (3, 6), w(6, 5), name="t", transposed=True),
    case("linear", S, w(6, 5), w(5), name="t3", transposed=True),
    case("matmul", (2, 3, 4), (2, 4, 5)),
    case("einsum", (2, 3, 4), (2, 5, 4), equation="bij,bkj->bik"),
    case("batch_norm", X, w(6), w(6), w(6), ("p", V), eps=1e-3, momentum=0.1),
    case("batch_norm", X, None, None, w(6), ("p", V), name="bare", eps=1e-3, momentum=0.1),
    case("layer_norm", S, w(6), w(6), dims=1, eps=1e-5),
    case("layer_norm", S, name="bare", dims=2, eps=1e-5),
    case("rms_norm", S, w(6), dims=1, eps=1e-5),
    case("group_norm", X, w(6), w(6), groups=3, eps=1e-5),
    case("group_norm", S, name="bare", groups=2, eps=1e-5),
    case("instance_norm", X, w(6), w(6), eps=1e-5),
    case("instance_norm", X, name="bare", eps=1e-5),
    case("lrn", X, size=3, alpha=1e-2, beta=0.75, bias=1.0),
    case("max_pool", X, kernel=(3, 3), stride=(2, 2), dilation=(1, 1), pad=P, ceil=True),
    case(
        "max_pool",
        (1, 2, 7, 7),
        name="dilated",
        kernel=(2, 2),
        stride=(1, 1),
        dilation=(2, 2),
        pad=(0,) * 4,
        ceil=False,
    ),
    case("avg_pool", X, kernel=(3, 3), stride=(2, 2), pad=P, ceil=False, include_pad=True),
    case("avg_pool", X, name="exclude", kernel=(3, 3), stride=(2, 2), pad=P, ceil=False, include_pad=False),
    case("avg_pool", X, name="ceil", kernel=(3, 3), stride=(2, 2), pad=(0,) * 4, ceil=True, include_pad=False),
    case("avg_pool", X, name="ceil-include", kernel=(3, 3), stride=(2, 2), pad=(0,) * 4, ceil=True, include_pad=True),
    case("adaptive_avg_pool", X, size=(4, 2)),
    case("adaptive_avg_pool", X, name="uneven", size=(3, 5)),
    case("adaptive_avg_pool", X, name="one", size=(1, 1)),
    case("adaptive_max_pool", X, size=(4, 4)),
    case("prelu", X, w(6)),
    case("prelu", X, w(1), name="one"),
    case("prelu", X, w(6, 1, 1), name="onnx"),
    case("softmax", X, axis=1),
    case("softmax", S, name="last", axis=2),
    case("log_softmax", X, axis=3),
    case("concat", X, (2, 3, 8, 8), axis=1),
    case("split", X, outs=3, axis=1, sizes=(1, 2, 3)),
    case("slice", X, axes=(1, 3), starts=(1, 0), ends=(END, 7), steps=(2, 3)),
    case("slice", X, name="back", axes=(1,), starts=(END,), ends=(-END,), steps=(-1,)),
    case("gather", X, np.array([3, 0, 5]), axis=1),
    case("gather", X, np.array(2), name="scalar", axis=1),
    case("gather", (9, 4), np.array([[1, 2], [0, 8]], np.int32), name="rows", axis=0),
    case("reshape", X, shape=(0, -1, 4)),
    case("flatten", X, start=1, end=3),
    case("flatten", X, name="mid", start=1, end=2),
    case("flatten", X, name="all", start=0, end=3),
    case("transpose", X, perm=(0, 2, 3, 1)),
    case("squeeze", (2, 1, 3, 1), axes=(1, 3)),
    case("unsqueeze", (2, 3), axes=(0, 3)),
    case("expand", (2, 1, 3), shape=(4, -1, 5, 3)),
    case("tile", (2, 3), repeats=(2, 3)),
    case("pad", X, pads=(0, 1, 2, 0, 0, 0, 1, 3), mode="constant", value=1.5),
    *(case("pad", X, name=m, pads=(0, 0, 2, 1, 0, 0, 1, 3), mode=m, value=None) for m in ("reflect", "edge", "wrap")),
    case("roll", X, shifts=(3, -2), axes=(2, 3)),
    case("flip", X, axes=(2, 3)),
    case("depth_to_space", (1, 8, 2, 3), block=2, mode="CRD"),
    case("depth_to_space", (1, 8, 2, 3), name="dcr", block=2, mode="DCR"),
    case("space_to_depth", (1, 2, 4, 6), block=2, mode="CRD"),
    case("space_to_depth", (1, 2, 4, 6), name="dcr", block=2, mode="DCR"),
    resize("nearest", "asymmetric", "floor", scales=(2.0, 1.5)),
    resize("nearest", "asymmetric", "floor", size=(12, 5)),
    resize("linear", "half_pixel", "floor", scales=(2.0, 2.0)),
    resize("linear", "align_corners", "floor", size=(13, 4)),
    resize("cubic", "half_pixel", "floor", size=(12, 16)),
    *(case(op, X, axes=(2, 3), keepdims=True) for op in sorted(REDUCE - {"reduce_var"})),
    *(case(op, S, name="drop", axes=(1,), keepdims=False) for op in sorted(REDUCE - {"reduce_var"})),
    case("reduce_var", X, axes=(2, 3), keepdims=True, correction=1),
    case("reduce_var", X, name="biased", axes=(1,), keepdims=False, correction=0),
    case("argmax", X, axis=1, keepdims=False),
    case("argmin", X, axis=3, keepdims=True),
    case("cumsum", S, axis=1),
    case("cast", X, to="i64"),
    case("cast", np.array([0, 2]), name="float", to="f32"),
    case(
        "rnn",
        (5, 2, 3),
        w(2, 4, 3),
        w(2, 4, 4),
        w(2, 8),
        outs=2,
        hidden=4,
        direction="bidirectional",
        activation="relu",
    ),
    case("lstm", (5, 2, 3), w(2, 16, 3), w(2, 16, 4), w(2, 32), outs=3, hidden=4, direction="bidirectional"),
    case(
        "lstm",
        (5, 2, 3),
        w(1, 16, 3),
        w(1, 16, 4),
        None,
        (1, 2, 4),
        (1, 2, 4),
        name="states",
        outs=3,
        hidden=4,
        direction="forward",
    ),
    case(
        "gru",
        (5, 2, 3),
        w(1, 12, 3),
        w(1, 12, 4),
        w(1, 24),
        outs=2,
        hidden=4,
        direction="forward",
        linear_before_reset=True,
    ),
]


def build(one: Case) -> tuple[Graph, dict[str, Array]]:
    """A graph of a single node, and what to feed it."""
    name, op, attrs, given, outs = one
    rng = np.random.default_rng(len(name))
    inputs, weights, names, feeds = [], {}, [], {}
    for i, spec in enumerate(given):
        if spec is None:
            names.append(None)
            continue
        names.append(f"i{i}")
        if isinstance(spec, tuple) and spec[:1] in (("w",), ("p",)):
            drawn = rng.standard_normal(spec[1]).astype(np.float32)
            weights[f"i{i}"] = np.abs(drawn) + np.float32(0.5) if spec[0] == "p" else drawn
            continue
        array = spec if isinstance(spec, np.ndarray) else rng.standard_normal(spec).astype(np.float32)
        if op in ("log", "sqrt", "rsqrt", "pow", "mod", "div", "reciprocal"):
            array = np.abs(array) + np.float32(0.3)
        if op == "gather" and i == 1:
            weights[f"i{i}"] = array
            continue
        inputs.append(Value(f"i{i}", array.shape, dtype_of(array)))
        feeds[f"i{i}"] = array
    node = Node(op, tuple(names), tuple(Value(f"y{i}", ()) for i in range(outs)), attrs)
    graph = Graph(name, tuple(inputs), (node,), tuple(f"y{i}" for i in range(outs)), weights)
    return verify(reinfer(graph)), feeds


def run(model: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    wanted = {i.name for i in session.get_inputs()}
    return list(session.run(None, {k: v for k, v in feeds.items() if k in wanted}))


def same(mine: list[Array], theirs: list[Array], tolerance: float = 2e-5) -> None:
    assert len(mine) == len(theirs)
    for a, b in zip(mine, theirs, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a.astype(np.float64), b.astype(np.float64), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("one", CASES, ids=[c[0] for c in CASES])
def test_runtime_agrees_with_torch(one: Case) -> None:
    graph, feeds = build(one)
    model = to_onnx(graph)
    onnx.checker.check_model(model, full_check=True)
    same(run(model, feeds), [np.asarray(a) for a in evaluate(graph, feeds)])


@pytest.mark.parametrize("one", CASES, ids=[c[0] for c in CASES])
def test_reads_back_what_it_wrote(one: Case) -> None:
    graph, feeds = build(one)
    again = load(to_onnx(graph))
    assert not any(n.op == "opaque" for n in again.nodes)
    same(run(to_onnx(again), feeds), run(to_onnx(graph), feeds))


OLD = [
    c
    for c in CASES
    if c[1]
    in {
        "reshape",
        "flatten",
        "transpose",
        "squeeze",
        "unsqueeze",
        "concat",
        "split",
        "slice",
        "gather",
        "pad",
        "roll",
        "flip",
        "tile",
        "clip",
        "mul",
        "add",
        "relu",
        "conv",
        "linear",
        "batch_norm",
        "softmax",
        "group_norm",
        "layer_norm",
        "hard_swish",
        "silu",
        "depth_to_space",
        "space_to_depth",
        "dropout",
        *(REDUCE - {"reduce_var"}),
    }
]


@pytest.mark.parametrize("opset", [7, 9, 10, 11, 12, 13, 17, 21])
def test_other_operator_sets(opset: int) -> None:
    for one in OLD if opset < 13 else CASES:
        graph, feeds = build(one)
        header = onnx.helper.make_model(
            onnx.helper.make_graph([], "g", [], []), ir_version=8, opset_imports=[onnx.helper.make_opsetid("", opset)]
        )
        framed = graph.with_note(OnnxOrigin(header.SerializeToString(), opset))
        model = to_onnx(framed)
        onnx.checker.check_model(model, full_check=True)
        same(run(model, feeds), run(to_onnx(graph), feeds))


def test_every_operator_can_be_written_and_is_tried() -> None:
    assert set(EMIT) == OPS
    assert {c[1] for c in CASES} == OPS - {"opaque"}


def test_a_torch_only_operator_is_refused_by_name() -> None:
    node = Node("opaque", ("x",), (Value("y", (2,)),), {"kind": "torch", "target": "aten.fancy", "payload": ""})
    graph = Graph("g", (Value("x", (2,)),), (node,), ("y",), {})
    with pytest.raises(Unsupported, match=r"aten\.fancy"):
        to_onnx(graph)


def test_half_precision_stays_half() -> None:
    graph, _ = build(case("conv", X, w(4, 6, 3, 3), stride=(1, 1), dilation=(1, 1), pad=P, groups=1))
    half = Graph(
        "h",
        (Value("i0", X, "f16"),),
        graph.nodes,
        graph.outputs,
        {k: v.astype(numpy_dtype("f16")) for k, v in graph.weights.items()},
    )
    model = to_onnx(load(to_onnx(verify(reinfer(half)))))
    assert model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
