"""Two thousand damaged calibration files and folders: refused in a sentence, or read as NumPy and Pillow do."""

import pytest

from bench.reach import mutate_calibration
from secateur.calibration.arrays import ArrayFile
from secateur.ir import Array

NONE = {"crashed": 0, "unexpected": 0, "slow": 0, "wrong": 0}


def test_every_mutant_is_refused_or_read_as_it_is() -> None:
    row, bad = mutate_calibration.survey(100_000, 2000, compiled=False)
    assert {name: row[name] for name in NONE} == NONE, bad
    assert min(row["refused"], row["accepted"]) > 300


def test_what_is_accepted_compiles() -> None:
    row, bad = mutate_calibration.survey(200_000, 40)
    assert {name: row[name] for name in NONE} == NONE, bad
    assert row["accepted"] > 5


def test_a_reader_that_changes_numbers_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ArrayFile.read

    def read(self: ArrayFile, name: str) -> Array:
        array = right(self, name)
        return array + 1 if name == "x" and array.dtype.kind == "f" else array

    monkeypatch.setattr(ArrayFile, "read", read)
    assert mutate_calibration.survey(100_000, 60, compiled=False)[0]["wrong"] > 3
