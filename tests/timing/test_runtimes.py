"""Measuring: every model runs in every runtime equally often, and ratios refer to the first model. Nothing is timed."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from secateur import InputError, Unsupported
from secateur.cli import bench as cli_measure
from secateur.cli.app import app
from secateur.deploy import build
from secateur.ir import Graph
from secateur.ir.exporters.onnx.write import save
from secateur.ir.frontends.onnx.process import WORKER, OnnxProcess
from secateur.timing import runtimes as measure
from support.network import Net


def small(width: int = 4, side: int = 4) -> Graph:
    net = Net(1, 3, side, side)
    return net.graph(net.head(net.conv("x", width)))


def test_every_pair_is_measured_and_the_first_is_the_reference() -> None:
    seen: list[tuple[int, int]] = []
    found = measure.measure(
        {"a": small(), "b": small(8)},
        ("onnxruntime", "torch"),
        repeats=4,
        progress=lambda i, n, what: seen.append((i, n)),
    )
    assert [(t.model, t.runtime) for t in found] == [
        ("a", "onnxruntime"), ("a", "torch"), ("b", "onnxruntime"), ("b", "torch"),
    ]  # fmt: skip
    assert all(0 < t.p10 <= t.median <= t.p90 for t in found)
    assert [t.ratio for t in found[:2]] == [1.0, 1.0]
    reference = {t.runtime: t.median for t in found[:2]}
    assert all(t.ratio == pytest.approx(reference[t.runtime] / t.median) for t in found)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_how_often_a_model_was_slower_is_counted_round_by_round() -> None:
    found = measure._timing("b", "torch", 1, [2.0, 2.0, 9.0, 1.0], [1.0, 1.0, 8.0, 7.0])
    assert found.slower == 0.75


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(InputError, match="no runtime 'tensorrt'; known are secateur, onnxruntime"):
        measure.measure({"a": small()}, ("tensorrt",))
    with pytest.raises(InputError, match="threads=0"):
        measure.measure({"a": small()}, threads=0)
    graphs = {"a.onnx": small(), "b.onnx": small(side=8)}
    with pytest.raises(Unsupported, match=r"'b.onnx' takes \[\(1, 3, 8, 8\)\]"):
        measure.named([Path("a.onnx"), Path("b.onnx")], lambda p: graphs[p.name])
    with pytest.raises(InputError, match="named twice"):
        measure.named([Path("a.onnx"), Path("a.onnx")], lambda p: graphs[p.name])


def test_the_command_prints_a_table_and_json(tmp_path: Path) -> None:
    for name, width in (("one model.onnx", 4), ("two.onnx", 8)):
        save(small(width), tmp_path / name)
    command = ["bench", str(tmp_path / "one model.onnx"), str(tmp_path / "two.onnx"), "--repeats", "2", "--json", "-"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [r["model"] for r in rows] == ["one model.onnx", "two.onnx"]
    assert "times as fast" in done.stderr
    wrong = CliRunner().invoke(app, ["bench", str(tmp_path / "two.onnx"), "--runtimes", "tensorrt"])
    assert wrong.exit_code == 2
    assert "no runtime 'tensorrt'" in wrong.stderr


def test_a_library_is_timed_beside_the_files(tmp_path: Path) -> None:
    pytest.importorskip("tvm")
    save(small(), tmp_path / "m.onnx")
    build(small()).save(tmp_path / "m.so")
    given = ["bench", str(tmp_path / "m.onnx"), str(tmp_path / "m.so"), "--repeats", "2", "--json", "-"]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [(r["model"], r["runtime"]) for r in rows] == [("m.onnx", "onnxruntime"), ("m.so", "library")]
    alone = CliRunner().invoke(app, ["bench", str(tmp_path / "m.so"), "--repeats", "1", "--json", "-"])
    assert [r["ratio"] for r in json.loads(alone.stdout)] == [1.0]


def test_a_file_that_crashes_the_runtime_is_not_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    save(small(), tmp_path / "m.onnx")
    start = f"import os, {WORKER} as w\nw.Worker.run = lambda *_: os.abort()\nw.main()"
    monkeypatch.setattr(cli_measure, "OnnxProcess", partial(OnnxProcess, (sys.executable, "-c", start)))
    done = CliRunner().invoke(app, ["bench", str(tmp_path / "m.onnx"), "--repeats", "1"])
    assert done.exit_code == 2
    assert "'m.onnx': ONNX Runtime itself crashes while running it" in done.stderr
