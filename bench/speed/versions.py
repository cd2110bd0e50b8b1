"""This checkout next to an earlier commit of the project: is anything slower than it was?

    python -m bench.speed.versions 593d9ae                  commands, a build, and three networks by turns
    python -m bench.speed.versions 593d9ae --rounds 7 --only compile
    python -m bench.speed.versions 593d9ae --rounds 1 --suite        the tests of both, by each README's command
    python -m bench.speed.versions 593d9ae --rounds 1 --suite --workers 2       or with two workers each

Of the tests there is a row for all, and one for those that both have: a test is the same where its name and its
parameters are, in whatever file, and no other test of either checkout has them; its seconds are those of its worker.

Both run in this environment, each with its own sources. Commands are whole processes that take turns; libraries of both
are built with the records that each ships, loaded into one process, and run by turns. Ratios are now / before, medians
of the ratios within a round, and the row holds all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar
from xml.etree import ElementTree

import numpy as np

from bench.data import material
from bench.lib import common

NETWORKS = ("ref/resnet50", "tv/mobilenet_v2", "ref/shufflenet_v1_g3")
NOW = {"compile ResNet-50, files not run": ["--trust"]}  # what only this checkout is told
RUNS = 12  # of each library in a round; their median counts
T = TypeVar("T")
BUILD = (
    "import sys, secateur; from secateur import codegen; "
    "codegen.build(secateur.load(sys.argv[1]), threads=int(sys.argv[3])).save(sys.argv[2])"
)


@contextlib.contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """The sources of a commit, in a folder that lasts as long as this."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "before")
        git = ["git", "-C", str(common.ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", "--quiet", str(tree), commit], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def seconds(tree: Path, command: Sequence[str]) -> float:
    """Wall seconds of a command of Python with a tree's sources. Raises SystemExit where it fails."""
    env = os.environ | {"PYTHONPATH": str(tree / "src")}
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *command], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{tree.name}: {' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return time.perf_counter() - start


@dataclass(frozen=True)
class Suite:
    """A run of a checkout's tests: wall seconds, and those of each test by its name, where only one has that name."""

    seconds: float
    tests: Mapping[str, float]


def suite(tree: Path, workers: int) -> Suite:
    """A run of a tree's own tests with its own sources; how many passed is printed.

    With so many workers, or as the tree's README says where ``workers`` is 0. A test that fails ends nothing, as an
    earlier commit may not know today's packages; the seed of hashes is for workers that would else collect in
    different orders. Raises SystemExit where no tests ran.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "tests.xml")
        told = ["-q", "-n", str(workers)] if workers else documented((tree / "README.md").read_text(encoding="utf-8"))
        command = [sys.executable, "-m", "pytest", *told, "-p", "no:cacheprovider", f"--junitxml={report}"]
        start = time.perf_counter()
        env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (tree / "src", tree))), "PYTHONHASHSEED": "0"}
        done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=False)
        taken = time.perf_counter() - start
        said = (done.stdout.strip() or done.stderr.strip()).splitlines()[-1]
        if "passed" not in said:
            raise SystemExit(f"{tree.name}: {said}")
        print(f"{tree.name}: {said}", flush=True)
        return Suite(taken, named(report.read_text(encoding="utf-8")))


def documented(readme: str) -> list[str]:
    """The options of pytest in the command of a README. Raises SystemExit where it has none."""
    found = re.search(r"python -m pytest\b(.*)$", readme, re.MULTILINE)
    if found is None:
        raise SystemExit("the README has no command with `python -m pytest`")
    return found[1].split()


def named(report: str) -> dict[str, float]:
    """Seconds, with those of its fixtures, of each passed test of a JUnit file whose name no other test there has."""
    cases = [case for case in ElementTree.fromstring(report).iter("testcase") if not len(case)]
    often = Counter(case.get("name", "") for case in cases)
    return {case.get("name", ""): float(case.get("time", 0)) for case in cases if often[case.get("name", "")] == 1}


def suites(trees: Mapping[str, Path], rounds: int, workers: int = 0) -> Iterator[tuple[str, dict[str, list[float]]]]:
    """Seconds of the tests of both: all of them, and those that both have."""
    runs = by_turns({name: partial(suite, tree, workers) for name, tree in trees.items()}, rounds)
    how = f"with {workers} workers" if workers else "by each README's command"
    yield f"the suite, {how}", {name: [run.seconds for run in found] for name, found in runs.items()}
    both = set.intersection(*(set(run.tests) for found in runs.values() for run in found))
    print(f"{len(both):,} tests are in both", flush=True)
    spent = {name: [sum(run.tests[test] for test in both) for run in found] for name, found in runs.items()}
    yield f"the tests that both have, {how}", spent


def by_turns(measure: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """What each of two gives in every round; who begins changes from one to the next."""
    found: dict[str, list[T]] = {name: [] for name in measure}
    for number in range(rounds):
        for name in list(measure)[:: 1 if number % 2 else -1]:
            found[name].append(measure[name]())
    return found


def commands(models: Mapping[str, Path], folder: Path) -> dict[str, list[str]]:
    """What users wait for, by its name in the table."""
    resnet = str(models["ref/resnet50"])
    halve = ["-m", "secateur", "compile", resnet, str(folder / "slim.onnx"), "--macs", "50%", "--overwrite"]
    return {
        "import secateur": ["-c", "import secateur"],
        "secateur --help": ["-m", "secateur", "--help"],
        "the demo's command": [*halve[:3], str(material.path("open-nsfw.onnx")), *halve[4:]],
        "compile ResNet-50": halve,
        "compile ResNet-50, files not run": halve,
        "build ResNet-50": ["-c", BUILD, resnet, str(folder / "resnet.so"), "1"],
    }  # fmt: skip


def latency(trees: Mapping[str, Path], model: Path, threads: int, rounds: int, folder: Path) -> dict[str, list[float]]:
    """Milliseconds of a network in the libraries that both build."""
    from secateur import load_library

    x = np.load(model.parent / "input.npy")
    runs: dict[str, Callable[[], float]] = {}
    for name, tree in trees.items():
        file = folder / f"{name}.so"
        seconds(tree, ["-c", BUILD, str(model), str(file), str(threads)])
        library = load_library(file)

        def run(library: Callable[..., object] = library) -> float:
            times = []
            for _ in range(RUNS):
                start = time.perf_counter()
                library(x)
                times.append(time.perf_counter() - start)
            return 1000 * statistics.median(times)

        run()
        runs[name] = run
    return by_turns(runs, rounds)


def line(what: str, found: Mapping[str, Sequence[float]]) -> list[object]:
    """The table's cells: both medians, and the median and the range of the ratios."""
    ratios = sorted(now / before for now, before in zip(found["now"], found["before"], strict=True))
    middle = statistics.median(ratios)
    medians = [statistics.median(found[name]) for name in ("before", "now")]
    return [what, *medians, f"{middle:.3f}", f"{ratios[0]:.2f}..{ratios[-1]:.2f}"]


def measured(
    options: argparse.Namespace, trees: Mapping[str, Path], folder: Path
) -> Iterator[tuple[str, dict[str, list[float]]]]:
    """Everything that is asked for, one after the other."""
    if options.suite:
        yield from suites(trees, options.rounds, options.workers)
        return
    models = {name: folder / name.replace("/", "-") / "model.onnx" for name in NETWORKS}
    for name, model in models.items():
        model.parent.mkdir()
        common.run([sys.executable, "-m", "bench.lib.prepare", name, str(model.parent), "--threads"])
    for what, command in commands(models, folder).items():
        if options.only in what:
            told = {"before": command, "now": [*command, *NOW.get(what, [])]}
            turns = {name: partial(seconds, tree, told[name]) for name, tree in trees.items()}
            yield what, by_turns(turns, options.rounds)
    for name, model in models.items():
        for threads in (1, 2):
            what = f"{name}, {threads} thread{'s' if threads > 1 else ''}, ms"
            if options.only in what:
                yield what, latency(trees, model, threads, 3 * options.rounds, folder)


def main() -> int:
    """Measure both by turns, print the table, append a row each."""
    parser = common.parser(__doc__, "versions.jsonl")
    parser.add_argument("before", help="the earlier commit")
    parser.add_argument(
        "--rounds", type=int, default=5, help="turns of each command, a third of a library's (default 5)"
    )
    parser.add_argument("--only", default="", help="lines of the table that hold this text")
    parser.add_argument("--suite", action="store_true", help="the tests of both in place of all else")
    parser.add_argument("--workers", type=int, default=0, help="of the suite (default: as each README says)")
    options = parser.parse_args()
    here = common.circumstances(options.seed)
    cells = []
    with checkout(options.before) as before, tempfile.TemporaryDirectory() as folder:
        for what, found in measured(options, {"before": before, "now": common.ROOT}, Path(folder)):
            cells.append(line(what, found))
            common.append(options.output, [{"what": what, "before": options.before, "found": found} | here])
            print(*cells[-1], flush=True)
    print(common.table(["what", "before", "now", "now / before", "range"], cells))
    return 0


if __name__ == "__main__":
    sys.exit(main())
