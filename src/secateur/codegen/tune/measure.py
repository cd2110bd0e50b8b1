"""Measures the candidates in this folder: run it where they are to run, with NumPy and the runtime of apache-tvm, and
bring the folder back.

    python measure.py [--rounds 15]

It was written by `secateur tune --candidates FOLDER` and needs nothing of secateur. What was measured is in
results.json after each library, so that it may be stopped and run again. A choice that crashes or hangs costs itself
alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
LEAST, LONGEST = 2e-4, 3.0  # seconds that a sample takes at least, and after which no other round begins
FEWEST, DROP = 3, 1.25  # rounds that all choices are in, and how much slower than the best they may be then
PATIENCE = 60  # seconds after which a library counts as hung
SUMS, SAID, LINE = 256, 1 << 16, 64


def runtime() -> Any:
    """The module tvm_ffi, with TVM's runtime loaded."""
    import tvm_ffi

    spec = find_spec("tvm")
    if spec is None:
        raise SystemExit("TVM is not here: pip install apache-tvm, of the version that manifest.json names")
    folders = [Path(place) / "lib" for place in spec.submodule_search_locations or ()]
    tvm_ffi.libinfo.load_lib_ctypes("tvm", "tvm_runtime", "RTLD_GLOBAL", extra_lib_paths=folders)
    return tvm_ffi


def aligned(size: int, dtype: Any) -> Any:
    """Zeros that begin at a cache line."""
    room = np.zeros(size * np.dtype(dtype).itemsize + LINE, np.uint8)
    start = -room.ctypes.data % LINE
    return room[start : start + size * np.dtype(dtype).itemsize].view(dtype)


def placed(array: Any) -> Any:
    """A copy that begins at a cache line."""
    room = aligned(array.size, array.dtype)
    room[:] = array
    return room


def drawn(entry: Mapping[str, Any], arrays: Mapping[str, Any]) -> Any:
    """The array that the manifest describes."""
    dtype, size, what = entry["dtype"], entry["size"], entry["values"]
    if what == "zeros":
        return aligned(size, dtype)
    return placed(np.resize(arrays["random"], size) if what == "random" else arrays[what])


class Runner:
    """The kernels of one library in memory."""

    def __init__(self, job: Mapping[str, Any], module: Any, arrays: Mapping[str, Any]) -> None:
        self.module = module
        self.memory: list[tuple[list[Any], Any, Any]] = []
        for spec in job["specs"]:
            one = [drawn(entry, arrays) for entry in spec["arrays"]]
            arguments = list(one)
            for k, entry in enumerate(spec["arrays"]):
                if entry["stride"]:
                    arguments[k] = aligned(spec["copies"] * entry["stride"], entry["dtype"])
                    module["spread"](arguments[k], one[k], entry["stride"])
            self.memory.append((arguments, one[-1].copy(), aligned(3, np.int64)))

    def sums(self, i: int, spec: int) -> list[float]:
        """Run kernel i once on fresh memory; the sums of its result."""
        arguments, result, _ = self.memory[spec]
        arguments[-1][:] = result
        found = aligned(SUMS, np.float64)
        self.module[f"race{i}"](*arguments, aligned(3, np.int64), 1)
        self.module["sums"](found, arguments[-1])
        return [float(value) for value in found]

    def seconds(self, i: int, spec: int, repeats: int) -> float:
        """Of so many runs of kernel i."""
        arguments, _, state = self.memory[spec]
        self.module[f"race{i}"](*arguments, state, repeats)
        return float(state[2] - state[1]) * 1e-9


def race(runner: Runner, kernels: Mapping[int, int], rounds: int, say: Callable[[int], None]) -> dict[int, list[float]]:
    """Seconds of a run of each kernel, sampled by turns."""
    repeats = {i: max(1, int(LEAST / max(runner.seconds(i, s, 1), 1e-7))) for i, s in kernels.items()}
    samples: dict[int, list[float]] = {i: [] for i in kernels}
    alive, end = set(kernels), time.perf_counter() + LONGEST
    for turn in range(rounds):
        if turn >= FEWEST and time.perf_counter() > end:
            break
        for i in sorted(alive):
            say(i)
            samples[i].append(runner.seconds(i, kernels[i], repeats[i]) / repeats[i])
        if turn == FEWEST - 1:
            best = min(min(samples[i]) for i in alive)
            alive = {i for i in alive if min(samples[i]) <= DROP * best}
    return samples


def serve(job: Mapping[str, Any], kernels: Mapping[int, int], arrays: Mapping[str, Any], rounds: int, out: int) -> None:
    """In a process of its own: say which kernel is at work, then all that was found."""

    def say(i: int) -> None:
        os.write(out, f"at {i}\n".encode())

    signal.alarm(PATIENCE)
    tvm_ffi = runtime()
    module = tvm_ffi.load_module(str(HERE / job["library"]))
    said = aligned(SAID, np.uint8)
    module["describe"](said)
    runner = Runner(job, module, arrays)
    sums: dict[int, list[float]] = {}
    for i, spec in kernels.items():
        say(i)
        sums[i] = runner.sums(i, spec)
    found = {"machine": bytes(said).split(b"\0")[0].decode(errors="replace"), "sums": sums,
             "samples": race(runner, kernels, rounds, say)}  # fmt: skip
    os.write(out, b"found ")
    with open(out, "w", closefd=False) as file:
        json.dump(found, file)


def measured(job: Mapping[str, Any], arrays: Mapping[str, Any], rounds: int) -> dict[str, Any]:
    """What a process finds; those kernels over which one ends are left out, and named under ``failed``."""
    kernels: dict[int, int] = {kernel["id"]: kernel["spec"] for kernel in job["kernels"]}
    failed: list[int] = []
    while kernels:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                serve(job, kernels, arrays, rounds, writing)
                os._exit(0)
            except BaseException as error:
                print(f"{job['library']}: {error}", file=sys.stderr)
                os._exit(1)
        os.close(writing)
        with os.fdopen(reading) as file:
            said = file.read()
        os.waitpid(child, 0)
        at, _, found = said.rpartition("found ")
        try:
            return {**json.loads(found), "failed": failed}
        except ValueError:
            last = [line for line in (at or said).splitlines() if line.startswith("at ")]
            if not last:
                return {"failed": sorted(kernels)}
            failed.append(int(last[-1][3:]))
            kernels.pop(failed[-1], None)
    return {"failed": failed}


def main() -> None:
    """Measure what results.json lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    text = (HERE / "manifest.json").read_bytes()
    manifest, digest, place = json.loads(text), hashlib.sha256(text).hexdigest(), HERE / "results.json"
    results = {"format": manifest["format"], "manifest": digest, "jobs": {}}
    if place.exists():
        before = json.loads(place.read_text())
        results = before if before.get("manifest") == digest else results
    with np.load(HERE / "arrays.npz") as file:
        arrays = {name: file[name] for name in file.files}
    for number, job in enumerate(manifest["jobs"]):
        if str(number) in results["jobs"]:
            continue
        if hashlib.sha256((HERE / job["library"]).read_bytes()).hexdigest() != job["sha256"]:
            raise SystemExit(f"{job['library']} is damaged: copy the folder again")
        results["jobs"][str(number)] = measured(job, arrays, options.rounds)
        whole = place.with_suffix(".tmp")
        whole.write_text(json.dumps(results))
        whole.replace(place)
        print(f"{number + 1} of {len(manifest['jobs'])} libraries", file=sys.stderr)


if __name__ == "__main__":
    main()
