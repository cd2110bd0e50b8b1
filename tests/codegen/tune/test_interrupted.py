"""A tuner that is interrupted or killed keeps what it measured, and leaves no process behind."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import secateur
from secateur import codegen
from secateur.cli.app import app
from secateur.codegen.records import Records
from secateur.ir.exporters.onnx.write import save
from support.network import small

pytest.importorskip("tvm", reason="code generation needs apache-tvm")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def tune_command(files: Path, records: Path) -> tuple[list[str], dict[str, str]]:
    path = os.pathsep.join(p for p in sys.path if p)
    command = [sys.executable, "-m", "secateur.cli.app", "tune", str(files / "in.onnx"), "--records", str(records)]
    return command, {**os.environ, "PYTHONPATH": path, "TERM": "xterm", "COLUMNS": "80"}


def workers_of(parent: int) -> list[str]:
    """The processes that measure for a tuner."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"secateur.codegen.tune.worker" in words and str(parent).encode() in words:
            found.append(place.parent.name)
    return found


def test_ctrl_c_at_the_terminal(tmp_path: Path) -> None:
    """The key goes to a terminal, once the first kernel is measured."""
    save(small(layers=12), tmp_path / "in.onnx")
    path = tmp_path / "r.jsonl"
    command, env = tune_command(tmp_path, path)
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a test run in the background ignores the key, and so would this
        os.execve(command[0], command, env)
    shown = b""
    pressed = False
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        shown += piece
        if not pressed and re.search(rb"\b[1-9]\d*/\d+", shown):
            os.write(terminal, b"\x03")
            pressed = True
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    text = shown.decode(errors="replace")
    assert os.waitstatus_to_exitcode(status) == 130, text
    assert "Traceback" not in text
    counts = re.search(r"tuning was interrupted: (\d+) of (\d+) kernels were not measured", text)
    assert counts, text
    kept = Records(path)
    assert len(kept.table) == int(counts[2]) - int(counts[1]) > 0
    assert f"{len(kept.table)} kernels were measured; their records are in" in " ".join(text.split())
    assert "run it again to measure the rest" in text
    assert kept.notes == []
    assert workers_of(pid) == []


KILLED = """
import sys
from pathlib import Path
from secateur.deploy import tune
from secateur import load
def tell(done, total, what):
    if done:
        print(done, total, flush=True)
tune(load(sys.argv[1]), sys.argv[2], progress=tell)
"""


def test_a_killed_tuner_loses_nothing(tmp_path: Path) -> None:
    save(small(layers=6), tmp_path / "in.onnx")
    path = tmp_path / "r.jsonl"
    _, env = tune_command(tmp_path, path)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "in.onnx"), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        done, total = map(int, process.stdout.readline().split())
        process.send_signal(signal.SIGKILL)
    kept = Records(path)
    assert done <= len(kept.table) < total
    assert kept.notes == []
    before = path.read_text()
    outcome, notes = codegen.tune(secateur.load(tmp_path / "in.onnx"), 100, path)
    assert (outcome.measured, outcome.left, notes) == (total - len(kept.table), 0, ())
    assert path.read_text().startswith(before), "what was there stays"
