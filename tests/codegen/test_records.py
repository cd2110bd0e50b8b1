"""Records: what was measured is read back, by whatever tuner and whatever became of the file."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.codegen.kernels.conv.spec import ConvChoice, ConvSpec
from secateur.codegen.kernels.families import FAMILIES
from secateur.codegen.plan.strides import Strides
from secateur.codegen.records import Record, Records, record_of
from secateur.codegen.tune.tuner import SHIPPED, doubts
from secateur.ir import InputError

PLANE = Strides(1024, 1024, 128, 16)
SOME = ConvChoice(1, 1, 4)


def spec(ci: int = 32, size: int = 8, kernel: int = 1) -> ConvSpec:
    return ConvSpec(16, 1, ci, 2, size, size, (kernel, kernel), (1, 1), (1, 1), PLANE, PLANE, False)


def record(ci: int = 32, seconds: float = 1.0, target: str = "t") -> Record:
    return record_of(target, spec(ci), SOME, seconds)


text, number = st.text(max_size=8), st.floats(min_value=0, allow_nan=False, allow_infinity=False)
scalars = st.one_of(st.integers(-(2**40), 2**40), text, st.booleans(), number)
choices = st.lists(scalars, max_size=5).map(tuple)
workloads = st.dictionaries(text, st.one_of(scalars, st.lists(scalars, max_size=3)), max_size=6)
anything = st.builds(
    Record, text, text, workloads, choices, number, st.integers(0, 99), st.dictionaries(text, text, max_size=3),
    st.lists(st.tuples(choices, number), max_size=4).map(tuple), text, text,
)  # fmt: skip


@given(anything)
def test_a_line_is_read_as_it_was_written(one: Record) -> None:
    line = one.line()
    assert line.endswith("\n")
    assert "\n" not in line[:-1]
    assert Record.parse(line) == one
    assert Record.parse(line).key == one.key


@given(st.lists(st.one_of(st.binary(max_size=60), st.builds(lambda r, n: r.line().encode()[:n], anything,
                                                            st.integers(0, 400))), max_size=5))  # fmt: skip
def test_no_file_breaks_the_reader(parts: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.jsonl"
        path.write_bytes(b"\n".join([*parts, record().line().encode()]))
        records = Records(path)
        assert records.find("t", spec()) == record()
        records.nearest("t", spec(48))
        assert len(records.notes) <= 4


@given(st.integers(1, 3), st.integers(0, 600))
def test_what_a_killed_writer_leaves_costs_its_own_line(whole: int, cut: int) -> None:
    """A file that ends anywhere within a line: what stood before is found, and the next line is whole."""
    lines = [record(32 * i).line() for i in range(1, whole + 1)]
    half = record(999).line()[: cut % (len(record(999).line()) - 1)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.jsonl"
        path.write_text("".join(lines) + half)
        Records(path).add(record(7, 2.0))
        records = Records(path)
        assert [records.find("t", spec(32 * i)) for i in range(1, whole + 1)] == [
            record(32 * i) for i in range(1, whole + 1)
        ]
        assert records.find("t", spec(7)) == record(7, 2.0)
        assert len(records.notes) == (half != "")


def test_the_last_line_of_a_workload_counts(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    for seconds in (3.0, 2.0):
        Records(path).add(record(32, seconds))
    assert Records(path).find("t", spec(32)) == record(32, 2.0)
    assert Records(path).find("other", spec(32)) is None
    assert Records(tmp_path / "none.jsonl").find("t", spec(32)) is None


def test_damaged_lines_are_told_of_by_number_and_skipped(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    line = record(32).line()
    old, foreign = json.dumps({**json.loads(line), "v": 1}), json.dumps({**json.loads(line), "workload": "w"})
    path.write_text(f"not json\n{line[:40]}\n{old}\n[]\n{foreign}\n\n{line}\n")
    records = Records(path)
    assert records.find("t", spec(32)) is not None
    assert [note.split(": ")[0] for note in records.notes] == [*(f"{path}:{n}" for n in (1, 2, 3)), str(path)]
    assert "version 1, this secateur reads 2" in records.notes[2]
    assert "2 more damaged lines" in records.notes[3]


def test_records_of_other_kernels_or_another_tvm_are_not_used(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    good = replace(record(32), versions={"apache-tvm": "1"}, revision=2)
    stale = [replace(good, revision=1), replace(record(48), revision=2, versions={"apache-tvm": "0"}),
             replace(good, kind="NoSpec")]  # fmt: skip
    path.write_text("".join(r.line() for r in (good, *stale, replace(stale[0], seconds=9.0))))
    records = Records(path, doubts({"ConvSpec": 2}, "1"))
    assert list(records.table.values()) == [good]
    assert [note.split(": ", 1)[1] for note in records.notes] == [
        "2 records not used, they are of revision 1 of ConvSpec, this secateur writes revision 2; "
        "tune again to replace them",
        "1 records not used, they were measured with apache-tvm 0, this is 1; tune again to replace them",
        "1 records not used, they are of revision 2 of NoSpec, this secateur knows no such kernel; "
        "tune again to replace them",
    ]


def test_a_file_for_other_targets_says_so(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    for target, ci in (("a", 1), ("a", 2), ("b", 3)):
        Records(path).add(record(ci, target=target))
    assert Records(path).others("a") is None
    assert Records(path).others("c") == f"{path}: none of its 3 records is for c (a 2, b 1); not used"
    assert Records(None).others("c") is None


def test_own_records_come_before_those_beneath(tmp_path: Path) -> None:
    beneath = tmp_path / "shipped.jsonl"
    for one in (record(32, 1.0), record(64, 1.0), record(500, 1.0)):
        Records(beneath).add(one)
    records = Records(tmp_path / "own.jsonl", under=Records(beneath))
    records.add(record(32, 9.0))
    records.add(record(100, 9.0))
    assert records.find("t", spec(32)) == record(32, 9.0)
    assert records.find("t", spec(64)) == record(64, 1.0)
    assert (records.holds("t", spec(32)), records.holds("t", spec(64))) == (True, False)
    assert records.nearest("t", spec(110)) == record(100, 9.0)
    assert records.nearest("t", spec(490)) == record(100, 9.0), "of its own, however far"


@given(st.lists(st.tuples(st.integers(1, 2048), st.integers(1, 128)), min_size=1, max_size=8, unique=True),
       st.integers(1, 2048), st.integers(1, 128))  # fmt: skip
def test_the_nearest_is_nearest_in_ratio(there: list[tuple[int, int]], ci: int, size: int) -> None:
    from math import log

    records = Records()
    for c, s in there:
        records.add(record_of("t", spec(c, s), SOME, 1.0))
    records.add(record_of("t", spec(ci, size, kernel=3), SOME, 1.0))
    found = records.nearest("t", spec(ci, size))
    assert found is not None
    distances = {(c, s): log(c / ci) ** 2 + 2 * log(s / size) ** 2 for c, s in there}
    chosen = distances[found.workload["ci"], found.workload["h"]]
    assert chosen == pytest.approx(min(distances.values()), abs=1e-9)


def _append(job: tuple[str, int]) -> None:
    path, base = job
    for i in range(100):
        Records(None).add(record(base + i))
        records = Records()
        records.path = Path(path)
        records.add(record(base + i))


def test_two_tuners_append_at_once(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(_append, [(str(path), 1000), (str(path), 2000)])
    records = Records(path)
    assert not records.notes
    assert len(records.table) == 200


@pytest.mark.parametrize("short", [True, False])
def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: bool) -> None:
    path = tmp_path / "r.jsonl"
    records = Records(path)
    records.add(record(1))
    before, write = path.read_bytes(), os.write

    def full(handle: int, data: bytes) -> int:
        written = write(handle, data[:20])
        if not short:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return written

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(InputError, match=r"cannot append .*No space left on device; make room, what was measured"):
        records.add(record(2))
    assert path.read_bytes() == before


def test_places_that_hold_no_records(tmp_path: Path) -> None:
    for place in (tmp_path, Path("/dev/null")):
        with pytest.raises(InputError, match="it is not a file; name one"):
            Records(place)
    missing = Records(tmp_path / "none" / "r.jsonl")
    for act in (missing.check_writable, lambda: missing.add(record())):
        with pytest.raises(InputError, match=r"cannot append to the records in .*none"):
            act()


def test_shipped_records_name_kernels_that_exist() -> None:
    """A spec that is called otherwise needs its shipped lines converted; those of users are passed over, and noted."""
    kinds = {kind.__name__ for family in FAMILIES for kind in family.choices}
    for path in SHIPPED.glob("*.jsonl"):
        assert {Record.parse(line).kind for line in path.read_text(encoding="utf-8").splitlines()} <= kinds
    old = Record("t", "GroupedSpec", {}, (), 1.0, versions={"apache-tvm": "x"})
    assert doubts(dict.fromkeys(kinds, 1), "x")(old) == (
        "they are of revision 1 of GroupedSpec, this secateur knows no such kernel"
    )


def test_another_family_of_processors_gives_a_first_guess_and_nothing_more(tmp_path: Path) -> None:
    """Its records are found where there are no others, and never stand in the way of one's own, nor of measuring."""
    path, theirs, mine = tmp_path / "r.jsonl", replace(record(), family="a 1/2"), replace(record(), family="b 3/4")
    Records(path).add(theirs)
    beneath = Records(family="b 3/4")
    records = Records(path, under=beneath, family="b 3/4")
    assert records.find("t", spec()) == theirs
    assert not records.holds("t", spec())
    beneath.add(mine)
    assert records.find("t", spec()) == mine
    for order in ((theirs, mine), (mine, theirs)):
        path.write_text("".join(one.line() for one in order))
        again = Records(path, family="b 3/4")
        assert again.find("t", spec()) == mine
        assert again.holds("t", spec())
    assert Records(path).holds("t", spec())
