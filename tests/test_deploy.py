"""Libraries through the front door: built, saved, loaded, run; from Python and from the command line."""

from __future__ import annotations

import html
import json
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn
from typer.testing import CliRunner

import secateur
from secateur import InputError, codegen
from secateur.checks.coarse import dearest
from secateur.checks.library import Check
from secateur.cli.app import app
from secateur.cli.library import tell_threads
from secateur.deploy import build, seconds
from secateur.ir import Graph
from secateur.ir.exporters.onnx.write import save
from secateur.ir.exporters.torch.module import evaluate
from support.network import Net

pytest.importorskip("tvm", reason="code generation needs apache-tvm")


def small() -> Graph:
    net = Net(1, 3, 16, 16)
    x = net.relu(net.bn(net.conv("x", 24)))
    x = net.squeeze_excite(net.conv(net.conv(x, 24, groups=24), 20, 1))
    return net.graph(net.head(x))


def close(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.abs(a - b).max() <= 1e-4 * np.abs(b).max())


def test_compile_and_build_from_torch() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 48, 3), nn.Flatten(), nn.Linear(1728, 5)
    ).eval()
    x = torch.randn(1, 3, 16, 16)
    slim = secateur.compile(model, example_inputs=(x,), macs=0.5)
    want = slim(x)
    library = slim.build(threads=1)
    assert isinstance(library(x), torch.Tensor)
    assert close(library(x).numpy(), want.numpy())
    assert close(slim(x).numpy(), want.numpy())
    assert tuple(slim(torch.randn(2, 3, 16, 16)).shape) == (2, 5), "another batch runs without the library"


def test_the_commands_build_and_run(tmp_path: Path) -> None:
    graph, runner = small(), CliRunner()
    save(graph, tmp_path / "a model.onnx")
    x = np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    built = runner.invoke(app, ["build", str(tmp_path / "a model.onnx"), str(tmp_path / "a lib.so")])
    assert built.exit_code == 0, built.stderr
    assert f"wrote {tmp_path / 'a lib.so'}, " in built.stderr and "this machine has" not in built.stderr
    ran = runner.invoke(
        app, ["run", str(tmp_path / "a lib.so"), "--input", f"x={tmp_path}/x.npy", "--output", str(tmp_path / "out")]
    )
    assert ran.exit_code == 0, ran.stderr
    (file,) = (tmp_path / "out").iterdir()
    wanted = np.load(file)
    values = " ".join(f"{x:.4g}" for x in wanted.ravel()[:8].tolist())
    shown, took, wrote = ran.stderr.splitlines()
    assert shown.startswith(f"{graph.outputs[0]} f32[{', '.join(map(str, wanted.shape))}]: {values}")
    assert " ms, the first run, threads 1" in took
    assert wrote == f"wrote {file}, {file.stat().st_size} bytes"
    assert close(np.load(file), evaluate(graph, {"x": x})[0])


def test_more_threads_than_cores_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    tell_threads("native", 4096)
    assert "threads 4096: this machine has " in capsys.readouterr().err
    tell_threads("native", 1)
    tell_threads("x86-avx2", 4096)  # for another machine
    assert capsys.readouterr().err == ""


def test_compile_writes_a_library_too(tmp_path: Path) -> None:
    save(small(), tmp_path / "in.onnx")
    command = ["compile", str(tmp_path / "in.onnx"), str(tmp_path / "out.onnx"), "--macs", "60%", "--round-to", "1"]
    done = CliRunner().invoke(app, [*command, "--library", str(tmp_path / "out.so"), "--json", "-"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["verification"]["passed"]
    slim = secateur.load(tmp_path / "out.onnx")
    x = np.random.default_rng(1).standard_normal((1, 3, 16, 16)).astype(np.float32)
    assert close(secateur.load_library(tmp_path / "out.so")(x), evaluate(slim, {"x": x})[0])


def test_the_report_lists_what_has_no_template(tmp_path: Path) -> None:
    net = Net(1, 3, 8, 8)
    save(net.graph(net.node("cumsum", net.head(net.conv("x", 16)), axis=1, name="sum")), tmp_path / "in.onnx")
    page, library = tmp_path / "out.html", tmp_path / "out.so"
    command = ["compile", str(tmp_path / "in.onnx"), str(tmp_path / "out.onnx"), "--policy", "none", "--json", "-"]
    done = CliRunner().invoke(app, [*command, "--library", str(library), "--report", str(page)])
    assert done.exit_code == 0, done.stderr
    notes = [f"library: {note}" for note in secateur.load_library(library).metadata.notes]
    assert "library: no template: cumsum sum" in notes
    assert json.loads(done.stdout)["remarks"] == notes
    shown = html.unescape(page.read_text()), " ".join(done.stderr.split())
    assert all(note in text for note in notes for text in shown)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "IN", "OUT", "--target", "sparc"], "unknown target 'sparc'"),
        (["build", "IN", "IN"], "is the model itself"),
        (["build", "IN", "OUT", "--tune", "soon"], "'soon' is not a duration"),
        (["build", "IN", "OUT", "--threads", "0"], "threads is 0"),
        (["run", "IN", "--input", "x=x.npy"], "not a library of secateur, or damaged"),
        (["run", "none.so", "--input", "x=x.npy"], "there is no file 'none.so'"),
        (["compile", "IN", "OUT", "--tune", "5s"], "name one with --library"),
    ],
)
def test_bad_input_is_one_message(tmp_path: Path, arguments: list[str], message: str) -> None:
    model = tmp_path / "in.onnx"
    save(small(), model)
    before = model.read_bytes()
    places = {"IN": str(model), "OUT": str(tmp_path / "o.onnx")}
    done = CliRunner().invoke(app, [places.get(a, a) for a in arguments])
    assert done.exit_code == 2
    assert message in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
    assert model.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["in.onnx"]


def test_wrong_inputs_of_a_library(tmp_path: Path) -> None:
    save(small(), tmp_path / "in.onnx")
    runner = CliRunner()
    assert runner.invoke(app, ["build", str(tmp_path / "in.onnx"), str(tmp_path / "l.so")]).exit_code == 0
    np.save(tmp_path / "wide.npy", np.zeros((1, 3, 17, 16), np.float32))
    np.save(tmp_path / "double.npy", np.zeros((1, 3, 16, 16)))
    for text, message in {
        "x=wide.npy": "was given shape [1, 3, 17, 16]",
        "x=double.npy": "was given f64",
        "y=wide.npy": "the library takes x",
        "x=missing.npy": "missing.npy'; check the path",
    }.items():
        name, file = text.split("=")
        done = runner.invoke(app, ["run", str(tmp_path / "l.so"), "--input", f"{name}={tmp_path / file}"])
        assert done.exit_code == 2
        assert message in done.stderr.replace("\n", " ")


def test_a_library_that_computes_something_else_is_not_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from secateur import deploy as build

    graph, honest = small(), codegen.build

    def sabotaged(given: Graph, *rest: object, **more: object) -> codegen.Library:
        weights = {n: np.roll(w, 1, axis=0) if w.ndim == 4 else w for n, w in given.weights.items()}
        return honest(given.rewrite(weights=weights))

    monkeypatch.setattr(codegen, "build", sabotaged)
    with pytest.raises(secateur.LawError, match="the library of 'net' differs from the network"):
        build.build(graph)
    monkeypatch.undo()
    assert build.build(graph).metadata.name == "net"


def test_a_library_has_the_names_of_the_file(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["a\tb"], ["self"])
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, (1, 4)) for n in ("a\tb", "self")]
    onnx.save(helper.make_model(helper.make_graph([node], "net", ends[:1], ends[1:])), tmp_path / "odd.onnx")
    library = build(secateur.load(tmp_path / "odd.onnx"))
    assert [p.name for p in (*library.metadata.inputs, *library.metadata.outputs)] == ["a\tb", "self"]
    assert library(**{"a\tb": -np.ones((1, 4), np.float32)}).sum() == 0
    with pytest.raises(InputError, match=r"takes 'a\\tb' f32"):
        library(**{"self": np.ones((1, 4), np.float32)})


def test_durations() -> None:
    assert [seconds(t) for t in ("60s", "2m", 5, "1.5", "1h")] == [60, 120, 5, 1.5, 3600]
    with pytest.raises(InputError, match="'-3s' is not a duration"):
        seconds("-3s")


def test_the_plan_is_shown_and_leaves_the_library_as_it_is(tmp_path: Path) -> None:
    net = Net(1, 64, 28, 28)
    save(net.graph(net.relu(net.conv("x", 64))), tmp_path / "in.onnx")
    done = CliRunner().invoke(app, ["build", str(tmp_path / "in.onnx"), str(tmp_path / "out.so"), "--show-plan"])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert any("winograd{" in line and "64>64 3x3 28x28" in line and "+relu" in line for line in lines), done.stdout
    assert lines[-1].endswith("bytes") and (tmp_path / "out.so").is_file()


def test_a_library_without_fast_algorithms(tmp_path: Path) -> None:
    """Asked for by name, or for the size of the file: then its notes say what that costs."""
    net = Net(1, 64, 28, 28)
    graph = net.graph(net.relu(net.conv("x", 64)))
    x = np.random.default_rng(0).standard_normal((1, 64, 28, 28)).astype(np.float32)
    libraries = [build(graph), build(graph, fast=False), build(graph, compact=True)]
    assert [lib.metadata.kernels.get("winograd", 0) for lib in libraries] == [1, 0, 0]
    assert close(*(np.asarray(lib(x)) for lib in libraries[:2]))
    assert any("compact: 1 layer does without" in note for note in libraries[2].metadata.notes)
    libraries[2].save(tmp_path / "l.so")
    with zipfile.ZipFile(tmp_path / "l.so") as archive:
        size = archive.getinfo("weights.bin").file_size
    assert size <= 1.2 * sum(weight.nbytes for weight in graph.weights.values())
    little = Net(1, 3, 6, 6)
    assert str(codegen.cost_of_compact(little.graph(little.conv("x", 10)))).endswith("so it costs nothing")


def coarse_and_fine() -> Graph:
    """Two layers for Winograd's algorithm, whose tiles hand a very large pixel's roundings on to others in the second.

    Outputs that read the pixel itself are clipped.
    """
    net = Net(1, 32, 20, 20)
    x = net.relu(net.conv("x", 32))
    net.weights["light"] = np.ones((1, 1, 20, 20), np.float32)
    net.weights["light"][..., 9, 9] = 1e4
    y = net.bn(net.conv(net.node("mul", x, "light"), 32))
    return net.graph(net.node("clip", y, min=0.0, max=6.0))


def test_fast_algorithms_are_dropped_where_they_are_too_coarse(tmp_path: Path) -> None:
    save(coarse_and_fine(), tmp_path / "a.onnx")
    graph = secateur.load(tmp_path / "a.onnx")
    fast, library = codegen.build(graph), build(graph)
    assert fast.metadata.kernels["winograd"] == 2
    assert (library.metadata.kernels["winograd"], library.metadata.kernels["conv"]) == (1, 1)
    note = "fast algorithms are too coarse for 'conv3', computed directly; 1 other layer keeps its own"
    assert note in library.metadata.notes
    check = Check(graph)
    assert check.passed(check.outputs(library)) and not check.passed(check.outputs(fast))


def test_the_dearest_layers_go_first() -> None:
    cost = {"a": 1e-6, "b": 4e-5, "c": 3e-4, "d": float("inf"), "e": 2e-5}
    assert [dearest(cost, room) for room in (1.0, 5e-4, 5e-5, 1e-7)] == [
        ["d"], ["d"], ["d", "c", "b"], ["d", "c", "b", "e", "a"],
    ]  # fmt: skip


def test_a_network_that_magnifies_roundings_is_judged_by_double_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    from secateur import deploy as build

    class Unstable(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.full((16,), 0.1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = 30 + x * self.scale
            return (x * x).mean(-1) - x.mean(-1) ** 2

    graph = secateur.trace(Unstable(), (torch.randn(256, 16),))
    assert build.build(graph).metadata.name == graph.name
    honest = codegen.build

    def sabotaged(given: Graph, *rest: object, **more: object) -> codegen.Library:
        weights = {n: w * np.float32(1.1) if n == "scale" else w for n, w in given.weights.items()}
        return honest(given.rewrite(weights=weights), *rest, **more)

    monkeypatch.setattr(codegen, "build", sabotaged)
    with pytest.raises(secateur.LawError, match="differs from the network"):
        build.build(graph)
