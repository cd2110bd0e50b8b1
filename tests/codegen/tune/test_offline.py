"""Tuning without a network: candidates in a folder, a script that needs no secateur, results that are checked."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from secateur.codegen.host import family
from secateur.codegen.kernels.conv.spec import ConvSpec
from secateur.codegen.plan.strides import Strides
from secateur.codegen.records import Records
from secateur.codegen.targets import get_target, native
from secateur.codegen.tune import offline
from secateur.codegen.tune.tuner import Outcome, Tuner, candidates
from secateur.ir import InputError

pytest.importorskip("tvm", reason="code generation needs apache-tvm")
PLANE = Strides(1024, 1024, 128, 16)
SPEC = ConvSpec(16, 1, 16, 1, 8, 8, (1, 1), (1, 1), (1, 1), PLANE, PLANE, False)
OTHER = ConvSpec(16, 1, 32, 1, 8, 8, (1, 1), (1, 1), (1, 1), PLANE, PLANE, False)


def tuner(path: Path | None = None) -> Tuner:
    return Tuner(native(), 1, Records(path))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of candidates, measured by its script without secateur."""
    folder = tmp_path_factory.mktemp("away") / "candidates"
    assert offline.write(tuner(), [SPEC], folder, memory=0) == 1
    with pytest.raises(InputError, match=r"holds no results\.json: run its measure.py on the device"):
        offline.read(tuner(), [SPEC], folder)
    script = ("import sys, runpy; sys.modules['secateur'] = None; sys.argv[1:] = ['--rounds', '2']; "
              f"runpy.run_path({str(folder / 'measure.py')!r}, run_name='__main__')")  # fmt: skip
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def changed(folder: Path, change: Callable[[Any], None], name: str = "results.json") -> None:
    place = folder / name
    data = json.loads(place.read_text())
    change(data)
    place.write_text(json.dumps(data))


@pytest.fixture
def folder(measured: Path, tmp_path: Path) -> Path:
    """A copy of the manifest and the results."""
    for name in ("manifest.json", "results.json"):
        (tmp_path / name).write_bytes((measured / name).read_bytes())
    return tmp_path


def test_what_was_measured_is_read_back(folder: Path, tmp_path: Path) -> None:
    mine = tuner(tmp_path / "r.jsonl")
    assert offline.read(mine, [SPEC, OTHER], folder) == Outcome(measured=1)
    record = Records(tmp_path / "r.jsonl").find(native().name, SPEC)
    assert record is not None
    assert record.family == family()
    assert record.board
    assert len(record.timings) == len(candidates(SPEC, native()))
    assert mine.lacking([SPEC]) == []


def first(results: Any) -> Any:
    return results["jobs"]["0"]


def spoil(results: Any, count: int) -> None:
    """Wrong sums in so many of the two choices."""
    sums = first(results)["sums"]
    for name in list(sums)[:count]:
        sums[name][7] += 0.1 * max(map(abs, sums[name]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(manifest="0"), r"are of other candidates than its manifest\.json"),
        (lambda r: r.update(format=9), "is not of this version of secateur"),
        (lambda r: r.pop("jobs"), r"are damaged .*run its measure\.py again"),
        (lambda r: first(r)["samples"].update({"0": []}), "are damaged"),
        (lambda r: first(r)["samples"].update({"0": [-1.0]}), "are damaged"),
        (lambda r: first(r)["sums"].update({"0": ["x"]}), "are damaged"),
        (lambda r: r.update(jobs={}), "of another network"),
        (lambda r: spoil(r, 2), r"computed other numbers than this machine in \d+ of \d+ choices: nothing"),
    ],
)
def test_results_that_are_damaged_or_foreign_are_refused(
    folder: Path, tmp_path: Path, change: Callable[[Any], None], message: str
) -> None:
    changed(folder, change)
    with pytest.raises(InputError, match=message):
        offline.read(tuner(tmp_path / "r.jsonl"), [SPEC], folder)
    assert not (tmp_path / "r.jsonl").exists()


def test_candidates_of_others_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="of another network: nothing of it is in this model"):
        offline.read(tuner(), [OTHER], folder)
    (folder / "results.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        offline.read(tuner(), [SPEC], folder)
    with pytest.raises(InputError, match="holds something else: name an empty or a new folder"):
        offline.write(tuner(), [SPEC], folder)


# Skipped where there is no cross compiler: the README's test command asks for nothing but Python. CI installs it, and
# with --emulated a skip fails there (tests/conftest.py knows the beginning of the reason).
@pytest.mark.skipif(
    shutil.which("aarch64-linux-gnu-gcc") is None,
    reason="emulation needs aarch64-linux-gnu-gcc: install Debian's gcc-aarch64-linux-gnu",
)
def test_candidates_for_another_architecture_are_computed_here(tmp_path: Path) -> None:
    """Two libraries: what they should compute is run here one after the other."""
    plane = Strides(256, 256, 32, 4)
    works = [ConvSpec(4, 1, c, 1, 8, 8, (1, 1), (1, 1), (1, 1), plane, plane, False) for c in (4, 8)]
    arm = Tuner(get_target("aarch64:cortex-a76"), 1, Records())
    assert offline.write(arm, works, tmp_path / "arm", memory=0) == 2
    manifest = json.loads((tmp_path / "arm" / "manifest.json").read_text())
    assert [bool(kernel["sums"]) for job in manifest["jobs"] for kernel in job["kernels"]]
    assert {path.name for path in (tmp_path / "arm").glob("*.so")} == {"0.so", "1.so"}


def test_a_wrong_choice_does_not_count(folder: Path) -> None:
    changed(folder, lambda results: spoil(results, 1))
    mine = tuner()
    outcome = offline.read(mine, [SPEC], folder)
    assert outcome.remarks == ("1 choices computed other numbers than this machine, and do not count",)
    record = mine.records.find(native().name, SPEC)
    assert record is not None
    assert len(record.timings) == len(candidates(SPEC, native())) - 1
