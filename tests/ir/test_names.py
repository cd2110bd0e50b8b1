"""Names that a file may have: they become valid arguments of generated code, and a terminal never obeys them."""

from __future__ import annotations

import ast
import io
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from typer.testing import CliRunner

import secateur
from secateur.cli import app as cli
from secateur.ir import InputError
from secateur.ir.exporters.torch.module import evaluate, to_module
from secateur.ir.plain import one_line, printable
from secateur.report.text import show
from secateur.run import Runner

RED = "\x1b[31m\x9b2J\u202e"
HOSTILE = (
    "0", "1", "self", "torch", "None", "class", "lambda", "a.b", "a_b", "a b", RED, "input", "slice", "getattr", "inf",
    "forward", "x);import os;(", "ﬁ", "fi", "add", "conv2d", "'", '"', "\\",
)  # fmt: skip


def network(names: tuple[str, ...], weight: str = "w", node: str = "conv", title: str = "net") -> onnx.ModelProto:
    """The first input's convolution, plus all other inputs, under a bound of infinity."""
    nodes = [helper.make_node("Conv", [names[0], weight], ["c"], name=node)]
    last = "c"
    for i, name in enumerate(names[1:]):
        nodes.append(helper.make_node("Add", [last, name], [f"sum.{i}"], name=f"{node}{i}"))
        last = f"sum.{i}"
    nodes.append(helper.make_node("Clip", [last, "low"], ["y"], name="clip"))
    kinds = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3 if i == 0 else 4, 6, 6]) for i, n in enumerate(names)
    ]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 6, 6])
    drawn = np.random.default_rng(0).standard_normal((4, 3, 1, 1)).astype(np.float32)
    weights = [numpy_helper.from_array(drawn, weight), numpy_helper.from_array(np.float32(-np.inf), "low")]
    graph = helper.make_graph(nodes, title, kinds, [result], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_hostile_names_of_inputs_and_weights_run_everywhere() -> None:
    slim = secateur.compile(network(HOSTILE, weight='w");import os;("', title="class"), "none")
    graph = slim.graph
    rng = np.random.default_rng(1)
    inputs = {v.name: rng.standard_normal(v.shape).astype(np.float32) for v in graph.inputs}
    want = Runner()(graph, inputs)[0]
    module = slim.module()
    found = module(*(torch.from_numpy(inputs[v.name]) for v in graph.inputs))
    np.testing.assert_allclose(found.detach().numpy(), want, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(evaluate(graph, inputs)[0], want, rtol=1e-5, atol=1e-5)
    ast.parse(module.code)
    assert not any(isinstance(n, ast.Import) for n in ast.walk(ast.parse(module.code)))


@pytest.mark.parametrize("name", ["input", "x", "image_0"])
def test_ordinary_names_stay(name: str) -> None:
    module = to_module(secateur.load(network((name,))))
    assert module(**{name: torch.zeros(1, 3, 6, 6)}).shape == (1, 4, 6, 6)


def test_no_name_reaches_the_terminal_raw(tmp_path: Path) -> None:
    path = tmp_path / "in.onnx"
    onnx.save(network((f"x{RED}",), weight=f"w{RED}", node=f"n{RED}", title=f"t{RED}"), path)
    done = CliRunner().invoke(cli.app, ["inspect", str(path), "--json", "-"])
    assert done.exit_code == 0, done.output
    for text in (done.stdout, done.stderr, str(secateur.load(path))):
        assert printable(text) == text
    stream = io.StringIO()
    show(secateur.compile(str(path), "none").report, Console(file=stream, force_terminal=False, width=100), groups=True)
    assert printable(stream.getvalue()) == stream.getvalue()


def test_text_goes_to_the_terminal_in_one_place() -> None:
    """``say`` makes it printable; what goes to stdout is for programs."""
    for path in Path(cli.__file__).parent.glob("cli_*.py"):
        assert (", err=True" in path.read_text(encoding="utf-8")) == (path.name == "cli_terminal.py"), path


def test_messages_spell_out_what_a_terminal_would_obey(tmp_path: Path) -> None:
    assert str(InputError(f"weight '{RED}'")) == r"weight '\x1b[31m\x9b2J\u202e'"
    assert printable("ä\tb\n") == "ä\tb\n"
    assert one_line("a\nb") == r"a\nb"
    done = CliRunner().invoke(cli.app, ["inspect", str(tmp_path / f"no{RED}.onnx")])
    assert done.exit_code == 2
    assert r"no\x1b[31m" in done.stderr
