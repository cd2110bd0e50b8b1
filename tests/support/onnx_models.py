"""Small ONNX models: made, run without optimisations, and sent through the frontend and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, TensorProto, helper

from secateur.ir.exporters.onnx.write import to_onnx
from secateur.ir.frontends.onnx.load import OnnxOrigin, load
from secateur.ir.graph import Array, Graph
from secateur.ir.text import parse_graph

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
