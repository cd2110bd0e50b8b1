"""``secateur bench --table`` and ``compile --latency-table``: a table is measured, and stands for measuring."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from secateur.timing import runtimes
from support.command import Call


def test_a_table_goes_from_one_command_to_the_other(call: Call, model: Path, tmp_path: Path) -> None:
    table, page = tmp_path / "t.csv", tmp_path / "r.json"
    done = call("bench", model, "--runtimes", "onnxruntime", "--table", table)
    assert done.code == 0, done.err
    assert table.read_text().startswith("# onnxruntime on ")
    lines = table.read_text().splitlines()  # times of so small layers are noise: widths decide
    table.write_text("\n".join([lines[1], *(f"{line.rpartition(',')[0]},{_work(line)}" for line in lines[2:])]))
    budget = ("--speedup", "1.2x", "--round-to", "1", "--dry-run", "--json", page)
    done = call("compile", model, "--latency-table", table, *budget)
    assert done.code == 0, done.err
    assert json.loads(page.read_text())["budget"]["tried"]
    done = call("compile", model, "--latency-table", table, "--macs", "50%", "--dry-run")
    assert done.code == 2
    assert "a latency table says what a budget of time takes" in done.err


def test_boards_are_measured_for_a_table_alone(call: Call, model: Path, tmp_path: Path) -> None:
    table, records = tmp_path / "t.csv", tmp_path / "r.jsonl"
    for options in (
        ("--key", "pi"),
        ("--tracker", "host:1", "--records", records),
        ("--table", table, "--target", "x86-avx2"),
    ):
        done = call("bench", model, *options)
        assert done.code == 2
        assert f"bench {options[-2] if '--target' in options else options[0]}: boards are measured with" in done.err
    assert "say with --records DB" in call("bench", model, "--table", table, "--tracker", "host:1", "--key", "pi").err
    done = call("bench", model, "--table", table, "--tracker", "127.0.0.1:1", "--key", "pi", "--records", records)
    assert "no tracker answers at 127.0.0.1:1" in done.err
    assert not table.exists()


def _work(line: str) -> int:
    _, inputs, outputs, *_ = line.split(",")
    return int(inputs or 0) * int(outputs or 0)


def test_a_runtime_that_is_not_here_is_named(
    call: Call, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "installed", lambda runtime: False)
    done = call("compile", model, tmp_path / "out.onnx", "--speedup", "2x", "--runtime", "openvino")
    assert done.code == 2
    assert "runtime 'openvino' is not installed here; pip install openvino, or leave it out" in done.err
    assert not (tmp_path / "out.onnx").exists()
