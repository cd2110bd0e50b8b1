"""The bench of lottery tickets: its plan, and that a run goes on where it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.accuracy import lottery, lottery_tables, sparsity, training
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


def test_tables_hold_what_rows_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    assert lottery_tables.lottery() == lottery_tables.training() == ""
    base = common.circumstances(0) | {"passes": 3, "examples": 100, "seed": 0}
    dense = base | {"part": "dense", "criterion": "none", "one": "rewind", "zero": "zero", "density": 1.0, "top1": 0.9}
    made = [dense | {"part": "actions", "criterion": "large_final", "density": 0.1, "seed": seed, "top1": top}
            for seed, top in ((0, 0.5), (1, 0.7))]  # fmt: skip
    common.append(tmp_path / "lottery.jsonl", [dense, *made])
    assert "| `rewind` | – | 60.0 ± 14.1 | – |" in lottery_tables.lottery()
    rows = [
        base | {"method": m, "top1": 0.8, "trained": 0.9, "exact_macs": 0.5, "bare": 0.7} for m in ("dense", "soft")
    ]
    common.append(tmp_path / "training.jsonl", rows)
    assert "| soft | 90.0 | 50.0 | 70.0 | 80.0 |" in lottery_tables.training()
    assert "| dense |" not in lottery_tables.training()


def test_every_way_of_training_sparse_is_measured() -> None:
    assert {"ssl", "slimming", "iht", "dcp", "snip", "soft"} < set(training.METHODS)


def test_patterns_of_zeros_are_measured_once_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Data(torch.randn(128, 1, 14, 14), torch.arange(128) % 10)
    assert len({job.key for job in sparsity.plan(3)}) == len(list(sparsity.plan(3)))
    jobs = [sparsity.Job(0, "dense", 0.0, "magnitude"), sparsity.Job(0, "auto", 0.5, "magnitude")]
    for _ in range(2):
        bench = sparsity.Bench(data, data, tmp_path / "rows.jsonl")
        for job in jobs:
            bench.run(job)
    rows = common.read(tmp_path / "rows.jsonl")
    assert [row["block"] for row in rows] == ["dense", "auto"]
    assert rows[1]["zeros"] == pytest.approx(0.5, abs=0.01)
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(sparsity, "PICTURE", tmp_path / "drawn.svg")
    sparsity.draw(rows)
    assert "balanced" in (tmp_path / "drawn.svg").read_text()
