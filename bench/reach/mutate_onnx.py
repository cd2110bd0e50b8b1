"""How secateur takes damaged and hostile ONNX files: seeded mutants through inspect, compile and module.

Each mutant is inspected, compiled with policy ``none``, made a module and pruned to 60 %, in a child process with
limits of memory and time. Counted are children that died (crashed), exceptions that are no ``secateur.Error`` and
those that blame secateur (unexpected), mutants that took over ten seconds of the processor (slow), and files written
under ``none`` that compute something else than the mutant does in ONNX Runtime (wrong).

    python -m bench.reach.mutate_onnx --count 10000 --jobs 2          # appends a row to bench/results/mutations.jsonl
    python -m bench.reach.mutate_onnx --first 4711 --count 1 --show   # one mutant, with what became of it
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import queue
import resource
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.lib import common
from bench.reach import mutants

LIMIT = 10.0  # seconds that a mutant may take
PATIENCE = 120.0  # seconds after which a child is stopped: others may use the machine's cores too
MEMORY = 8 << 30  # bytes of address space, so that what grows without bound ends
COUNTED = ("crashed", "unexpected", "slow", "wrong", "refused", "accepted")


# -- in the child ---------------------------------------------------------------------------------------------
def child() -> None:
    """Read numbers, answer each with a line of JSON; a line for each stage before it, so that a crash has a place."""
    import onnxruntime  # noqa: F401  before the limit, which counts what libraries map

    _share_process()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY + _mapped(),) * 2)
    out = sys.stdout
    sys.stdout = sys.stderr
    for line in sys.stdin:
        with tempfile.TemporaryDirectory() as folder:
            before = _spent()
            found = _through(int(line), Path(folder), lambda stage: print(json.dumps(stage), file=out, flush=True))
        print(json.dumps({**found, "seconds": _spent() - before}), file=out, flush=True)


def _share_process() -> None:
    """Let all commands run files in one process of their own: to start one takes longer than a small file."""
    from secateur import api, reading
    from secateur.ir.frontends.onnx import load as frontend
    from secateur.ir.frontends.onnx.process import OnnxProcess

    class Shared(OnnxProcess):
        def __exit__(self, *_: object) -> None:
            pass

    one = Shared()
    for module in (api, reading, frontend):
        setattr(module, "OnnxProcess", lambda: one)  # noqa: B010  mypy knows it as a class


def _spent() -> float:
    """Seconds of the processor so far, those of ended children too."""
    return sum(os.times()[:4])


def _mapped() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _through(number: int, folder: Path, tell: Any) -> dict[str, Any]:
    """What became of one mutant: the outcome, and why."""
    import secateur

    _, path = mutants.write(number, folder)
    written = folder / "out" / "model.onnx"
    written.parent.mkdir()
    accepted = ""
    try:
        tell("inspect")
        secateur.inspect(str(path))
        tell("none")
        done = secateur.compile(str(path), "none")
        done.save(written)
        accepted = "accepted"
        tell("module")
        done.module()
        tell("macs")
        secateur.compile(str(path), "l1", macs=0.6)
    except secateur.Error as error:
        if isinstance(error, secateur.LawError) or "fault in secateur" in str(error):
            return {"outcome": "unexpected", "why": f"{type(error).__name__}: {error}"}
        if not accepted:
            return {"outcome": "refused", "why": f"{type(error).__name__}: {error}"}
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)
        own = next((f"{Path(f.filename).name}:{f.lineno}" for f in reversed(where) if "secateur" in f.filename), "")
        return {"outcome": "unexpected", "why": f"{type(error).__name__} at {own}: {error}"}
    tell("judge")
    why = judge(path, written, folder)
    return {"outcome": "wrong", "why": why} if why else {"outcome": "accepted", "why": ""}


def judge(original: Path, written: Path, folder: Path) -> str:
    """How the two files differ in ONNX Runtime; empty where they agree, or the original cannot be run."""
    import numpy as np

    for size in (2, 3):
        try:
            feeds = _feeds(original, size)
            want, again = _run(original, feeds), _run(original, feeds)
        except Exception:
            continue
        if not _close(want, again, np):  # it draws numbers
            continue
        try:
            got = _run(written, feeds)
        except Exception as error:
            return f"the written file cannot be run: {str(error).splitlines()[0]}"
        if not _close(want, got, np):
            return f"outputs differ at size {size}"
    return ""


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _feeds(path: Path, size: int) -> dict[str, Any]:
    import numpy as np

    rng = np.random.default_rng(size)
    feeds: dict[str, Any] = {}
    for info in _session(path).get_inputs():
        shape = [d if isinstance(d, int) else (size if i == 0 else 4 * size) for i, d in enumerate(info.shape)]
        if np.prod(shape, dtype=float) > 1 << 24:
            raise ValueError("too large")
        kind = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}
        drawn = rng.random(shape) if info.type in kind else np.ones(shape)
        names = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_}
        feeds[info.name] = drawn.astype({**kind, **names}[info.type])
    return feeds


def _run(path: Path, feeds: dict[str, Any]) -> list[Any]:
    return list(_session(path).run(None, feeds))


def _close(want: list[Any], got: list[Any], np: Any) -> bool:
    if len(want) != len(got):
        return False
    for a, b in zip(want, got, strict=True):
        if not isinstance(a, np.ndarray) or a.dtype == object:
            continue
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        if not a.size or a.dtype.kind not in "f":
            if not np.array_equal(a, b):
                return False
            continue
        same = np.isfinite(a) & np.isfinite(b)
        if not np.array_equal(np.isnan(a), np.isnan(b)):
            return False
        scale = max(float(np.abs(a[same]).max(initial=0)), 1e-6)
        if same.any() and float(np.abs(a[same].astype(float) - b[same]).max()) > 2e-3 * scale:
            return False
    return True


# -- in the parent --------------------------------------------------------------------------------------------
class Worker:
    """A child process and its mutants; one that died or hangs is replaced."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[str] | None = None
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def ask(self, number: int) -> dict[str, Any]:
        """What became of the mutant."""
        child = self._child or self._start()
        assert child.stdin is not None
        child.stdin.write(f"{number}\n")
        stage, start = "start", time.monotonic()
        while True:
            try:
                line = self._lines.get(timeout=max(PATIENCE - (time.monotonic() - start), 0))
            except queue.Empty:
                self.close()
                outcome = "accepted" if stage == "judge" else "slow"  # the judge runs the file as it is
                return {"outcome": outcome, "why": f"stopped in {stage}", "seconds": PATIENCE}
            if not line:
                code = child.wait()
                self.close()
                outcome = "accepted" if stage == "judge" else "crashed"
                return {"outcome": outcome, "why": f"exit code {code} in {stage}", "seconds": 0.0}
            found = json.loads(line)
            if isinstance(found, str):
                stage = found
                continue
            if found["seconds"] > LIMIT:
                found = {
                    **found,
                    "outcome": "slow",
                    "why": f"{found['seconds']:.0f} s, {found['outcome']}: {found['why']}",
                }
            return dict(found)

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "bench.reach.mutate_onnx", "--child"]
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1
        )
        self._child, self._lines = child, queue.SimpleQueue()
        threading.Thread(target=_read, args=(child, self._lines), daemon=True).start()
        return child

    def close(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            if self._child.stdin is not None:
                with contextlib.suppress(OSError):
                    self._child.stdin.close()
            self._child = None


def _read(child: subprocess.Popen[str], lines: queue.SimpleQueue[str]) -> None:
    """Hand on the child's lines, and an empty one at its end."""
    assert child.stdout is not None
    with child.stdout:
        for line in child.stdout:
            lines.put(line)
    lines.put("")


def survey(first: int, count: int, jobs: int, show: bool) -> tuple[dict[str, int], dict[str, list[int]]]:
    """Counts by outcome, and the numbers of the mutants by outcome and reason where something is to be mended."""
    counts = dict.fromkeys(COUNTED, 0)
    faults: dict[str, list[int]] = collections.defaultdict(list)

    def share(which: int) -> None:
        worker = Worker()
        for number in range(first + which, first + count, jobs):
            found = worker.ask(number)
            counts[found["outcome"]] += 1
            if show or found["outcome"] not in ("refused", "accepted"):
                faults[f"{found['outcome']}: {found['why'][:300]}"].append(number)
        worker.close()

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(share, range(jobs)))
    return counts, faults


def main() -> None:
    parser = common.parser(__doc__, "mutations.jsonl")
    parser.add_argument("--count", type=int, default=1000, help="how many mutants (default 1000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first one (default 0)")
    parser.add_argument("--jobs", type=int, default=1, help="child processes at a time (default 1)")
    parser.add_argument("--show", action="store_true", help="print every outcome, and append no row")
    parser.add_argument("--child", action="store_true", help="be a child: numbers on stdin, outcomes on stdout")
    options = parser.parse_args()
    if options.child:
        return child()
    start = time.monotonic()
    counts, faults = survey(options.first, options.count, options.jobs, options.show)
    for why, numbers in sorted(faults.items(), key=lambda pair: -len(pair[1])):
        print(f"{len(numbers):5d}  {why}  e.g. {numbers[:3]}")
    row = {"kind": "onnx", "count": options.count, "first": options.first, **counts}
    print(json.dumps(row), f"{time.monotonic() - start:.0f} s")
    if not options.show:
        common.append(options.output, [{**common.circumstances(options.seed), **row}])


if __name__ == "__main__":
    main()
