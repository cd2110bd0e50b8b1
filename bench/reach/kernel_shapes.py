"""Kernels at many more drawn shapes than the suite has time for: forty where a test of the suite draws five.

    python -m bench.reach.kernel_shapes              all of them, a row for each file
    python -m bench.reach.kernel_shapes strassen     the files whose names hold this
    python -m bench.reach.kernel_shapes --summary    the table alone, from the rows there are

Each shape is compiled, and compared with the torch executor in memory that it may not leave. Shapes come of the seed:
other seeds look at other shapes; a shape that fails is printed with the line that repeats it in the suite.
"""

from __future__ import annotations

import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.lib import common

SUITE = common.ROOT / "tests" / "codegen"
MARK = "@DRAWN"  # what a test of drawn shapes is decorated with
SHAPES = 40  # of each test, by the profile "sweep" of tests/conftest.py


def subjects(part: str) -> list[Path]:
    """Files with tests of drawn shapes whose names hold ``part``."""
    return [p for p in sorted(SUITE.rglob("test_*.py")) if part in p.name and MARK in p.read_text()]


def drawn(path: Path) -> list[str]:
    """The names of a file's tests of drawn shapes."""
    after = path.read_text().split(MARK)[1:]
    return [text.partition("def ")[2].partition("(")[0] for text in after]


def sweep(path: Path, seed: int) -> common.Row:
    """One file's tests of drawn shapes at many shapes: how many, and which failed."""
    start = time.perf_counter()
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=sweep",
            f"--hypothesis-seed={seed}", f"--junitxml={report}", *(f"{path}::{name}" for name in drawn(path)),
        ]  # fmt: skip
        done = subprocess.run(command, cwd=common.ROOT, check=False, stdout=subprocess.PIPE, text=True)
        if done.returncode > 1:
            raise SystemExit(f"{path.name}: the tests did not run:\n{done.stdout[-2000:]}")
        cases = list(ElementTree.parse(report).iter("testcase"))
    failed = [case.get("name") for case in cases if case.find("failure") is not None]
    if failed:
        print(done.stdout)
    seconds = round(time.perf_counter() - start, 1)
    return {"file": path.name, "tests": len(cases), "shapes": SHAPES * len(cases), "failed": failed, "seconds": seconds}


def summary(rows: list[common.Row]) -> str:
    """The newest row of each file."""
    newest = {row["file"]: row for row in rows}
    cells = [[r["file"], r["tests"], r["shapes"], ", ".join(r["failed"]) or "none"] for r in newest.values()]
    return common.table(["file", "tests", "shapes", "failed"], cells)


def main() -> int:
    """Run the files, a row after each; print the table."""
    parser = common.parser(__doc__, "kernel_shapes.jsonl")
    parser.add_argument("part", nargs="?", default="", help="what the file's name holds (default: all)")
    parser.add_argument("--summary", action="store_true", help="run nothing")
    options = parser.parse_args()
    files = [] if options.summary else subjects(options.part)
    for path in files:
        row = sweep(path, options.seed) | common.circumstances(options.seed)
        common.append(options.output, [row])
        print(f"{row['file']:28} {row['shapes']:5} shapes  {len(row['failed'])} failed  {row['seconds']} s", flush=True)
    print(summary(common.read(options.output)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
