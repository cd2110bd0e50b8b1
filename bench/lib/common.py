"""What every script here shares: the JSON line with its circumstances, tables, and subprocesses that are measured."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results"
MATERIAL = ROOT / "bench" / ".material"  # what is fetched or made, outside of the repository
PACKAGES = (
    "secateur", "torch", "onnx", "onnxruntime", "openvino", "apache-tvm", "numpy", "scipy", "timm", "torchvision",
)  # fmt: skip

Row = dict[str, Any]


def parser(doc: str | None, default_output: str) -> argparse.ArgumentParser:
    """A command line whose help is the script's docstring, with the options all scripts have."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS / default_output, help="JSON lines are appended here")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and inputs (default 0)")
    return parser


def of_networks(doc: str | None, default_output: str, names: Iterable[str]) -> argparse.ArgumentParser:
    """The same for scripts that go network by network, each trained from several seeds."""
    found = parser(doc, default_output)
    found.add_argument("--seeds", type=int, default=3, help="networks of each kind (default 3)")
    found.add_argument("--only", default=",".join(names), help="networks, with commas (default all)")
    found.add_argument("--summary", action="store_true", help="run nothing, print the table of the rows that there are")
    return found


def machine() -> Row:
    """The processor's name, how many cores this process may use, and the system.

    Hosts hide names: family and model tell one generation from the next, and those differ by a factor of two.
    """
    model = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        pairs = [line.partition(":") for line in info.read_text().splitlines()]
        found = {key.strip(): value.strip() for key, _, value in reversed(pairs)}
        model = found.get("model name", model)
        if "cpu family" in found:
            model += f" (family {found['cpu family']}, model {found['model']})"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": model, "cores": cores, "system": platform.system()}


def versions() -> Row:
    """Versions of Python and of the packages that a figure can depend on."""
    found: Row = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_sha() -> str:
    """The commit measured; `-dirty` is added where sources differ from it, `unknown` outside a clone."""
    # What a benchmark itself writes is not a change of what it measures.
    for arguments in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--", ".", ":!bench/results"]):
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            return "unknown"
        if arguments[0] == "rev-parse":
            sha = done.stdout.strip()
        elif done.stdout.strip():
            return f"{sha}-dirty"
    return sha


def circumstances(seed: int) -> Row:
    """What a figure depends on besides the code under test; gather it once a run."""
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"when": when, "git": git_sha(), "machine": machine(), "versions": versions(), "seed": seed}


def where(row: Row, *others: Row) -> str:
    """The circumstances of a measurement, in a line; every commit where rows come from several."""
    machine, versions = row["machine"], row["versions"]
    commits = list(dict.fromkeys(r["git"][:9] for r in (row, *others)))
    return (
        f"{machine['cpu']}, {machine['cores']} cores, Python {versions['python']}, torch {versions['torch']}, "
        f"commit{'s' if len(commits) > 1 else ''} {', '.join(commits)}"
    )


def append(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add JSON lines to a file; each line is written whole, files of this checkout by their place in it.

    Tracebacks and remarks name files: where on whose machine the checkout lay is nobody's business.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, default=str).replace(f"{json.dumps(str(ROOT))[1:-1]}/", "") + "\n")


def read(path: Path) -> list[Row]:
    """The rows of a JSON lines file; none if it does not exist. A line cut off by a kill is left out."""
    if not path.exists():
        return []
    rows: list[Row] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Text columns: numbers to the right, everything else to the left."""
    cells = [list(head), *([_cell(c) for c in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    numeric = [all(_is_number(row[i]) for row in cells[1:]) for i in range(len(head))]
    cells.insert(1, ["-" * w for w in widths])
    aligned = (
        [c.rjust(w) if right else c.ljust(w) for c, w, right in zip(row, widths, numeric, strict=True)] for row in cells
    )
    return "\n".join("  ".join(row).rstrip() for row in aligned)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _is_number(text: str) -> bool:
    try:
        float(text.rstrip("%"))
    except ValueError:
        return text == "-"
    return True


@dataclass(frozen=True)
class Finished:
    """A subprocess that ended: exit code (None if it was stopped at its limit), output, wall seconds, peak bytes."""

    code: int | None
    stdout: str
    stderr: str
    seconds: float
    peak_bytes: int
    cpu_seconds: float


def environment(threads: int | None = None) -> dict[str, str]:
    """This process's environment for a child: this checkout's code, and so many threads for the pools that ask it."""
    pools = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, **dict.fromkeys(pools if threads else (), str(threads))}


def run(
    command: Sequence[str], *, timeout: float | None = None, threads: int | None = None, memory: int | None = None
) -> Finished:
    """Run a command from the repository's root and measure it, its own children not counted.

    It is stopped after ``timeout`` seconds, and on Linux where it and its children hold more than ``memory`` bytes.

    Waits with wait4, whose figures belong to this child alone, so that several may run at once. On Linux the peak
    starts from the size of the process that starts the child: keep that one small where memory is the question.
    """
    env = environment(threads)
    start = time.perf_counter()
    child = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    texts = ["", ""]
    readers = [threading.Thread(target=_drain, args=(child, i, texts)) for i in range(2)]
    stopped = threading.Event()

    def stop() -> None:
        stopped.set()
        child.kill()

    timer = threading.Timer(timeout or 0, stop)
    if timeout is not None:
        timer.start()
    if memory is not None:
        threading.Thread(target=_watch, args=(child, memory, stop), daemon=True).start()
    for reader in readers:
        reader.start()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start
    timer.cancel()
    child.returncode = os.waitstatus_to_exitcode(status)
    for reader in readers:
        reader.join()
    code = None if stopped.is_set() else child.returncode
    return Finished(code, texts[0], texts[1], seconds, _max_rss_bytes(usage), usage.ru_utime + usage.ru_stime)


def _watch(child: subprocess.Popen[str], limit: int, stop: Callable[[], None]) -> None:
    """Stop a process that holds more bytes than the limit, with its children; ends with it."""
    while child.returncode is None:
        if _resident(child.pid) > limit:
            stop()
            return
        time.sleep(0.2)


def _resident(pid: int) -> int:
    """Bytes that a process and its children have in memory; 0 where it ended, or where there is no /proc."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (OSError, IndexError):
        return 0
    return pages * resource.getpagesize() + sum(_resident(int(c)) for c in children)


def _drain(child: subprocess.Popen[str], which: int, texts: list[str]) -> None:
    stream = (child.stdout, child.stderr)[which]
    if stream is not None:
        texts[which] = stream.read()
        stream.close()


def _max_rss_bytes(usage: resource.struct_rusage) -> int:
    """Linux counts in KiB, macOS in bytes."""
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def secateur(*arguments: str | Path) -> list[str]:
    """The command line of this checkout's `secateur`, run by the Python that runs this script."""
    return [sys.executable, "-m", "secateur.cli.app", *map(str, arguments)]
