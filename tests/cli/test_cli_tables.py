"""``secateur bench --table`` and ``compile --latency-table``: a table is measured, and stands for measuring."""

from __future__ import annotations

import json
from pathlib import Path

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


def _work(line: str) -> int:
    _, inputs, outputs, *_ = line.split(",")
    return int(inputs or 0) * int(outputs or 0)
