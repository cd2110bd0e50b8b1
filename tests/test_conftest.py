"""The suite's own rules: a skip that nobody gave a reason for fails where everything is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def outcome(folder: Path, *bodies: str, options: tuple[str, ...] = ()) -> tuple[int, str]:
    """Exit status and output of a suite of these tests under the suite's own rules."""
    rules = (ROOT / "tests" / "conftest.py").read_text(encoding="utf-8")
    idle = rules.replace("    import torch\n\n    torch.set_num_threads(1)\n", "")  # it computes nothing
    assert idle != rules
    (folder / "conftest.py").write_text(idle)
    tests = "".join(f"def test_{i}() -> None:\n    {body}\n" for i, body in enumerate(bodies))
    (folder / "test_one.py").write_text(f"import pytest\n\n\n{tests}")
    command = [sys.executable, "-m", "pytest", "-q", "--strict-skips", *options, "-p", "no:cacheprovider", str(folder)]
    outer = ("SLIPCOVER", "PYTEST_ADDOPTS")  # is told to the suite that this is part of, not to that one
    env = {key: value for key, value in os.environ.items() if not key.startswith(outer)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_a_skip_needs_a_known_reason(tmp_path: Path) -> None:
    # The skips are the text of an inner suite, whose failure is what is tested: no test of ours is skipped by them.
    code, said = outcome(tmp_path, "pytest.skip('no reason')", "pytest.importorskip('matplotlib_')", "pass")
    assert code == 1
    assert said.count("skipped without a known reason") == 2


def test_known_reasons_and_tests_that_pass_are_fine(tmp_path: Path) -> None:
    # Text of an inner suite again: its skip has a reason that is known, and its exit status must be 0.
    code, said = outcome(tmp_path, "raise pytest.skip.Exception(\"could not import 'matplotlib': x\")", "pass")
    assert code == 0
    assert "skipped without a known reason" not in said


def test_what_needs_tools_may_be_skipped_only_where_they_are_missing(tmp_path: Path) -> None:
    # This text is the body of tests in the inner suite, whose exit status is what is tested: it must pass where
    # emulation or GPU tools are missing and fail where CI says that they are there. No test of ours is skipped by it.
    skips = "pytest.skip('emulation needs qemu-aarch64-static: install it')", "pytest.skip('GPU kernels need nvcc')"
    options: tuple[tuple[str, ...], ...] = ((), ("--emulated",), ("--gpu",))
    assert [outcome(tmp_path, *skips, options=given)[0] for given in options] == [0, 1, 1]


def test_processes_of_tests_keep_bytecode_and_use_one_thread() -> None:
    """Whatever the environment that the tests were started in says."""
    ask = "import os, sys; print(sys.dont_write_bytecode, os.environ['OPENBLAS_NUM_THREADS'])"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "1"]
    assert not sys.dont_write_bytecode
