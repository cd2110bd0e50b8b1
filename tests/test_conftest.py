"""The suite's own rules: a skip that nobody gave a reason for fails where everything is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(("body", "code"), [("pytest.skip('no reason')", 1), ("pytest.importorskip('matplotlib_')", 1),
                                            ("raise pytest.skip.Exception(\"could not import 'matplotlib': x\")", 0),
                                            ("pass", 0)])  # fmt: skip
def test_a_skip_needs_a_known_reason(tmp_path: Path, body: str, code: int) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text(encoding="utf-8"))
    (tmp_path / "test_one.py").write_text(f"import pytest\n\n\ndef test_one() -> None:\n    {body}\n")
    command = [sys.executable, "-m", "pytest", "-q", "--strict-skips", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout
    assert ("skipped without a known reason" in done.stdout) == bool(code)
