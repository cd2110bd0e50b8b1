"""The command line, called in this process, and a file to call it with."""

from __future__ import annotations

from pathlib import Path

import pytest

from secateur.cli import app as cli
from secateur.ir.exporters.onnx.write import save
from support.command import Call, Result
from support.nets import residual


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command line in this process."""

    def run(*args: object) -> Result:
        try:
            cli.app([str(a) for a in args], prog_name="secateur")
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        found = capsys.readouterr()
        return Result(code, found.out, found.err)

    return run


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A residual network as ONNX, in a folder with a space."""
    folder = tmp_path / "my models"
    folder.mkdir()
    save(residual(), folder / "in put.onnx")
    return folder / "in put.onnx"
