"""The file of records that comes with secateur: compact, in a fixed order, of the kernels that are asked for."""

from __future__ import annotations

import json
from pathlib import Path

from bench.speed.ship_records import fastest, write
from secateur.codegen.kernels.conv.spec import ConvChoice, ConvSpec
from secateur.codegen.kernels.strassen.spec import StrassenChoice, StrassenSpec
from secateur.codegen.plan.family import Workload
from secateur.codegen.plan.strides import Strides
from secateur.codegen.records import Record, Records, key_of, record_of

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
    assert write(path, [measured], "t", kernels) == 2
    lines = path.read_text().splitlines()
    assert [json.loads(line)["workload"]["ci"] for line in lines] == [16, 64]
    assert all("timings" not in line and '"versions":{"apache-tvm":"1"}' in line for line in lines)
    found = Records(path).find("t", spec(64))
    assert found == Record("t", "ConvSpec", found.workload, (1, 1, 4, "blocks", False), 1e-5, 1, {"apache-tvm": "1"})
    text = path.read_text()
    write(path, [measured], "t", reversed(kernels))
    assert path.read_text() == text


def test_the_fastest_pass_of_those_that_compute_the_same(tmp_path: Path) -> None:
    """In the first pass the machine was slow; the second lacks a rival of the last kernel."""
    direct, strassen = spec(64), StrassenSpec(16, 1, 4, 2, 8, 8, PLANE, PLANE, False)
    seconds: list[dict[Workload, float]] = [{direct: 3e-5, strassen: 2e-5, spec(32): 1e-5},
                                           {direct: 1e-5, strassen: 1.5e-5, spec(32): 2e-5}]  # fmt: skip
    passes: list[Records] = []
    for i, measured in enumerate(seconds):
        passes.append(Records(tmp_path / f"{i}.jsonl"))
        for kernel, time in measured.items():
            choice = ConvChoice(1, 1, 4) if isinstance(kernel, ConvSpec) else StrassenChoice(1, 1, 4, 4)
            passes[-1].add(record_of("t", kernel, choice, time))
    found = fastest(passes, "t", [direct, spec(32), strassen, spec(999)])
    assert {key: record.seconds for key, record in found.items()} == {
        key_of("t", direct): 1e-5, key_of("t", strassen): 1.5e-5, key_of("t", spec(32)): 1e-5
    }  # fmt: skip
    half = Records(tmp_path / "half.jsonl")
    half.add(record_of("t", direct, ConvChoice(1, 1, 4), 1e-6))
    assert fastest([passes[0], half], "t", [direct, strassen])[key_of("t", direct)].seconds == 3e-5
