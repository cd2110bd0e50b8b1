"""The original as it is next to the graph that was read from it, and the written file: sabotage, sizes, randomness."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import nn
from typer.testing import CliRunner

import secateur
from bench.reach import mutant_seeds
from secateur import inspection
from secateur.checks.comparison import RandomError
from secateur.checks.reading import check_reading
from secateur.checks.sizes import Resizing
from secateur.cli.app import app
from secateur.ir import Graph, Node
from secateur.ir.exporters.onnx import write as exporter
from secateur.ir.frontends.onnx import load as frontend
from secateur.ir.frontends.onnx.process import WORKER, OnnxProcess
from secateur.ir.frontends.torch import importer as torch_import

RNG = np.random.default_rng(0)


def model(
    *nodes: onnx.NodeProto, shape: tuple[int | str, ...] = (1, 3, 8, 8), out: str = "y", **weights: Any
) -> ModelProto:
    held = [numpy_helper.from_array(np.asarray(w), n) for n, w in weights.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info(out, TensorProto.FLOAT, None)
    graph = helper.make_graph(list(nodes), "net", [x], [y], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def two_layers(shape: tuple[int | str, ...] = (1, 3, 8, 8)) -> ModelProto:
    return model(
        helper.make_node("Conv", ["x", "w"], ["c"], name="first", pads=[1] * 4),
        helper.make_node("Sigmoid", ["c"], ["s"], name="gate"),
        helper.make_node("Conv", ["s", "v"], ["d"], name="second", pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["d"], ["y"], name="pool"),
        shape=shape,
        w=RNG.standard_normal((8, 3, 3, 3)).astype(np.float32),
        v=RNG.standard_normal((6, 8, 3, 3)).astype(np.float32),
    )


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.last = nn.Conv2d(3, 8, 3), nn.GELU(), nn.Conv2d(8, 4, 3)
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.last(self.act(self.first(x)))
        return y


@pytest.fixture(scope="module")
def process() -> Any:
    with OnnxProcess() as process:
        yield process


def exchanged(graph: Graph, op: str, **new: Any) -> Graph:
    """The graph with every node of this kind read as another."""
    nodes = [Node(new.get("op", n.op), n.inputs, n.outputs, new.get("attrs", n.attrs), n.source) if n.op == op else n
             for n in graph.nodes]  # fmt: skip
    return graph.rewrite(nodes=nodes)


def test_a_file_that_was_read_right_passes_at_other_sizes_too(process: OnnxProcess) -> None:
    source = two_layers(("N", 3, "H", "W"))
    found = check_reading(source, frontend.load(source), process=process)
    assert found is not None and found.passed and found.runs == 4 and found.note is None
    assert found.max_rel_err is not None and found.max_rel_err < 1e-5
    assert found.reference == "the file in ONNX Runtime" and "note" not in found.to_dict()


def test_a_misread_operator_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(frontend, "RULES", {**frontend.RULES, "Sigmoid": frontend.RULES["Tanh"]})
    path, out = tmp_path / "m.onnx", tmp_path / "out.onnx"
    onnx.save(two_layers(), path)
    said = (
        r"'m.onnx' is misread: from tanh 'gate' on, .* by \d\.\de[-+]\d+ \(relative\) from the file in ONNX Runtime; "
    )
    for call in (partial(secateur.compile, path, "none"), partial(secateur.inspect, path)):
        with pytest.raises(secateur.LawError, match=said):
            call()
    done = CliRunner().invoke(app, ["compile", str(path), str(out), "--policy", "none"])
    assert (done.exit_code, out.exists()) == (1, False) and "'gate'" in done.output
    assert secateur.inspect(path, trust=True).reading is None


def test_what_is_right_at_one_size_only_is_refused_at_another(process: OnnxProcess) -> None:
    source = model(
        helper.make_node("Relu", ["x"], ["r"], name="act"),
        helper.make_node("ReduceSum", ["r", "axes"], ["y"], name="sum", keepdims=0),
        shape=("N", 3, "H", "W"),
        axes=np.array([2, 3]),
    )
    graph = frontend.load(source)
    size = float(np.prod(graph.inputs[0].shape[2:]))
    (total,) = (n for n in graph.nodes if n.op == "reduce_sum")
    mean = Node("reduce_mean", total.inputs, (secateur_value("m", total),), total.attrs, total.source)
    back = Node("mul", ("m", "size"), total.outputs, {}, total.source)
    nodes = [part for n in graph.nodes for part in ((mean, back) if n is total else (n,))]
    wrong = graph.rewrite(nodes=nodes, weights={**graph.weights, "size": np.float32(size)[None]})
    with pytest.raises(secateur.LawError, match=r"'sum' on, .* in ONNX Runtime at N=3, H=37, W=41; "):
        check_reading(source, wrong, process=process)


def secateur_value(name: str, node: Node) -> Any:
    return type(node.out)(name, node.out.shape, node.out.dtype)


def test_sizes_that_the_original_refuses_say_nothing(process: OnnxProcess) -> None:
    """Halved and doubled again: only even sizes can be added to themselves."""
    source = model(
        helper.make_node("MaxPool", ["x"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Resize", ["p", "", "scales"], ["u"], mode="nearest"),
        helper.make_node("Add", ["x", "u"], ["y"]),
        shape=(1, 3, "H", "W"),
        scales=np.array([1, 1, 2, 2], np.float32),
    )
    found = check_reading(source, frontend.load(source), process=process)
    assert found is not None and found.passed and found.runs >= 3


def test_sizes_are_coprime_and_none_of_them_a_multiple_of_32() -> None:
    graph = frontend.load(two_layers(("N", 3, "H", "W")))
    firsts = [next(iter(choices))["x"] for choices in Resizing(graph).others()]
    assert len({s[0] for s in firsts}) == len(firsts) == 3
    for _, _, height, width in firsts:
        assert np.gcd(height, width) == 1 and height % 32 and width % 32
    assert min(s[2] for s in firsts) < 64 and max(s[2] for s in firsts) > 256


def test_what_onnx_runtime_cannot_run_is_said_and_no_error(process: OnnxProcess) -> None:
    source = two_layers()
    source.graph.node[1].domain = "elsewhere"
    source.opset_import.append(helper.make_opsetid("elsewhere", 1))
    source.graph.value_info.append(helper.make_tensor_value_info("s", TensorProto.FLOAT, (1, 8, 8, 8)))
    found = secateur.inspect(source)
    assert found.reading is not None and found.reading["passed"] is None
    assert "\nreading: not run: " in str(found) and "elsewhere" in str(found)


def test_a_file_that_crashes_the_runtime_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    onnx.save(two_layers(), tmp_path / "m.onnx")
    start = f"import os, {WORKER} as w\nw.Worker.run = lambda *_: os.abort()\nw.main()"
    monkeypatch.setattr(inspection, "OnnxProcess", partial(OnnxProcess, (sys.executable, "-c", start)))
    done = CliRunner().invoke(app, ["inspect", str(tmp_path / "m.onnx")])
    assert done.exit_code == 2
    assert "'m.onnx': ONNX Runtime itself crashes while running it (SIGABRT), so the file" in done.output


def test_a_random_file_is_called_random(process: OnnxProcess) -> None:
    source = model(
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("RandomNormalLike", ["r"], ["n"], name="noise"),
        helper.make_node("Add", ["r", "n"], ["y"]),
    )
    with pytest.raises(
        RandomError, match=r"is random: .* by \d.*; the first random node is .*RandomNormalLike 'noise'"
    ):
        check_reading(source, frontend.load(source), process=process)
    assert secateur.compile(source, "none", verify=False).report.reading is None


class Sampling(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        z: torch.Tensor = self.last(y + torch.randn_like(y))
        return z


def test_a_random_module_is_called_random_and_can_be_inspected() -> None:
    x = torch.randn(1, 3, 9, 9)
    with pytest.raises(secateur.InputError, match=r"'Sampling' is random: .*randn_like.*verify=False"):
        secateur.compile(Sampling(), "none", example_inputs=(x,))
    reading = secateur.inspect(Sampling(), example_inputs=(x,)).reading
    assert reading is not None and reading["passed"] is None and "is random" in reading["note"]


def test_a_misread_module_is_refused_by_the_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_import, "RULES", {**torch_import.RULES, "gelu": torch_import.RULES["tanh"]})
    with pytest.raises(secateur.LawError, match=r"'Net' is misread: from tanh 'act' on, .* from the module in torch; "):
        secateur.compile(Net(), "none", example_inputs=(torch.randn(1, 3, 9, 9),))


def test_a_module_is_left_as_it_was() -> None:
    class Counting(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.shape = tuple(x.shape)
            return super().forward(x)

    module, x = Counting().train(), torch.randn(1, 3, 9, 9)
    graph = secateur.trace(module, (x,))
    before, state = {n: t.clone() for n, t in module.state_dict().items()}, torch.get_rng_state()
    attributes = set(vars(module))
    found = check_reading(module, graph, (x,))
    assert found is not None and found.passed and found.runs == 5
    assert module.training and set(vars(module)) == attributes and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(t, before[n]) for n, t in module.state_dict().items())


def test_a_written_file_that_computes_something_else_is_not_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    slim = secateur.compile(Net(), "none", example_inputs=(torch.randn(1, 3, 9, 9),))
    monkeypatch.setitem(exporter.EMIT, "gelu", exporter.EMIT["tanh"])
    with pytest.raises(secateur.LawError, match=r"'n.onnx' would be wrong: from gelu 'act' on, .*nothing was written"):
        slim.save(tmp_path / "n.onnx")
    assert not list(tmp_path.iterdir())


def test_the_report_of_a_command_says_what_was_written(tmp_path: Path) -> None:
    source, out, page = tmp_path / "m.onnx", tmp_path / "o.onnx", tmp_path / "r.html"
    onnx.save(two_layers(("N", 3, "H", "W")), source)
    done = CliRunner().invoke(app, ["compile", str(source), str(out), "--policy", "none", "--report", str(page)])
    assert done.exit_code == 0, done.output
    for name in ("reading", "written"):
        line = f"{name}: computes what the file in ONNX Runtime does, error "
        assert line in done.output and line in page.read_text()
    trusted = CliRunner().invoke(app, ["compile", str(source), str(out), "--policy", "none", "--trust"])
    assert trusted.exit_code == 0 and "reading:" not in trusted.output and "written:" not in trusted.output


def test_no_size_is_tried_at_which_single_precision_loses_what_it_sums_up() -> None:
    """A mean of a million positions differs between two operators of one runtime by more than the tolerance."""
    names = [make.__name__ for make in mutant_seeds.SEEDS]
    graph = secateur.load(ModelProto.FromString(mutant_seeds.seeds()[names.index("grouped")]))
    sizes = [shapes["x"][2:] for choices in Resizing(graph).others() for shapes in choices]
    assert sizes
    assert max(h * w for h, w in sizes) <= 1 << 17


def chosen(scores: tuple[float, float], largest: int = 1) -> ModelProto:
    """The better one of two channels that are nearly alike."""
    weight = np.stack([np.full((3, 1, 1), s, np.float32) for s in scores])
    return model(
        helper.make_node("Conv", ["x", "w"], ["c"], name="scores"),
        helper.make_node("GlobalAveragePool", ["c"], ["p"], name="pool"),
        helper.make_node("TopK", ["p", "k"], ["v", "i"], name="best", axis=1, largest=largest),
        helper.make_node("Cast", ["i"], ["y"], name="index", to=TensorProto.FLOAT),
        w=weight,
        k=np.array([1], np.int64),
    )


def test_what_roundings_choose_is_judged_on_the_files_own_values(process: OnnxProcess) -> None:
    near, nearer = (1.0, 1.00002), (1.00002, 1.0)
    found = check_reading(chosen(near), frontend.load(chosen(nearer)), process=process)
    assert found is not None and found.passed and found.max_rel_err is not None and found.max_rel_err >= 1
    assert found.note is not None and "TopK 'best'" in found.note


def test_a_choice_that_was_misread_is_no_rounding(process: OnnxProcess) -> None:
    with pytest.raises(secateur.LawError, match=r"from ai\.onnx::TopK 'best' on"):
        check_reading(chosen((1.0, 1.00002)), frontend.load(chosen((1.0, 1.00002), largest=0)), process=process)
    with pytest.raises(secateur.LawError, match=r"from conv 'scores' on"):
        check_reading(chosen((1.0, 1.1)), frontend.load(chosen((1.1, 1.0))), process=process)
