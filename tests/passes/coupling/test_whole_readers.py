"""What reads channels whole freezes none: zeros stand in for those that are gone, and full operands are picked from.

Each network is pruned, written, and answers as the original file masked by the recipe does in ONNX Runtime alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import nn

import secateur
from bench.reach import onnx_reference

FLOAT = TensorProto.FLOAT


class Weights:
    """Weights drawn by name as they are asked for."""

    def __init__(self) -> None:
        self.rng, self.tensors = np.random.default_rng(0), list[TensorProto]()

    def __call__(self, *shape: int) -> str:
        name = f"w{len(self.tensors)}"
        array = self.rng.standard_normal(shape) / np.sqrt(max(1.0, np.prod(shape[1:])))
        return self.constant(name, array.astype(np.float32))

    def constant(self, name: str, array: np.ndarray) -> str:
        self.tensors.append(numpy_helper.from_array(array, name))
        return name


def node(op: str, inputs: Sequence[str], out: str, **attrs: object) -> NodeProto:
    return helper.make_node(op, list(inputs), [out], name=f"node_{out}", **attrs)


def conv(x: str, weight: str, out: str) -> list[NodeProto]:
    return [node("Conv", [x, weight], f"{out}_conv", pads=[1] * 4), node("Relu", [f"{out}_conv"], out)]


def head(x: str, weight: str) -> list[NodeProto]:
    return [*conv(x, weight, "last"), node("GlobalAveragePool", ["last"], "pooled"), node("Flatten", ["pooled"], "y")]


def model(nodes: Sequence[NodeProto], w: Weights, *more: onnx.ValueInfoProto) -> ModelProto:
    ends = [helper.make_tensor_value_info("x", FLOAT, ("N", 3, 8, 8)), *more]
    out = helper.make_tensor_value_info("y", FLOAT, ("N", 10))
    graph = helper.make_graph(list(nodes), "net", ends, [out], w.tensors)
    found = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(found)
    return found


def sampled() -> ModelProto:
    """An operator without a rule of the IR that treats every channel alike, added to what is pruned."""
    w = Weights()
    grid = helper.make_tensor_value_info("grid", FLOAT, (1, 8, 8, 2))
    return model([*conv("x", w(24, 3, 3, 3), "a"), node("GridSample", ["a", "grid"], "g"),
                  *conv("a", w(32, 24, 3, 3), "b"), *conv("g", w(32, 24, 3, 3), "c"),
                  node("GridSample", ["c", "grid"], "s"), node("Add", ["s", "b"], "sum"),
                  *head("sum", w(10, 32, 3, 3))], w, grid)  # fmt: skip


def branches() -> ModelProto:
    """Branches that read a pruned value from around them."""
    w = Weights()
    info = [helper.make_tensor_value_info(n, FLOAT, None) for n in ("t", "e")]
    then = helper.make_graph([node("Sin", ["a"], "t")], "then", [], info[:1])
    other = helper.make_graph([node("Cos", ["a"], "c"), node("Add", ["c", "a"], "e")], "else", [], info[1:])
    return model([*conv("x", w(24, 3, 3, 3), "a"), node("ReduceMean", ["x"], "m", keepdims=0),
                  node("Greater", ["m", w.constant("zero", np.float32(0))], "positive"),
                  node("If", ["positive"], "chosen", then_branch=then, else_branch=other),
                  *head("chosen", w(10, 24, 3, 3))], w)  # fmt: skip


def loop() -> ModelProto:
    """A loop whose body reads what the loop is given as its first state."""
    w = Weights()
    kinds = {"i": TensorProto.INT64, "go": TensorProto.BOOL, "on": TensorProto.BOOL, "v": FLOAT, "next": FLOAT}
    infos = {n: helper.make_tensor_value_info(n, kind, None if kind == FLOAT else []) for n, kind in kinds.items()}
    steps = [node("Add", ["v", "a"], "next"), node("Identity", ["go"], "on")]
    body = helper.make_graph(steps, "body", [infos[n] for n in ("i", "go", "v")], [infos[n] for n in ("on", "next")])
    return model([*conv("x", w(24, 3, 3, 3), "a"),
                  node("Loop", [w.constant("trips", np.asarray(3)), "", "a"], "looped", body=body),
                  *head("looped", w(10, 24, 3, 3))], w)  # fmt: skip


def shortcut() -> ModelProto:
    """The input itself added to what is pruned."""
    w = Weights()
    return model([*conv("x", w(3, 3, 3, 3), "a"), node("Add", ["a", "x"], "sum"), *conv("sum", w(24, 3, 3, 3), "b"),
                  *head("b", w(10, 24, 3, 3))], w)  # fmt: skip


def computed_weights() -> ModelProto:
    """A convolution whose weights are computed from channels that could go."""
    w = Weights()
    return model([*conv("x", w(24, 3, 3, 3), "a"), node("GlobalAveragePool", ["a"], "p"), node("Flatten", ["p"], "f"),
                  node("Gemm", ["f", w(24, 6 * 24)], "flat"),
                  node("Reshape", ["flat", w.constant("shape", np.asarray([6, 24, 1, 1]))], "kernel"),
                  node("Conv", ["a", "kernel"], "made"), *head("made", w(10, 6, 3, 3))], w)  # fmt: skip


def mirrored() -> ModelProto:
    """Channels that are mirrored."""
    w = Weights()
    pads = w.constant("pads", np.asarray([0, 1, 0, 0, 0, 1, 0, 0]))
    return model([*conv("x", w(24, 3, 3, 3), "a"), node("Pad", ["a", pads], "padded", mode="reflect"),
                  *head("padded", w(10, 26, 3, 3))], w)  # fmt: skip


def one_channel() -> ModelProto:
    """A single channel taken out by its number."""
    w = Weights()
    return model([*conv("x", w(24, 3, 3, 3), "a"), *conv("a", w(16, 24, 3, 3), "b"),
                  node("Gather", ["a", w.constant("which", np.asarray(5))], "plane", axis=1),
                  node("Unsqueeze", ["plane", w.constant("axes", np.asarray([1]))], "one"),
                  node("Mul", ["one", "b"], "scaled"), *head("scaled", w(10, 16, 3, 3))], w)  # fmt: skip


def grouped_transposed() -> ModelProto:
    """A transposed convolution with groups of several channels."""
    w = Weights()
    return model([*conv("x", w(24, 3, 3, 3), "a"),
                  node("ConvTranspose", ["a", w(24, 3, 3, 3), w(12)], "up", group=4, strides=[2, 2]),
                  *head("up", w(10, 12, 3, 3))], w)  # fmt: skip


def bank() -> ModelProto:
    """A bank of filters whose channels become the height of a picture."""
    w = Weights()
    return model([*conv("x", w(24, 3, 3, 3), "a"), node("Transpose", ["a"], "picture", perm=[0, 2, 1, 3]),
                  *conv("picture", w(32, 8, 3, 3), "b"), *conv("b", w(24, 32, 3, 3), "c"),
                  *head("c", w(10, 24, 3, 3))], w)  # fmt: skip


def linear_attention() -> ModelProto:
    """Values and keys make a matrix of channels by channels, which queries contract."""
    w = Weights()
    flat, square = w.constant("flat", np.asarray([0, 0, -1])), w.constant("square", np.asarray([0, 0, 8, 8]))
    rows = [n for name, width in (("q", 16), ("k", 16), ("v", 24))
            for n in (*conv("x", w(width, 3, 3, 3), name), node("Reshape", [name, flat], f"{name}s"))]  # fmt: skip
    return model([*rows, node("Transpose", ["ks"], "turned", perm=[0, 2, 1]), node("MatMul", ["vs", "turned"], "pairs"),
                  node("MatMul", ["pairs", "qs"], "read"), node("Reshape", ["read", square], "picture"),
                  *head("picture", w(10, 24, 3, 3))], w)  # fmt: skip


MAKERS = [
    linear_attention,
    bank,
    sampled,
    branches,
    loop,
    shortcut,
    computed_weights,
    mirrored,
    one_channel,
    grouped_transposed,
]


@pytest.mark.parametrize("make", MAKERS)
def test_nothing_is_frozen_and_the_file_answers_as_the_masked_original(make: object, tmp_path: Path) -> None:
    assert callable(make)
    given = make()
    onnx.save(given, tmp_path / "given.onnx")
    slim = secateur.compile(tmp_path / "given.onnx", macs="60%" if make is linear_attention else "95%")
    slim.save(tmp_path / "slim.onnx")
    said = "zeros stand in for channels that are gone before", "channels are picked from a full operand at"
    told = any(r.startswith(said) for r in slim.report.remarks)
    assert told == (make not in (sampled, grouped_transposed))  # one keeps its channels, of the other groups are cut
    frozen = {g.frozen for g in slim.report.groups}
    assert frozen <= {None, "graph output"}
    rng = np.random.default_rng(1)
    batch = 1 if make in (sampled, computed_weights) else 2
    feeds = {i.name: rng.standard_normal([batch, *(d.dim_value for d in i.type.tensor_type.shape.dim[1:])])
             .astype(np.float32) for i in given.graph.input}  # fmt: skip
    masked = onnx_reference.masked(given, json.loads(slim.recipe.to_json()), feeds)
    want, have = (onnx_reference.answer(m, feeds) for m in (masked, str(tmp_path / "slim.onnx")))
    error, what = onnx_reference.difference(want, have)
    assert error < 1e-5, what


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], layers: int, both: bool, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv1d(6, 40, 3, padding=1)
        self.cells = kind(40, 24, num_layers=layers, bidirectional=both, bias=bias, batch_first=True)
        self.fc = nn.Linear(48 if both else 24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.fc(self.cells(torch.relu(self.conv(x)).transpose(1, 2))[0][:, -1])
        return found


@pytest.mark.parametrize(
    ("kind", "layers", "both", "bias"),
    [(nn.GRU, 1, False, True), (nn.GRU, 1, True, False), (nn.LSTM, 1, True, False), (nn.LSTM, 2, True, True)],
)
def test_hidden_units_go_with_their_gates(
    kind: type[nn.RNNBase], layers: int, both: bool, bias: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module = Recurrent(kind, layers, both, bias).eval()
    slim = secateur.compile(module, "l1", macs="40%",
                            example_inputs=(torch.randn(2, 6, 12),))  # fmt: skip
    assert {g.frozen for g in slim.report.groups} <= {None, "graph output"}
    hidden = {n.attrs["hidden"] for n in slim.graph.nodes if n.op in ("lstm", "gru")}
    assert max(hidden) < 24
    slim.save(tmp_path / "slim.onnx")
    x = np.random.default_rng(2).standard_normal((3, 6, 12)).astype(np.float32)
    (have,) = onnx_reference.answer(str(tmp_path / "slim.onnx"), {slim.graph.inputs[0].name: x}).values()
    assert np.abs(have - np.asarray(slim(x))).max() < 1e-5
