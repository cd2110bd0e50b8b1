"""``torchrun -m secateur``: several processes, one result, one message."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from typer.testing import CliRunner

from secateur.cli import app as cli
from secateur.distributed import Team, launched
from secateur.ir import InputError
from secateur.ir.exporters.onnx.write import save
from support.network import Net

ALONE = ["-m", "secateur"]
TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *ALONE]
POLICY = ["--policy", "taylor,global{macs=50%},slim"]


def run(start: list[str], *arguments: object) -> subprocess.CompletedProcess[str]:
    """One thread in each process, as torchrun gives them. Seconds, not the half hour for which gloo waits."""
    here = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *start, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=here, check=False, timeout=100)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    net = Net(4, 3, 8, 8, seed=1)
    body = net.relu(net.bn(net.conv(net.relu(net.bn(net.conv("x", 12))), 16)))
    save(net.graph(net.head(body)), tmp_path / "in.onnx")
    return tmp_path / "in.onnx"


def data(model: Path, labels: np.ndarray) -> Path:  # type: ignore[type-arg]
    x = np.random.default_rng(0).standard_normal((len(labels), 3, 8, 8)).astype(np.float32)
    np.savez(model.with_name("data.npz"), x=x, y=labels)
    return model.with_name("data.npz")


def test_two_processes_write_what_one_does(model: Path) -> None:
    known = data(model, np.arange(20) % 5)
    one, two, recipe = (model.with_name(n) for n in ("one.onnx", "two.onnx", "two.json"))
    alone = run(ALONE, "compile", model, one, *POLICY, "--calibration", known)
    assert alone.returncode == 0, alone.stderr
    both = run(TWO, "compile", model, two, *POLICY, "--calibration", known, "--recipe", recipe)
    assert both.returncode == 0, both.stderr
    assert one.read_bytes() == two.read_bytes()
    assert recipe.exists()
    assert both.stderr.count("wrote") == 2  # two files, by one of the processes


def test_two_processes_tune_as_one_does(model: Path) -> None:
    opened = onnx.load(model)
    for value in (*opened.graph.input, *opened.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"  # so that a batch can be shared
    onnx.save(opened, model)
    known = data(model, np.arange(40) % 5)
    policy = ["--policy", "l1,global{macs=50%},slim,refit,distill{steps=8,rate=0.02,batch=16}", "--trust"]
    found = []
    for start in (ALONE, TWO):
        out = model.with_name("tuned.onnx")
        done = run(start, "compile", model, out, *policy, "--calibration", known)
        assert done.returncode == 0, done.stderr
        found.append({w.name: numpy_helper.to_array(w) for w in onnx.load(out).graph.initializer})
    for name, weight in found[0].items():
        np.testing.assert_allclose(found[1][name], weight, rtol=1e-3, atol=1e-4, err_msg=name)


def test_an_error_in_one_process_ends_all_with_its_message_alone(model: Path) -> None:
    labels = np.arange(20) % 5
    labels[4:8] = 99  # the second batch of four, which is the second process's
    out = model.with_name("out.onnx")
    done = run(TWO, "compile", model, out, *POLICY, "--calibration", data(model, labels))
    assert done.returncode not in (0, None)
    told = [line for line in done.stderr.splitlines() if line.startswith("secateur:")]
    assert len(told) == 1, done.stderr
    assert "calibration labels are" in told[0]
    assert not out.exists()


def test_an_error_in_all_processes_is_told_once(model: Path) -> None:
    done = run(TWO, "compile", model, model.with_name("out.onnx"), "--latency-ms", "5")
    assert done.returncode not in (0, None)
    told = [line for line in done.stderr.splitlines() if line.startswith("secateur:")]
    assert told == [line for line in told if "cannot time a network" in line]
    assert len(told) == 1


def test_what_a_launcher_says() -> None:
    assert launched({}) == launched({"RANK": "0", "WORLD_SIZE": "1"}) == Team()
    assert launched({"RANK": "1", "WORLD_SIZE": "2"}) == Team(1, 2)
    assert not Team(1, 2).speaks
    assert launched({"WORLD_SIZE": "2"}) == Team()  # a shell's leftover starts nothing
    with pytest.raises(InputError, match="do not fit"):
        launched({"RANK": "2", "WORLD_SIZE": "2"})


def test_commands_that_nobody_shares_wait_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("secateur.cli.errors.together", lambda team: pytest.fail(f"waited as {team}"))
    done = CliRunner().invoke(cli.app, ["passes", "slim"])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("slim")


class Store:
    """Counts failures; without a ``count`` it is out of reach."""

    def __init__(self, count: int | None) -> None:
        self.count = count

    def add(self, key: str, more: int) -> int:
        if self.count is None:
            raise RuntimeError("connection reset")
        self.count += more
        return self.count


def test_the_first_to_fail_tells() -> None:
    assert Team().first_to_fail()
    assert Team(1, 2, Store(0)).first_to_fail()
    assert not Team(0, 2, Store(1)).first_to_fail()
    assert Team(1, 2, Store(None)).first_to_fail()  # who kept it may have ended without a word
