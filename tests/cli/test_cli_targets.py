"""One policy file, one call: a slim network and a library for each target, the same on any machine."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from secateur.arguments import lanes_of
from secateur.ir import InputError
from secateur.policy import Policy
from support.command import Call

pytest.importorskip("tvm", reason="code generation needs apache-tvm")
FILE = '[budget]\nmacs = "60%"\n\n[deploy]\ntargets = ["x86-avx2", "x86-avx512"]\n'


def test_a_policy_file_names_targets_and_each_gets_its_library(call: Call, model: Path, tmp_path: Path) -> None:
    policy, out = tmp_path / "p.toml", tmp_path / "o.onnx"
    policy.write_text(FILE)
    command = ("compile", model, out, "--policy", policy, "--overwrite", "--library", tmp_path / "lib-{target}.so")
    done = call(*command)
    assert done.code == 0, done.err
    files = [tmp_path / f"lib-{name}.so" for name in ("x86-avx2", "x86-avx512")]
    for path in files:
        with zipfile.ZipFile(path) as archive:
            assert path.stem.endswith(json.loads(archive.read("metadata.json"))["target"]["name"])
    before = [path.read_bytes() for path in (*files, out)]
    assert call(*command).code == 0
    assert [path.read_bytes() for path in (*files, out)] == before, "the same policy, seed and records"


def test_several_targets_need_several_names(call: Call, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.onnx"
    done = call("compile", model, out, "--target", "x86-avx2,x86-avx512", "--library", tmp_path / "lib.so")
    assert done.code == 2
    assert "2 targets need as many files; write {target} in the name, as in lib-{target}.so" in done.err
    done = call("compile", model, out, "--target", "x86-avx2,x86-avx2")
    assert done.code == 2
    assert "name each target once" in done.err


def test_widths_depend_on_what_was_asked_for() -> None:
    assert lanes_of(None) == 8
    assert lanes_of("aarch64:cortex-a76") == 4
    assert lanes_of("aarch64:cortex-a76,x86-avx512") == 16
    with pytest.raises(InputError, match="unknown target 'x87'"):
        lanes_of("x86-avx2,x87")


def test_targets_in_a_policy_file(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(FILE)
    policy = Policy.parse(tmp_path / "p.toml")
    assert policy.targets == ("x86-avx2", "x86-avx512")
    policy.save(tmp_path / "q.toml")
    assert Policy.load(tmp_path / "q.toml") == policy
    (tmp_path / "p.toml").write_text("[deploy]\ntarget = 3\n")
    with pytest.raises(InputError, match="deploy"):
        Policy.load(tmp_path / "p.toml")
