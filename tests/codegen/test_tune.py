"""Records and the tuner: what is measured is kept, whatever happens to a worker or a file."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nets import CHAIN, draw
from secateur import codegen
from secateur.codegen.records import Record, Records, workload_key
from secateur.codegen.specs import ConvChoice, ConvSpec, Strides
from secateur.codegen.targets import native
from secateur.codegen.tune import Tuner, Worker, candidates
from secateur.ir import InputError

PLANE = Strides(1024, 1024, 128, 16)


def spec(ci: int = 32, size: int = 8) -> ConvSpec:
    return ConvSpec(16, 1, ci, 2, size, size, (1, 1), (1, 1), (1, 1), PLANE, PLANE, False)


def record(ci: int, seconds: float = 1.0) -> Record:
    return Record("t", workload_key(spec(ci)), (1, 1, 4, "blocks", True), seconds)


def test_records_are_read_back_and_the_last_one_counts(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    for seconds in (3.0, 2.0):
        Records(path).add(record(32, seconds))
    found = Records(path).find("t", spec(32))
    assert found is not None
    assert found.seconds == 2.0
    assert Records(path).find("other", spec(32)) is None


def test_damaged_lines_are_reported_and_skipped(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    line = record(32).line()
    old = json.dumps({**json.loads(line), "v": 0})
    path.write_text(f"not json\n{line[:40]}\n{old}\n[]\n{line}\n")
    records = Records(path)
    assert [p.rsplit(":", 1)[0].rsplit(":", 1)[-1] for p in records.problems if "skipped" in p] != []
    assert len(records.problems) == 4
    assert "record version 0" in records.problems[2]
    assert records.find("t", spec(32)) is not None


def _append(job: tuple[str, int]) -> None:
    path, base = job
    for i in range(100):
        Records(None).add(record(base + i))
        records = Records.__new__(Records)
        records.path, records.table, records.problems = Path(path), {}, []
        records.add(record(base + i))


def test_two_tuners_append_at_once(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(_append, [(str(path), 1000), (str(path), 2000)])
    records = Records(path)
    assert not records.problems
    assert len(records.table) == 200


def test_the_nearest_shape_says_so() -> None:
    tuner = Tuner(native(), 1, Records())
    work = spec(64).workload()
    choice = candidates(work, native())[3]
    near = Record(native().name, workload_key(spec(48).workload()), tuple(vars(choice).values()), 1.0)
    far = Record(native().name, workload_key(spec(512).workload()), (1, 1, 1, "pixels", False), 1.0)
    tuner.records.add(near)
    tuner.records.add(far)
    assert tuner.choose(spec(64)) == choice
    assert "nearest shape" in tuner.notes[0]


def test_tuning_keeps_to_its_records(tmp_path: Path) -> None:
    path, graph, seen = tmp_path / "r.jsonl", draw(CHAIN), []
    x = np.ones((1, 3, 8, 8), np.float32)

    def progress(done: int, total: int, what: str) -> None:
        seen.append((done, total))

    lib = codegen.build(graph, tune=60, records=path, progress=progress)
    np.testing.assert_allclose(lib(x), codegen.build(graph)(x), rtol=1e-4, atol=1e-4)
    assert seen[-1][0] == seen[-1][1] > 0
    measured = path.read_text()
    codegen.build(graph, tune=60, records=path)
    assert path.read_text() == measured, "measured again what a record holds"


def test_no_time_measures_nothing(tmp_path: Path) -> None:
    codegen.build(draw(CHAIN), tune=0, records=tmp_path / "r.jsonl")
    assert not (tmp_path / "r.jsonl").exists()


def test_interrupting_keeps_what_was_measured(tmp_path: Path) -> None:
    def stop(done: int, total: int, what: str) -> None:
        if done == 1:
            raise KeyboardInterrupt

    codegen.build(draw(CHAIN), tune=60, records=tmp_path / "r.jsonl", progress=stop)
    assert len(Records(tmp_path / "r.jsonl").table) == 1


def test_a_candidate_that_fails_or_kills_its_worker_costs_itself_alone() -> None:
    import time

    worker, good = Worker(native(), 1), ConvChoice(1, 1, 4)
    bad: dict[int, Any] = {0: good, 1: ConvChoice(0, 1, 4), 2: Killer(), 3: ConvChoice(2, 1, 4)}
    try:
        times = worker.measure(spec(), bad, time.monotonic() + 100)
    finally:
        worker.stop()
    assert set(times) == {0, 3}


class Killer:
    """Ends the process in which it is looked at."""

    def __getattr__(self, name: str) -> Any:
        if name == "nb":
            import os

            os._exit(3)
        raise AttributeError(name)


def test_records_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot append"):
        Records(tmp_path / "none" / "r.jsonl").add(record(1))
