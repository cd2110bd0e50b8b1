"""The pages say what the committed rows say: generating them anew changes nothing, and no number is typed in."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.docs import readme

ROOT = Path(__file__).resolve().parent.parent.parent


def test_pages_are_what_the_rows_give(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pages = ("README.md", "docs/results.md", "docs/criteria.md")
    for name in pages:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(readme, "README", tmp_path / "README.md")
    monkeypatch.setattr(readme, "DOCS", tmp_path / "docs")
    monkeypatch.setattr("sys.argv", ["readme.py"])
    assert readme.main() == 0
    for name in pages:
        assert (tmp_path / name).read_text(encoding="utf-8") == (ROOT / name).read_text(encoding="utf-8"), name
