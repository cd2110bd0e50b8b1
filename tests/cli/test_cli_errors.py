"""The command line where something is wrong: one message, an exit code, and nothing half-written."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from secateur import api
from secateur.cli import compile as cli_compile
from secateur.ir import files
from secateur.passes.law import Verification
from support.command import Call, listing


def test_a_failed_law_writes_nothing(call: Call, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "check", lambda *a, **k: Verification("exact", False, 0.3, 2, "masked original"))
    done = call("compile", model, model.with_name("o.onnx"), "--recipe", model.with_name("r.json"))
    assert done.code == 1
    assert listing(model) == {"in put.onnx"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--protect", "bb*"], "matches no layer"),
        (["--policy", "none", "--macs", "50%"], "prunes nothing, so the budget macs=50% cannot be met"),
        (["--policy", "fold_bn", "--latency-ms", "5"], "prunes nothing, so the budget latency_ms=5 cannot be met"),
        (["--macs", "lots"], "not an amount"),
        (["--macs", "150%"], "share"),
        (["--macs", "50%", "--params", "50%"], "2 budgets"),
        (["--policy", "l9"], "did you mean"),
        (["--policy", "nowhere.toml"], "cannot be read"),
        (["--round-to", "eight"], "whole number"),
        (["--calibration", "nowhere.npz"], "there is no"),
        (["--records", "db.jsonl"], "name one with --library"),
        (["--tune", "60s"], "name one with --library"),
        (["--sparsity", "100%"], "below 100%"),
        (["--sparsity", "80%", "--block", "7"], "not a pattern of zeros"),
        (["--block", "auto"], "give sparsity= as well"),
        (["--latency-ms", "0"], "milliseconds above 0"),
        (["--target", "cuda"], "unknown target 'cuda' (did you mean cuda:sm_90"),
        (["--seed", "x"], "--seed"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_bad_usage_is_2_with_one_message(call: Call, model: Path, options: list[str], message: str) -> None:
    done = call("compile", model, model.with_name("o.onnx"), *options)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err
    assert done.out == ""
    assert listing(model) == {"in put.onnx"}


@pytest.mark.parametrize(
    ("content", "message"), [(b"", ""), (b"not a model at all", ""), (None, "there is no file"), (b"cut", "")]
)
def test_unusable_models(call: Call, model: Path, content: bytes | None, message: str) -> None:
    bad = model.with_name("bad.onnx")
    if content == b"cut":
        content = model.read_bytes()[:-500]
    if content is not None:
        bad.write_bytes(content)
    recipe = model.with_name("r.json")
    recipe.write_text("{}")
    for args in (["compile", bad, model.with_name("o.onnx")], ["inspect", bad]):
        done = call(*args)
        assert done.code == 2
        assert message in done.err
        assert "bad.onnx" in done.err
        assert "unexpected" not in done.err
    assert call("inspect", model.parent).code == 2
    assert "not a secateur recipe" in call("apply", recipe, model, model.with_name("o.onnx")).err
    assert not model.with_name("o.onnx").exists()


def test_places_that_cannot_be_written(call: Call, model: Path) -> None:
    assert "does not exist" in call("compile", model, model.parent / "no" / "o.onnx").err
    assert "is a file and no folder" in call("compile", model, model / "o.onnx").err
    assert "ending .onnx" in call("compile", model, model.with_name("o.pt")).err
    assert "named twice" in call("compile", model, model.with_name("o.onnx"), "--recipe", model).err
    assert listing(model) == {"in put.onnx"}


def test_a_folder_without_permission(call: Call, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may write everywhere, so the question is answered here.
    monkeypatch.setattr(files.os, "access", lambda path, mode, **_: not mode & os.W_OK)
    done = call("compile", model, model.with_name("o.onnx"))
    assert done.code == 2
    assert "may not write there" in done.err


def test_a_full_disk(call: Call, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = model.with_name("o.onnx")
    old.write_bytes(b"old")

    def full(path: Path, text: str) -> None:
        path.write_text(text[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "_fill", full)
    done = call("compile", model, old, "--recipe", model.with_name("r.json"))
    assert done.code == 2
    assert "r.json': the disk is full" in done.err
    assert old.read_bytes() == b"old"
    assert listing(model) == {"in put.onnx", "o.onnx"}


def test_interruption(call: Call, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_compile, "write_listed", interrupt)
    done = call("compile", model, model.with_name("o.onnx"))
    assert done.code == 130
    assert done.err.strip() == "secateur: interrupted; nothing was written"


def test_surprises_are_one_line_and_debug_shows_more(call: Call, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "inspect", lambda *a, **k: 1 / 0)
    done = call("inspect", model)
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert "--debug" in done.err
    assert "Traceback" in call("inspect", model, "--debug").err
