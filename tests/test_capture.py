"""Running graphs: ONNX networks in ONNX Runtime, without torch and without copies of their weights."""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper

from secateur import run
from secateur.ir import Graph, InputError, Unsupported, Value
from secateur.ir.exporters.onnx.session import Session
from secateur.ir.frontends.onnx.load import load
from secateur.run import Runner, evaluate

F = TensorProto.FLOAT
RNG = np.random.default_rng(3)


def drawn(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.standard_normal(shape).astype(np.float32)


def network(*tail: onnx.NodeProto, domains: tuple[str, ...] = (), bias: float = 0.0) -> ModelProto:
    """Two convolutions over a picture of any size and number; ``tail`` leads from ``c`` to ``y``."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Conv", ["b", "v", "k"], ["c"], name="second"),
        *(tail or (helper.make_node("Identity", ["c"], ["y"]),)),
    ]
    weights = {"w": drawn(64, 8, 3, 3), "v": drawn(4, 64, 1, 1), "k": np.full(4, bias, np.float32)}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", F, ["N", 8, "H", "W"])],
        [helper.make_tensor_value_info("y", F, ["N", 4, "H", "W"])],
        [onnx.numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    opsets = [helper.make_opsetid("", 13), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def truth(model: ModelProto, x: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {session.get_inputs()[0].name: x}))


@pytest.mark.parametrize("shape", [(1, 8, 8, 8), (3, 8, 20, 11)])
def test_an_onnx_network_runs_at_any_size_it_takes(shape: tuple[int, ...]) -> None:
    model = network()
    x = drawn(*shape)
    np.testing.assert_allclose(evaluate(load(model), {"x": x})[0], truth(model, x)[0], rtol=1e-4, atol=1e-4)


def test_inner_values_can_be_outputs() -> None:
    model = network()
    watched = ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend([onnx.ValueInfoProto(name="b"), onnx.ValueInfoProto(name="a")])
    graph = load(model)
    x = drawn(2, 8, 9, 9)
    found = evaluate(graph.rewrite(outputs=[*graph.outputs, "b", "a"]), {"x": x})
    for mine, theirs in zip(found, truth(watched, x), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)


def test_a_probability_near_zero_is_exact() -> None:
    graph = load(network(helper.make_node("Sigmoid", ["c"], ["y"]), bias=-9.0))
    small = graph.rewrite(weights={**graph.weights, "v": graph.weights["v"] * 0})
    (found,) = evaluate(small, {"x": drawn(1, 8, 4, 4)})
    np.testing.assert_allclose(found, 1 / (1 + np.exp(9.0)), rtol=1e-6)


def test_large_weights_are_shared_with_the_session() -> None:
    graph = load(network())
    session = Session(graph)
    assert set(session._weights) == {"w"}  # the others are small
    assert np.shares_memory(session._weights["w"], graph.weights["w"])


def test_a_runner_opens_one_session_for_each_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[weakref.ref[Session]] = []

    class Counted(Session):
        def __init__(self, graph: Graph) -> None:
            gc.collect()
            alive.append(sum(ref() is not None for ref in opened))
            super().__init__(graph)
            opened.append(weakref.ref(self))

    alive: list[int] = []
    monkeypatch.setattr("secateur.ir.exporters.onnx.session.Session", Counted)
    graphs, x = [load(network()) for _ in range(2)], {"x": drawn(1, 8, 8, 8)}
    run = Runner()
    for graph in (graphs[0], graphs[0], graphs[1], graphs[1]):
        run(graph, x)
    assert len(opened) == 2
    assert alive == [0, 0]  # the first was gone before the second was opened
    both = Runner(keep=2)
    for graph in graphs * 3:
        both(graph, x)
    assert len(opened) == 4
    copied = pickle.loads(pickle.dumps(both))
    np.testing.assert_array_equal(copied(graphs[0], x)[0], both(graphs[0], x)[0])


def test_an_operator_that_nobody_can_run_is_named() -> None:
    model = network(helper.make_node("Fancy", ["c"], ["y"], name="odd", domain="my.company"), domains=("my.company",))
    for dim, size in zip(model.graph.output[0].type.tensor_type.shape.dim, (1, 4, 8, 8), strict=True):
        dim.dim_value = size
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim, (1, 8, 8, 8), strict=True):
        dim.dim_value = size
    with pytest.raises(Unsupported, match=r"my\.company::Fancy 'odd'"):
        evaluate(load(model), {"x": drawn(1, 8, 8, 8)})


def test_what_onnxruntime_lacks_runs_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    model = network()
    x = drawn(1, 8, 8, 8)

    def refuse(graph: Graph) -> None:
        raise Unsupported("no code for this type")

    monkeypatch.setattr("secateur.ir.exporters.onnx.session.Session", refuse)
    np.testing.assert_allclose(evaluate(load(model), {"x": x})[0], truth(model, x)[0], rtol=1e-4, atol=1e-4)
    monkeypatch.setattr(run, "find_spec", lambda name: None)
    with pytest.raises(Unsupported, match="no code for this type"):
        evaluate(load(model), {"x": x})


def test_inputs_that_do_not_fit() -> None:
    graph = load(network())
    with pytest.raises(InputError, match=r"takes the inputs \['x'\], given: \['z'\]"):
        evaluate(graph, {"z": drawn(1, 8, 8, 8)})
    with pytest.raises(InputError, match=r"'net' cannot be run .* x float32"):
        evaluate(graph, {"x": drawn(1, 9, 8, 8)})
    with pytest.raises(InputError, match="float64"):
        evaluate(graph, {"x": np.ones((1, 8, 8, 8))})


def test_a_graph_of_another_origin_runs_in_torch() -> None:
    pytest.importorskip("torch")
    graph = load(network())
    plain = Graph(graph.name, (Value("x", (1, 8, 8, 8)),), graph.nodes, graph.outputs, graph.weights)
    x = {"x": drawn(1, 8, 8, 8)}
    np.testing.assert_allclose(evaluate(plain, x)[0], evaluate(graph, x)[0], rtol=1e-4, atol=1e-4)


def test_an_onnx_file_is_compiled_without_torch(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(network(), str(path))
    code = (
        "import sys, secateur\n"
        f"done = secateur.compile({str(path)!r}, macs=0.5)\n"
        f"done.save({str(tmp_path / 'slim.onnx')!r})\n"
        "assert done.report.verification['passed']\n"
        "print(sorted({'torch', 'timm', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
