"""Operators without a template: TVM's library gives what torch gives, on row-major tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from secateur import codegen
from secateur.codegen.plan.program import TensorSpec
from secateur.ir import Graph, Node, Source, Unsupported, Value
from secateur.ir.exporters.torch.module import evaluate
from secateur.ir.graph import numpy_dtype
from secateur.ir.ops import END, OPS
from support.network import Net

LEFT_OUT = {"opaque", "lstm", "gru", "rnn"}  # refused with a clear message

CASES: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("softmax", (2, 3, 5), {"axis": 1}), ("log_softmax", (2, 7), {"axis": 1}),
    ("transpose", (2, 3, 4, 5), {"perm": (0, 2, 3, 1)}), ("reshape", (2, 3, 4), {"shape": (0, -1)}),
    ("slice", (2, 9, 6), {"axes": (1, 2), "starts": (1, -4), "ends": (END, 5), "steps": (3, 1)}),
    ("pad", (1, 2, 4, 5), {"pads": (0, 0, 1, 2, 0, 0, 2, 1), "mode": "constant", "value": 0.5}),
    ("pad", (1, 2, 4, 5), {"pads": (0, 0, 1, 2, 0, 0, 2, 1), "mode": "reflect", "value": 0.0}),
    ("roll", (1, 6, 5), {"shifts": (2, -1), "axes": (1, 2)}), ("flip", (2, 3, 4), {"axes": (1,)}),
    ("tile", (1, 2, 3), {"repeats": (2, 1, 3)}), ("expand", (1, 3, 1), {"shape": (2, -1, 4)}),
    ("depth_to_space", (1, 8, 3, 3), {"block": 2, "mode": "CRD"}),
    ("space_to_depth", (1, 2, 6, 4), {"block": 2, "mode": "DCR"}),
    ("resize", (1, 2, 5, 6), {"mode": "nearest", "size": None, "scales": (2.0, 2.0), "coordinate": "asymmetric",
                              "rounding": "floor"}),
    ("resize", (1, 2, 5, 6), {"mode": "linear", "size": (9, 11), "scales": None, "coordinate": "half_pixel",
                              "rounding": "floor"}),
    ("reduce_var", (2, 3, 5), {"axes": (1, 2), "keepdims": True, "correction": 1}),
    ("reduce_logsumexp", (2, 3, 5), {"axes": (2,), "keepdims": False}),
    ("reduce_l2", (2, 3, 5), {"axes": (1,), "keepdims": True}),
    ("argmax", (2, 3, 5), {"axis": 2, "keepdims": False}), ("cumsum", (2, 6), {"axis": 1}),
    ("instance_norm", (2, 3, 5, 4), {"eps": 1e-5}),
    ("lrn", (1, 7, 3, 3), {"size": 4, "alpha": 0.1, "beta": 0.7, "bias": 1.0}),
    ("adaptive_avg_pool", (1, 3, 7, 5), {"size": (3, 2)}), ("adaptive_max_pool", (1, 3, 7, 5), {"size": (2, 2)}),
    ("round", (4, 5), {}), ("sign", (4, 5), {}), ("softplus", (4, 5), {"beta": 1.0, "threshold": 20.0}),
    ("log_sigmoid", (4, 5), {}), ("sin", (4, 5), {}), ("gelu", (2, 3, 4), {"approximate": "tanh"}),
]  # fmt: skip


def same(net: Net, *names: str) -> None:
    """Build, run, compare."""
    graph = Graph("net", tuple(net.inputs), tuple(net.nodes), names, net.weights)
    x = {"x": np.random.default_rng(3).standard_normal(net.inputs[0].shape).astype(np.float32) * 2}
    found = codegen.build(graph)(x)
    for got, want in zip(found if isinstance(found, tuple) else (found,), evaluate(graph, x), strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("op", "shape", "attrs"), CASES, ids=lambda v: v if isinstance(v, str) else "")
def test_operator(op: str, shape: tuple[int, ...], attrs: dict[str, Any]) -> None:
    net = Net(*shape)
    same(net, net.node(op, "x", **attrs))


def test_attention() -> None:
    net = Net(1, 6, 8)
    weights = {n: (net.weight(n, 8, 8, scale=0.3), net.weight(n + "b", 8)) for n in "qkv"}
    q, k, v = (net.node("linear", "x", *w, transposed=False) for w in weights.values())
    scores = net.node("softmax", net.node("matmul", q, net.node("transpose", k, perm=(0, 2, 1))), axis=2)
    y = net.node("layer_norm", net.node("matmul", scores, v), net.weight("g", 8), net.weight("b", 8), dims=1, eps=1e-5)
    same(net, y)


def test_transposed_convolution() -> None:
    net = Net(1, 6, 5, 4)
    y = net.node("conv_transpose", "x", net.weight("w", 6, 4, 3, 3), net.weight("b", 8), stride=(2, 2), dilation=(1, 1),
                 pad=(1, 1, 1, 1), output_padding=(1, 1), groups=2)  # fmt: skip
    same(net, y)


def test_booleans_and_integers() -> None:
    net = Net(2, 6)
    positive = net.node("gt", "x", net.weight("zero"))
    index = net.node("argmax", "x", axis=1, keepdims=False)
    same(net, net.node("where", positive, "x", net.node("neg", "x")), positive, index, net.node("cast", "x", to="i32"))


def test_every_operator_has_a_rule_or_is_refused() -> None:
    from secateur.codegen.emit.topi import RULES

    assert set(OPS) - set(RULES) == LEFT_OUT


def test_an_operator_without_a_rule_is_named() -> None:
    from secateur.codegen.emit.topi import build_tensor_op

    with pytest.raises(Unsupported, match="lstm"):
        build_tensor_op(TensorSpec("lstm", (), (), ()))


@pytest.mark.parametrize("weighted", [True, False])
def test_rms_norm(weighted: bool) -> None:
    net = Net(1, 6, 8)
    weight = net.weight("g", 8) if weighted else None
    same(net, net.node("rms_norm", "x", weight, dims=1, eps=1e-5))


def test_a_number_cut_out_of_a_value() -> None:
    net = Net(1, 6)
    one = net.node("slice", "x", axes=(1,), starts=(2,), ends=(3,), steps=(1,))
    number = net.node("squeeze", one, axes=(0, 1))
    same(net, net.node("cumsum", net.node("mul", "x", net.node("sin", number)), axis=1))


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_products_in_half_precision_are_computed_in_float32(dtype: str) -> None:
    """In half precision TVM's own would be correct, and take hundreds of times as long."""
    net = Net(1, 8, 6, 6)
    half = net.node("cast", "x", to=dtype)
    net.weights["w"] = (np.arange(64).reshape(8, 8, 1, 1) % 7).astype(numpy_dtype(dtype))
    y = net.node("conv", half, "w", name="body", stride=(1, 1), dilation=(1, 1), pad=(0,) * 4, groups=1)
    graph = Graph("net", tuple(net.inputs), tuple(net.nodes), (net.node("cast", y, to="f32"),), net.weights)
    library = codegen.build(graph.rewrite(nodes=net.nodes))
    assert library.metadata.kernels["conv"] == 1
    x = np.random.default_rng(0).standard_normal((1, 8, 6, 6)).astype(np.float32)
    want = np.einsum("oi,nihw->nohw", net.weights["w"].astype(np.float32)[:, :, 0, 0], x)
    np.testing.assert_allclose(library(x), want, rtol=1e-4, atol=1e-4)


def test_an_operator_without_inputs_is_named_too() -> None:
    net = Net(1, 4)
    source = Node(
        "opaque", (), (Value("noise", (1, 4), "f32"),), {"kind": "onnx", "target": "RandomNormal"}, Source("n")
    )
    total = Node("add", ("x", "noise"), (Value("y", (1, 4), "f32"),), {}, Source("y"))
    graph = Graph("net", tuple(net.inputs), (source, total), ("y",), {})
    with pytest.raises(Unsupported, match="no code for RandomNormal"):
        codegen.build(graph)
