"""The bench of criteria: its networks, its plan, and tables from rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import secateur
from bench.accuracy import criteria, criteria_cells, criteria_tables, keep_tables, own_tables, rounds_tables
from bench.lib import common
from bench.nets.criteria_nets import EVERY

WHERE = {"machine": {"cpu": "x", "cores": 1}, "versions": {"python": "3", "torch": "2"}, "git": "abc"}


def row(part: str, criterion: str, repair: str, top1: float, **more: Any) -> dict[str, Any]:
    base = {"part": part, "network": "plain", "seed": 0, "criterion": criterion, "removed": 0.5, "repair": repair}
    return WHERE | base | {"top1": top1} | more


@pytest.mark.parametrize("name", list(EVERY))
def test_every_network_is_small_and_shrinks(name: str) -> None:
    torch.manual_seed(0)
    module = EVERY[name]().eval()
    assert sum(p.numel() for p in module.parameters()) <= 110_000
    slim = secateur.compile(module, "l2", example_inputs=(torch.randn(1, 1, 28, 28),), macs=0.5, round_to=1)
    assert slim.report.budget is not None
    assert 0.4 < slim.report.budget["achieved"] <= 0.5


def test_the_plan_measures_every_network_before_a_second_seed() -> None:
    jobs = list(criteria.plan(criteria.Setting(), 3))
    assert len(jobs) == len(set(jobs))
    first = next(i for i, job in enumerate(jobs) if job.seed == 1)
    assert {(j.part, j.network) for j in jobs[:first]} == {(j.part, j.network) for j in jobs}
    shares = {s for j in jobs if j.part == "imagenet" for s in j.shares}
    assert shares == set(criteria.LARGE_SHARES)


def test_each_repair_goes_on_from_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(criteria_cells, "TUNING", {"fashion": "distill{steps=2,batch=4}"})
    torch.manual_seed(0)
    x, seen = torch.randn(16, 1, 28, 28), []

    def judge(module: torch.nn.Module) -> dict[str, Any]:
        with torch.inference_mode():
            seen.append(module(x[:4]))
        return {"top1": 0.0}

    labels = torch.arange(16) % 10
    subject = criteria_cells.swept(EVERY["plain"]().eval(), x[:1], [(x, labels)], "fashion", judge, 0)
    rows = list(criteria_cells.cells(subject, "l1", (0.5,)))
    assert [(r["repair"], r.get("spec")) for r in rows] == [
        ("none", None),
        ("compensation", "refit"),
        ("distill", "distill{steps=2,batch=4}"),
    ]
    assert not torch.equal(seen[0], seen[1])
    torch.testing.assert_close(seen[2], seen[1], atol=0.2, rtol=0.2)  # two steps away from it
    assert (seen[2] - seen[1]).norm() < (seen[2] - seen[0]).norm()
    assert list(criteria_cells.repairs("imagenet")) == ["none", "compensation"]


def test_tables_take_the_newest_row_and_put_the_best_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        row("fashion", "dense", "none", 0.91, removed=0.0),
        row("fashion", "l1", "none", 0.2),
        row("fashion", "l1", "compensation", 0.5),
        row("fashion", "l1", "compensation", 0.8),
        row("fashion", "l1", "distill", 0.85),
        row("fashion", "lasso", "compensation", 0.9),
        row("fashion", "lasso", "compensation", 0.7, seed=1),
        {k: v for k, v in row("fashion", "apoz", "none", 0.0).items() if k != "top1"} | {"refused": "no ReLU"},
        row("imagenet", "l1", "compensation", 0.8, network="mobilenet_v2", removed=0.15, agreement=0.9),
        row("trained", "l1", "one epoch", 0.88),
    ]
    path = tmp_path / "criteria.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    found = criteria_tables.rows(path)
    assert len(found) == len(rows) - 1
    assert criteria_tables.values(found, "fashion", "l1", 0.5, "compensation") == [0.8]
    assert criteria_tables.spread([0.9, 0.7]) == "80.0 ± 14.1"
    assert criteria_tables.criteria(found) == ["lasso", "l1", "apoz"], "of fewer networks comes last"
    assert criteria_tables.photos(found, "mobilenet_v2", "l1") == "16, 18"
    monkeypatch.setattr(criteria_tables, "rows", lambda: found)
    text = criteria_tables.table(lambda *rows: "here")
    assert "| `l1` | – | – | – | 20.0 | 80.0 | +5.0 | 88.0 |" in text
    assert "measured (0 to 1 networks);" in text
    assert "no ReLU" in text
    assert "Of fewer networks than 2: `l1` 1, `apoz` 0." in text


def test_own_readers_stand_next_to_tied_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def of(readers: str, seed: int, layers: int, top1: float, ms: float) -> dict[str, Any]:
        times = {"secateur": ms, "onnxruntime": 1.0}
        return WHERE | {
            "network": "dense", "seed": seed, "left": 0.3, "readers": readers, "layers": layers, "lost": top1 / 2,
            "dense_top1": 0.9, "top1": top1, "agreement": top1, "ms": times,
        }  # fmt: skip

    rows = [of("tied", 0, 0, 0.8, 2.0), of("own", 0, 3, 0.82, 1.0), of("tied", 1, 0, 0.6, 2.0), of("own", 1, 4, 0.7, 3)]
    (tmp_path / "own_readers.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    monkeypatch.setattr(own_tables, "RESULTS", tmp_path)
    line = "| DenseNet | 30% | 2 | 3.5 | 0.350 → 0.380 | 90.0 | 70.0 | 76.0 | 70.0 | 76.0 | 1.00 | 1.00 |"
    assert line in own_tables.own(lambda *rows: "here").splitlines()


def test_rounds_are_compared_on_networks_that_have_all(tmp_path: Path) -> None:
    def of(network: str, rounds: int, top1: float) -> dict[str, Any]:
        asked = {"network": network, "seed": 0, "policy": "taylor", "rounds": rounds, "pictures": 256}
        return WHERE | asked | {"top1": top1, "agreement": top1 + 0.05, "cpu_s": 1.0}

    rows = [of("a", 1, 0.8), of("a", 2, 0.85), of("b", 1, 0.7), of("b", 2, 0.65), of("c", 1, 0.1)]
    (path := tmp_path / "rounds.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    line = "| `taylor` | 2 | 75.0 ± 7.1 | 80.0 | 75.0 ± 14.1 | 80.0 | 1 of 2 |"
    assert line in rounds_tables.rounds(lambda *rows: "here", path).splitlines()


def test_what_criteria_cost_is_told_in_gb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times and memory from runs of their own; 1e9 bytes are a GB."""
    rows = [
        {"network": "tv/a", "examples": 8, "peak_bytes": {"none": 5 * 10**8, "all": 3 * 10**9, "taylor": 2 * 10**9}},
        {
            "network": "tv/a",
            "examples": 8,
            "ratio": 1.5,
            "score_s": {"l1": 0.1, "taylor": 0.2, "slimming": "no scales"},
        },
    ]
    monkeypatch.setattr(criteria_tables, "RESULTS", tmp_path)
    (tmp_path / "sweep.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert "1.50 times" in (text := criteria_tables.sweep(lambda *rows: "here"))
    assert "peak memory 3.00 GB, 0.50 of them" in text
    lines = criteria_tables.costs(lambda *rows: "here").splitlines()
    assert lines[2:5] == ["| `l1` | – | 0.10 |", "| `taylor` | 2.00 | 0.20 |", "| `slimming` | – | refused |"]
    assert lines[5:7] == ["| all at once | 3.00 | – |", "| none: the network alone | 0.50 | – |"]


def test_a_budget_in_quality_counts_what_was_truly_kept(tmp_path: Path) -> None:
    """Of three networks one kept less than half a point below what was asked, and a fourth there was not."""
    base = {"network": "plain", "policy": "l1", "spec": "l1,slim,refit", "pictures": 4096, "goal": 0.99}
    kept = [(0.991, 0.6), (0.985, 0.8), (0.984, 0.7)]
    found = [
        base | {"seed": i, "seen": 0.993, "kept": k, "macs_left": m, "cpu_s": 10.0} for i, (k, m) in enumerate(kept)
    ]
    common.append(tmp_path / "keep.jsonl", [*found, base | {"seed": 3, "refused": "none", "cpu_s": 1.0}])
    text = keep_tables.keep(lambda *rows: f"{len(rows)} rows", tmp_path / "keep.jsonl")
    assert "| `l1,slim,refit` | 4 | 99.30 | 98.50 | 98.40 | 2 of 3 | 70% | 60% | 80% | 10 |" in text
    assert "No such network: l1 on plain 3." in text
    assert text.endswith("4 rows.")
