"""``secateur.finetune``: what users call, alone and as two processes, killed and resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import secateur
from secateur.ir import InputError
from secateur.passes.train import Masks

SCRIPT = """
import os, signal, sys
import torch
sys.path.insert(0, {here!r})
import secateur
from test_fine_tuning import DATA, compiled

out, checkpoint, kill = sys.argv[1], sys.argv[2] or None, int(sys.argv[3])
torch.set_num_threads(1)
seen = [0]
def progress(done, total, what, /):
    seen[0] += 1
    if seen[0] == kill:
        os.kill(os.getpid(), signal.SIGKILL)
slim = compiled()
known = dict(checkpoint=checkpoint, every=0, progress=progress)
tuned = secateur.finetune(slim, DATA, validation=DATA, epochs=2, rate=0.05, **known)
if tuned.first:
    torch.save({{"weights": slim.module().state_dict(), "said": str(tuned)}}, out)
"""
RANDOM = np.random.default_rng(0)
DATA = [(RANDOM.standard_normal((n, 3, 6, 6)).astype(np.float32), np.arange(n) % 4) for n in (7, 6, 1)]
X = torch.from_numpy(DATA[0][0][:2])


def compiled() -> secateur.Compiled:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Flatten(), nn.Linear(24, 4),
    ).eval()  # fmt: skip
    return secateur.compile(net, "l1", example_inputs=(X,), macs=0.6)


def script(tmp_path: Path, *start: str, checkpoint: str = "", kill: int = 0) -> tuple[int, dict[str, object]]:
    file, out = tmp_path / "run.py", tmp_path / "out.pt"
    out.unlink(missing_ok=True)
    file.write_text(SCRIPT.format(here=str(Path(__file__).parent)))
    path = os.pathsep.join(sys.path)
    command = [sys.executable, *start, str(file), str(out), checkpoint, str(kill)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)
    assert out.exists() or done.returncode, done.stderr
    return done.returncode, torch.load(out, weights_only=True) if out.exists() else {"said": done.stderr}


def test_two_processes_end_where_one_does_and_a_killed_one_too(tmp_path: Path) -> None:
    slim = compiled()
    tuned = secateur.finetune(slim, DATA, validation=DATA, epochs=2, rate=0.05)
    wanted = {name: x.clone() for name, x in slim.module().state_dict().items()}
    code, found = script(tmp_path, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    assert code == 0, found
    for name, x in found["weights"].items():  # type: ignore[attr-defined]
        torch.testing.assert_close(x, wanted[name], rtol=1e-4, atol=1e-5, msg=name)
    assert str(found["said"]).splitlines()[-1] == tuned.stopped
    checkpoint = str(tmp_path / "state")
    code, _ = script(tmp_path, checkpoint=checkpoint, kill=5)
    assert code == -signal.SIGKILL
    resumed = compiled()
    assert secateur.finetune(
        resumed, DATA, validation=DATA, epochs=2, rate=0.05, checkpoint=checkpoint, every=0
    ).epochs == tuned.epochs  # fmt: skip
    assert all(torch.equal(x, wanted[name]) for name, x in resumed.module().state_dict().items())


def test_what_was_tuned_is_what_is_saved_and_run(tmp_path: Path) -> None:
    slim = compiled()
    before = slim(X)
    told: list[str] = []
    tuned = secateur.finetune(slim, DATA, epochs=1, rate=0.05, progress=told.append)
    assert told == ["fine-tune, epoch 1 of 1"]
    assert tuned.best == 1
    assert not torch.equal(slim(X), before)
    torch.testing.assert_close(slim(X), slim.module()(X).detach(), rtol=1e-4, atol=1e-5)
    slim.save(tmp_path / "slim.onnx")
    assert any("trained since" in remark for remark in slim.report.remarks)


def test_masks_hold_through_fine_tuning() -> None:
    slim = compiled()
    mask = torch.rand(slim.module().get_parameter("3.weight").shape) < 0.5
    tuned = secateur.finetune(
        slim, [x for x, _ in DATA], epochs=2, optimiser="adamw", hooks=[Masks(slim.module(), {"3.weight": mask})]
    )
    assert not slim.graph.weights["3.weight"][~mask.numpy()].any()
    assert tuned.epochs[-1].top1 is None


def test_data_that_do_not_fit_are_refused() -> None:
    slim = compiled()
    with pytest.raises(InputError, match=r"fine-tuning, batch 1: input .* has shape"):
        secateur.finetune(slim, [DATA[0], np.zeros((2, 3, 5, 5), np.float32)], epochs=1)
    with pytest.raises(InputError, match=r"validation, batch 0: .* holds NaN"):
        secateur.finetune(slim, DATA, validation=[np.full((2, 3, 6, 6), np.nan, np.float32)], epochs=1)
