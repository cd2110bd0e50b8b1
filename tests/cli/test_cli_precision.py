"""``--precision`` from the command line: refused with a sentence where it cannot be, and built for any machine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from secateur import load_library
from secateur.codegen.targets import get_target, missing_features
from secateur.ir import InputError
from support.command import Call

pytest.importorskip("tvm", reason="code generation needs apache-tvm")


def test_the_command_line_refuses_what_cannot_be_and_builds_what_can(call: Call, model: Path, tmp_path: Path) -> None:
    out, lib = tmp_path / "o.onnx", tmp_path / "l.so"
    done = call("compile", model, out, "--precision", "bf16")
    assert done.code == 2
    assert "--precision bf16 says what a library multiplies in; name one with --library" in done.err
    done = call("build", model, lib, "--target", "x86-avx2", "--precision", "bf16")
    assert done.code == 2
    assert "target x86-avx2 has no instructions that multiply bfloat16" in done.err
    done = call("build", model, lib, "--precision", "bf61")
    assert done.code == 2
    assert "unknown precision 'bf61' (did you mean bf16, f16?)" in done.err
    assert not lib.exists()
    done = call("build", model, lib, "--target", "x86-avx512-bf16", "--precision", "bf16")
    assert done.code == 0, done.err
    assert "outputs in bf16 differ from those in f32 by" in done.err
    if missing_features(get_target("x86-avx512-bf16")):
        with pytest.raises(InputError, match="this machine lacks"):
            load_library(lib)
    else:
        assert load_library(lib).metadata.precision == "bf16"
    done = call("build", model, lib, "--target", "x86-avx2", "--precision", "auto")
    assert done.code == 0, done.err


def test_the_report_states_the_distance_and_the_agreement(call: Call, model: Path, tmp_path: Path) -> None:
    data, report = tmp_path / "x.npz", tmp_path / "r.json"
    shape = [d.dim_value or 3 for d in onnx.load(model).graph.input[0].type.tensor_type.shape.dim]
    np.savez(data, np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    done = call(
        "compile", model, tmp_path / "o.onnx", "--policy", "none", "--library", tmp_path / "l.so", "--precision",
        "bf16", "--target", "x86-avx512-bf16", "--calibration", data, "--json", report,
    )  # fmt: skip
    assert done.code == 0, done.err
    remarks = json.loads(report.read_text())["remarks"]
    assert any("outputs in bf16 differ from those in f32 by" in remark for remark in remarks), remarks
    assert any("examples of the calibration data" in remark for remark in remarks), remarks
