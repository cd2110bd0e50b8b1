"""The bench of lottery tickets: its plan, and that a run goes on where it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.accuracy import lottery
from bench.data.fashion import Data
from bench.lib import common
from secateur.passes.train.lottery import CRITERIA, ONES


def test_every_criterion_and_action_is_measured_once() -> None:
    jobs = list(lottery.plan(3))
    assert len({job.key for job in jobs}) == len(jobs)
    assert {job.criterion for job in jobs if job.part in ("criteria", "actions")} == set(CRITERIA)
    for density in (lottery.DENSITY, *lottery.OTHERS):
        assert {(j.seed, j.one) for j in jobs if j.part == "actions" and j.density == density and j.zero == "zero"} == {
            (seed, one) for seed in range(3) for one in ONES
        }


def test_rows_are_measured_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = Data(torch.randn(60, 1, 14, 14), torch.arange(60) % 10)
    jobs = [
        lottery.Job("dense", 0, "none", density=1.0),
        lottery.Job("actions", 0, "large_final", "constant"),
        lottery.Job("untrained", 0, "popup", density=0.5),
    ]
    for _ in range(2):
        bench = lottery.Bench(data, data, 1.0, tmp_path / "rows.jsonl")
        for job in jobs:
            bench.run(job)
    rows = common.read(tmp_path / "rows.jsonl")
    assert [row["part"] for row in rows] == ["dense", "actions", "untrained"]
    assert rows[1]["kept"] == pytest.approx(0.1, abs=0.02)
    assert rows[2]["kept"] == 0.5
