"""The file of records that comes with secateur: compact, in a fixed order, of the kernels that are asked for."""

from __future__ import annotations

import json
from pathlib import Path

from secateur.codegen.records import Record, Records, record_of
from secateur.codegen.specs import ConvChoice, ConvSpec, Strides
from ship_records import write

PLANE = Strides(1024, 1024, 128, 16)


def spec(ci: int, threads: int = 1) -> ConvSpec:
    size, one = (8, 8), (1, 1)
    return ConvSpec(16, 1, ci, 2, *size, one, one, one, PLANE, PLANE, False, threads=threads)


def test_what_is_shipped(tmp_path: Path) -> None:
    choice, versions = ConvChoice(1, 1, 4), {"apache-tvm": "1", "secateur": "0", "apache-tvm-ffi": "2"}
    measured = Records(tmp_path / "raw.jsonl")
    for ci in (64, 32, 16):
        timings = ((tuple(vars(choice).values()), 1e-5), ((2, 1, 4, "blocks", True), 2e-5))
        measured.add(record_of("t", spec(ci), choice, 1e-5, versions=versions, timings=timings))
    path = tmp_path / "shipped" / "t.jsonl"
    kernels = [spec(16), spec(64), spec(16), spec(999), spec(16, threads=2)]
    assert write(path, measured, "t", kernels) == 2
    lines = path.read_text().splitlines()
    assert [json.loads(line)["workload"]["ci"] for line in lines] == [16, 64]
    assert all("timings" not in line and '"versions":{"apache-tvm":"1"}' in line for line in lines)
    found = Records(path).find("t", spec(64))
    assert found == Record("t", "ConvSpec", found.workload, (1, 1, 4, "blocks", False), 1e-5, 1, {"apache-tvm": "1"})
    text = path.read_text()
    write(path, measured, "t", reversed(kernels))
    assert path.read_text() == text
