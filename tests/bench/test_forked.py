"""Rows of bench/lib: of a child one comes back, a crash and a time limit are rows as well; none names this machine."""

import os
import signal
from pathlib import Path

from bench.lib import common, forked


def test_what_becomes_of_a_child() -> None:
    server = forked.Server(())
    row = server.run(dict, [("status", "right")], timeout=60)
    assert row["status"] == "right" and row["peak_mb"] > 0
    assert server.run(os._exit, 3, timeout=60) | {"wall_s": 0} == {
        "status": "broken", "reason": "exit code 3", "wall_s": 0,
    }  # fmt: skip
    # A child that waits for a signal never ends by itself: only the time limit ends it, so nothing here sleeps.
    late = server.run(signal.pause, timeout=0.1)
    assert late["reason"] == "not finished after 0.1 s" and late["wall_s"] < 30


def test_rows_name_files_by_their_place_in_the_checkout(tmp_path: Path) -> None:
    common.append(tmp_path / "rows.jsonl", [{"said": f"{common.ROOT}/bench/lib/common.py, line 1"}])
    assert common.read(tmp_path / "rows.jsonl") == [{"said": "bench/lib/common.py, line 1"}]
