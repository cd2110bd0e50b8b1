"""What a user can do wrong with libraries, records and tuning: one message of what, where, why and what to do."""

from __future__ import annotations

import errno
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

import secateur
from secateur import InputError
from secateur.cli.app import app
from secateur.codegen.targets import native
from secateur.deploy import at_batch, build
from secateur.ir.exporters.onnx.write import save
from secateur.ir.exporters.torch.module import evaluate
from support.network import small

pytest.importorskip("tvm", reason="code generation needs apache-tvm")


X = np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``in.onnx``, its library ``l.so`` and ``x.npy``, none of which a test changes."""
    folder = tmp_path_factory.mktemp("files")
    save(small(), folder / "in.onnx")
    build(small()).save(folder / "l.so")
    np.save(folder / "x.npy", X)
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def refused(done: Result, message: str, code: int = 2) -> None:
    """Exit code, and one line on stderr that matches."""
    text = done.stderr.replace("\n", " ")
    assert done.exit_code == code, (text, done.exception)
    assert re.search(message, text), text
    assert text.count("secateur: ") == 1
    assert "Traceback" not in text
    assert "fault in secateur" not in text


@pytest.mark.parametrize("command", ["build", "tune"])
def test_unknown_target(files: Path, tmp_path: Path, command: str) -> None:
    where = (tmp_path / "o.so",) if command == "build" else ("--records", tmp_path / "r.jsonl")
    message = r"unknown target 'z80': choose native or one of x86-avx512, x86-avx2, aarch64-neon"
    refused(run(command, files / "in.onnx", *where, "--target", "z80"), message)
    with pytest.raises(InputError, match=message):
        build(small(), "z80")
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_this_machine_is_not_can_be_built_for_and_not_tuned_for(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = "aarch64-neon" if native().triple.startswith("x86") else "x86-avx2"
    message = rf"cannot tune for {other} here: this machine lacks an? .*tune on a machine that fits"
    refused(run("tune", files / "in.onnx", "--records", tmp_path / "r.jsonl", "--target", other), message)
    with pytest.raises(InputError, match=message):
        secateur.compile(small(), "none").build(other, tune="5s")
    library = build(small(), other)
    with pytest.raises(InputError, match=f"the library of 'net' was built for {other}; this machine lacks an? "):
        library(X)
    monkeypatch.setattr("secateur.codegen.library.shutil.which", lambda _: None)
    monkeypatch.setattr("secateur.cli.library.build", None)  # nothing is compiled that could not be linked
    message = (
        rf"cannot link .* for {other}: there is no .*-gcc; install that cross compiler \(Debian: gcc-.*-linux-gnu\)"
    )
    refused(run("build", files / "in.onnx", tmp_path / "o.so", "--target", other), message)
    options = ("--macs", "50%", "--target", other, "--library", tmp_path / "o.so")
    refused(run("compile", files / "in.onnx", tmp_path / "o.onnx", *options), message)
    assert list(tmp_path.iterdir()) == []


def test_a_library_of_a_better_processor(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without its vectors: nothing of it is loaded."""
    name = native().name
    monkeypatch.setattr("secateur.codegen.targets.cpu_features", lambda: frozenset({"sse2", "fma"}))
    message = rf"l\.so' was built for {name}; this machine lacks .*Build it again with a target that fits"
    refused(run("run", files / "l.so", "--input", f"x={files / 'x.npy'}"), message)
    with pytest.raises(InputError, match=message):
        secateur.load_library(files / "l.so")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda b: b[: len(b) // 2], "damaged"),
        (lambda b: b"", "damaged"),
        (lambda b: b.replace(b'"format": 1', b'"format": x'), "damaged"),
        (lambda b: b[: len(b) // 3] + bytes([b[len(b) // 3] ^ 1]) + b[len(b) // 3 + 1 :], "damaged"),
    ],
)
def test_a_damaged_library(files: Path, tmp_path: Path, harm: Callable[[bytes], bytes], message: str) -> None:
    path = tmp_path / "l.so"
    path.write_bytes(harm((files / "l.so").read_bytes()))
    refused(run("run", path, "--input", f"x={files / 'x.npy'}"), rf"l\.so' is not a library of secateur, or {message}")
    with pytest.raises(InputError, match=message):
        secateur.load_library(path)


def test_a_library_of_another_format(files: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(files / "l.so") as old, zipfile.ZipFile(tmp_path / "l.so", "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, data.replace(b'"format": 1', b'"format": 9'))
    message = r"l\.so' has format 9, this version of secateur reads 1; build it again"
    refused(run("run", tmp_path / "l.so", "--input", f"x={files / 'x.npy'}"), message)
    with pytest.raises(InputError, match=message):
        secateur.load_library(tmp_path / "l.so")


@pytest.mark.parametrize("place", ["", "none.so"])
def test_no_library_there(files: Path, tmp_path: Path, place: str) -> None:
    message = "there is no file .*; check the path"
    refused(run("run", tmp_path / place, "--input", f"x={files / 'x.npy'}"), message)
    with pytest.raises(InputError, match=message):
        secateur.load_library(tmp_path / place)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((1, 3, 17, 16), np.float32), r"shape \[1, 3, 17, 16\]; build the library again from a model of this"),
        (np.zeros((4, 3, 16, 16), np.float32), r"for this batch, with batch=4 or --batch 4"),
        (np.zeros((3, 16, 16), np.float32), r"shape \[3, 16, 16\]; give it 4 dimensions"),
        (np.zeros((1, 3, 16, 16)), r"was given f64; convert it to float32"),
        (np.zeros((1, 3, 16, 16), np.int8), r"was given i8; convert it to float32"),
        (np.array([None]), "holds Python objects|was given shape"),
    ],
)
def test_wrong_inputs(files: Path, tmp_path: Path, x: Any, message: str) -> None:
    np.save(tmp_path / "x.npy", x)
    refused(run("run", files / "l.so", "--input", f"x={tmp_path / 'x.npy'}"), message)
    with pytest.raises(InputError, match=message):
        secateur.load_library(files / "l.so")(x)


def test_wrong_names(files: Path) -> None:
    library = secateur.load_library(files / "l.so")
    refused(run("run", files / "l.so", "--input", f"y={files / 'x.npy'}"), "the library takes x; write NAME=file.npy")
    refused(run("run", files / "l.so", "--input", "x=none.npy"), "there is no 'none.npy'")
    for given, message in (({"y": X}, "unknown or given twice: .'y'"), ({}, "missing: .'x'")):
        with pytest.raises(InputError, match=message):
            library(**given)


def test_another_batch_is_another_library(files: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(784, 5)).eval()
    slim = secateur.compile(model, "none", example_inputs=(torch.randn(1, 3, 16, 16),))
    four = torch.randn(4, 3, 16, 16)
    want = slim(four)
    library = slim.build()
    with pytest.raises(InputError, match="with batch=4 or --batch 4"):
        library(four)
    again = slim.build(batch=4)
    assert [p.metadata.inputs[0].shape[0] for p in (library, again)] == [1, 4]
    for found in (again(four), slim(four)):
        torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(slim(four[:1]), want[:1], rtol=1e-4, atol=1e-4)
    slim.save(tmp_path / "in.onnx")
    assert run("build", tmp_path / "in.onnx", tmp_path / "l.so", "--batch", 2).exit_code == 0
    torch.testing.assert_close(secateur.load_library(tmp_path / "l.so")(four[:2]), want[:2], rtol=1e-4, atol=1e-4)
    message = r"the inputs of 'net' have a fixed batch: 'x' f32\[1, 3, 16, 16\]; export the model with a dynamic batch"
    refused(run("build", files / "in.onnx", tmp_path / "o.so", "--batch", 2), message)
    refused(run("build", files / "in.onnx", tmp_path / "o.so", "--batch", 0), "batch is 0; give a number from 1 up")
    with pytest.raises(InputError, match=message):
        at_batch(small(), 2)


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_no_space_for_a_library(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "l.so").write_bytes(b"what was here")
    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    message = r"cannot write '.*l\.so': the disk is full; make room or choose another place"
    refused(run("build", files / "in.onnx", tmp_path / "l.so"), message)
    with pytest.raises(InputError, match=message):
        build(small()).save(tmp_path / "l.so")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("l.so", b"what was here")]


def test_no_space_for_outputs(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "save", full)
    done = run("run", files / "l.so", "--input", f"x={files / 'x.npy'}", "--output", tmp_path / "out")
    refused(done, r"cannot write '.*out/linear3\.npy': the disk is full; make room or choose another place")
    assert list((tmp_path / "out").iterdir()) == []


def test_no_space_for_records(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text("")
    monkeypatch.setattr("secateur.codegen.records._append", full)
    message = r"cannot append to the records in '.*r\.jsonl': No space left on device; make room, what was measured"
    refused(run("tune", files / "in.onnx", "--records", path), message)
    with pytest.raises(InputError, match=message):
        build(small(), tune="60s", records=path)


@pytest.mark.parametrize("place", ["", "none/r.jsonl"])
def test_records_where_none_can_be(files: Path, tmp_path: Path, place: str) -> None:
    path = tmp_path / place
    message = "it is not a file; name one" if place == "" else "its folder does not exist; name another file"
    refused(run("tune", files / "in.onnx", "--records", path), message)
    with pytest.raises(InputError, match=message):
        build(small(), tune=5, records=path)
    typo = run("build", files / "in.onnx", tmp_path / "o.so", "--records", tmp_path / "typo")
    refused(typo, "there are no records '.*typo'; check the path, or tune")


def test_records_that_do_not_hold_here(files: Path, tmp_path: Path) -> None:
    """Of another version, of another target, and damaged: said, passed over, and the library is built."""
    path = tmp_path / "r.jsonl"
    tuned = run("tune", files / "in.onnx", "--records", path)
    assert tuned.exit_code == 0, tuned.stderr
    line = path.read_text().splitlines()[0]
    for change, message in {
        (f'"{native().name}"', '"x86-1970"'): f"none of its 1 records is for {native().name} (x86-1970 1)",
        ('"v":2', '"v":3'): "r.jsonl:1: skipped, it is of version 3, this secateur reads 2",
        ('"revision":', '"revision":9'): "they are of revision 9",
        ('"apache-tvm":"', '"apache-tvm":"0.'): "1 records not used, they were measured with apache-tvm 0.",
        ('"choice"', "choice"): "r.jsonl:1: skipped, Expecting property name",
    }.items():  # fmt: skip
        path.write_text(line.replace(*change) + "\n")
        done = run("build", files / "in.onnx", tmp_path / "o.so", "--records", path)
        assert done.exit_code == 0, done.stderr
        assert message in done.stderr
        assert any(message in note for note in build(small(), records=path).metadata.notes)


def test_boards_without_a_tracker_are_refused_before_the_model_is_read(tmp_path: Path) -> None:
    for options, why in {
        ("--key", "k"): "--key k: say with --tracker HOST:PORT where the boards are",
        ("--tracker", "h:1"): "--tracker h:1: say with --key which boards",
        ("--tracker", "127.0.0.1:1", "--key", "k"): "no tracker answers at 127.0.0.1:1 .*start one with",
    }.items():
        refused(run("tune", tmp_path / "none.onnx", "--records", tmp_path / "r.jsonl", *options), why)


def test_a_library_still_computes_the_network(files: Path) -> None:
    """The fixtures of this file are sound."""
    found = secateur.load_library(files / "l.so")(X)
    np.testing.assert_allclose(found, evaluate(small(), {"x": X})[0], rtol=1e-4, atol=1e-4)
