"""bench/lib/forked.py: a row comes back, a crash and a time limit are rows as well."""

import os
import time

from bench.lib import forked


def test_what_becomes_of_a_child() -> None:
    server = forked.Server(())
    row = server.run(dict, [("status", "right")], timeout=60)
    assert row["status"] == "right" and row["peak_mb"] > 0
    assert server.run(os._exit, 3, timeout=60) | {"wall_s": 0} == {
        "status": "broken", "reason": "exit code 3", "wall_s": 0,
    }  # fmt: skip
    late = server.run(time.sleep, 60, timeout=0.1)
    assert late["reason"] == "not finished after 0.1 s" and late["wall_s"] < 30
