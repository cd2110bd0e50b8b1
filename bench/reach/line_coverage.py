"""How much of ``src`` the suite runs: the share of its lines that hold a statement, by package.

    python -m bench.reach.line_coverage                     the whole suite on two workers
    python -m bench.reach.line_coverage tests/passes        some of it, for a look: no row

Needs slipcover, of the ``bench`` extra: it replaces bytecode where a line is met first, so that the suite takes 1.4
times as long as by itself (3 times under a tracer). What only child processes run (captures and builds under a guard,
command lines in tests) is not counted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.lib import common

TOLD = "Module already imported:pytest.PytestAssertRewriteWarning"  # of slipcover itself; warnings are errors
LEAST = 5  # of the files that the suite runs least, so many are printed


def measure(tests: list[str], workers: int, folder: Path) -> tuple[Mapping[str, Mapping[str, int]], bool]:
    """What slipcover says of each file, and whether all tests passed. Raises SystemExit where they did not run."""
    report = folder / "coverage.json"
    command = [
        sys.executable, "-m", "slipcover", "--source", "src/secateur", "--json", "--out", str(report),
        "-m", "pytest", "-q", "-rs", "-n", str(workers), "--durations=400", "-W", f"ignore:{TOLD}", *tests,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=common.ROOT, check=False)
    if done.returncode > 1:
        raise SystemExit(f"the suite ended with {done.returncode}")
    found: dict[str, Any] = json.loads(report.read_text())["files"]
    return {name.removeprefix("src/secateur/"): file["summary"] for name, file in found.items()}, done.returncode == 0


def by_package(files: Mapping[str, Mapping[str, int]]) -> dict[str, tuple[int, int]]:
    """Lines with a statement and those that ran, by the folder right below ``src/secateur``."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for name, file in files.items():
        package = name.partition("/")[0] if "/" in name else "(front door)"
        sums[package][0] += file["covered_lines"] + file["missing_lines"]
        sums[package][1] += file["covered_lines"]
    return {name: (total, ran) for name, (total, ran) in sorted(sums.items())}


def main() -> int:
    """Run the suite, print the table, append a row where all of it ran."""
    parser = common.parser(__doc__, "line_coverage.jsonl")
    parser.add_argument("tests", nargs=argparse.REMAINDER, help="tests in place of all")
    parser.add_argument("--workers", type=int, default=2, help="processes of pytest (default 2)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files, passed = measure(options.tests, options.workers, Path(folder))
    packages = by_package(files)
    total, ran = (sum(pair[n] for pair in packages.values()) for n in (0, 1))
    if not options.tests:
        row = {"passed": passed, "lines": total, "covered": ran, "packages": packages} | common.circumstances(
            options.seed
        )
        common.append(options.output, [row])
    cells = [[name, n, f"{100 * hit / max(n, 1):.1f} %"] for name, (n, hit) in packages.items()]
    print(common.table(["package", "lines", "run"], [*cells, ["all", total, f"{100 * ran / total:.1f} %"]]))
    least = sorted(files, key=lambda name: -files[name]["missing_lines"])
    print("most lines not run:", ", ".join(least[:LEAST]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
