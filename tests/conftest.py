"""What all tests share: one thread, repeatable hypothesis runs, and golden texts."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# NumPy reads this when it is loaded, here and in the processes of tests: workers share the cores, and threads of a
# product of small matrices spin while they wait for each other.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

# Where Python was told to keep no bytecode, each of the processes that tests start would compile torch's modules anew,
# which takes longer than what most of them do.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
# bench/reach/kernel_shapes runs with it; tests that set a number of their own are not changed by it.
hypothesis.settings.register_profile("sweep", deadline=None, max_examples=800, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")

GOLDEN = Path(__file__).parent / "golden"

# What may be skipped where everything is installed, by the beginning of its reason.
KNOWN_SKIPS = (
    "could not import 'matplotlib'",  # plots belong to bench/, whose packages the tests do without
)
# Debian's packages and wheels, which .ci/run installs where it may, and says so with --emulated and --gpu.
EMULATION, GPU = "emulation needs", "GPU kernels need"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--update-golden` rewrites the golden texts; `--strict-skips` fails on a skip that nobody gave a reason for."""
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden instead of comparing")
    parser.addoption(
        "--emulated", action="store_true", help="with --strict-skips: emulation is here, skip nothing of it"
    )
    parser.addoption("--gpu", action="store_true", help="with --strict-skips: PoCL, Oclgrind and nvcc are here as well")
    parser.addoption("--strict-skips", action="store_true", help="fail where a test is skipped that KNOWN_SKIPS lacks")


def unknown_skips(
    reports: Iterable[pytest.TestReport | pytest.CollectReport], known: tuple[str, ...] = KNOWN_SKIPS
) -> list[str]:
    """Test and reason of each skip whose reason is not ``known``."""
    found = []
    for report in reports:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not reason.removeprefix("Skipped: ").startswith(known):
            found.append(f"{report.nodeid}: {reason}")
    return found


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Workers take whole runs of neighbours, which share fixtures, and steal from each other at the end alone."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


def pytest_collection_finish() -> None:
    """Half a million objects of imported libraries stay for ever: the collector need not walk them again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not session.config.getoption("--strict-skips") or reporter is None:
        return
    here = {EMULATION: "--emulated", GPU: "--gpu"}
    known = (*KNOWN_SKIPS, *(reason for reason, option in here.items() if not session.config.getoption(option)))
    for line in unknown_skips(reporter.stats.get("skipped", []), known):
        reporter.write_line(f"skipped without a known reason: {line}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small networks run faster on one thread, and sums come out in one order."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden("slim/residual.ir", text)`` compares with that file under tests/golden, or rewrites it."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif not path.exists():
            pytest.fail(f"there is no {path.relative_to(GOLDEN.parent)}; write it with --update-golden and review it")
        else:
            assert text == path.read_text(encoding="utf-8")

    return compare
