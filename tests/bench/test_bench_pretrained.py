"""The bench of networks that come without data: lines of text, and its table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.accuracy import pretrained_tables
from bench.data import lines
from bench.lib import common


@pytest.mark.parametrize(
    ("read", "said", "count"), [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "abc", 0), ("ab", "ba", 2)]
)
def test_edits_by_hand(read: str, said: str, count: int) -> None:
    assert lines.edits(read, said) == count == lines.edits(said, read)


def test_repeats_count_once_unless_nothing_is_between() -> None:
    classes = np.array([0, 1, 1, 0, 1, 2, 2, 3, 0])
    assert lines.decoded(classes, ["", "a", "b", " "]) == "aab"


def test_wrong_characters_over_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two lines of two characters; one of the four is read as another."""
    monkeypatch.setattr(lines, "_alphabet", lambda: ["", "a", "b"])
    scores = np.eye(3)[[[1, 0, 2], [1, 0, 1]]]
    assert lines.error_rate(scores, ["ab", "ab"]) == 0.25


def test_lines_repeat_and_differ_by_seed() -> None:
    (x, said), (again, _), (_, others) = (lines.lines(3, seed) for seed in (0, 0, 1))
    assert x.shape == (3, 3, 48, 320)
    assert np.abs(x).max() <= 1
    assert np.array_equal(x, again)
    assert said != others


def test_table(tmp_path: Path) -> None:
    about: dict[str, Any] = {"network": "n", "examples": 256, "cpu_s": 3.4}
    dense = about | {"left": 1.0, "policy": "none", "macs_left": 1.0, "right": 0.9, "agreement": 1.0}
    pruned = about | {"left": 0.7, "policy": "l1,slim", "macs_left": 0.699, "right": 0.7, "agreement": 0.75}
    again = pruned | {"photos": "gcompris", "right": 0.75}
    common.append(tmp_path / "rows.jsonl", [pruned, dense, pruned, again])
    text = pretrained_tables.pretrained(lambda *rows: f"{len(rows)} rows", tmp_path / "rows.jsonl").splitlines()
    assert text[7] == "| n | 100% | as it came | – | 18 right, 20 answers kept | 3 |"
    assert text[8] == "| n | 70% | `l1,slim` | 256, scikit-image | 14 right, 15 answers kept | 3 |"
    assert text[9] == "| n | 70% | `l1,slim` | 256, gcompris | 15 right, 15 answers kept | 3 |"
    assert text[-1].endswith("3 rows.")
