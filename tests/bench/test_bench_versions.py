"""The bench that compares two versions of the project: their suites."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.lib import common
from bench.speed import versions


def test_suites_are_compared_by_the_tests_that_both_have(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cases = '<testcase classname="tests.test_a" name="{}" time="{}"/>'
    failed = '<testcase classname="tests.test_a" name="test_fails" time="9"><failure/></testcase>'
    twice = cases.format("test_twice", 1.0) * 2
    reports = {
        "before": cases.format("test_kept[1]", 2.0) + cases.format("test_gone", 4.0) + failed + twice,
        "now": cases.format("test_kept[1]", 0.5) + cases.format("test_kept[2]", 8.0) + twice,
    }
    runs = {
        name: versions.Suite(wall, versions.named(f"<testsuites><testsuite>{text}</testsuite></testsuites>"))
        for (name, text), wall in zip(reports.items(), (10.0, 20.0), strict=True)
    }
    monkeypatch.setattr(versions, "suite", lambda tree, workers: runs[tree.name])
    found = dict(versions.suites({name: tmp_path / name for name in runs}, 1))
    assert found["the suite, by each README's command"] == {"before": [10.0], "now": [20.0]}
    assert found["the tests that both have, by each README's command"] == {"before": [2.0], "now": [0.5]}


def test_a_suite_is_run_as_the_readme_says() -> None:
    assert versions.documented("```\nbash setup && .venv/bin/python -m pytest -q -n 2\n```\n") == ["-q", "-n", "2"]
    assert versions.documented((common.ROOT / "README.md").read_text(encoding="utf-8")) == ["-q", "-n", "2"]
    with pytest.raises(SystemExit, match="no command"):
        versions.documented("pytest")
