"""Libraries for arm64 that are built here and run under emulation, many in one process: its start takes seconds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.lib import common
from secateur.codegen.library import Library

FOLDER = common.ROOT / ".arm64"  # made by .ci/arm64
SCRIPT = Path(__file__).with_name("emulated_run.py")
NEEDED = {"qemu-aarch64-static": "qemu-user-static", "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu"}
Array = NDArray[Any]


def missing() -> str | None:
    """What there is not to run arm64 code here, in words; None if nothing is."""
    for program, package in NEEDED.items():
        if shutil.which(program) is None:
            return f"emulation needs {program}: install Debian's package {package}"
    if not (FOLDER / ".stamp").exists():
        return "emulation needs an arm64 environment: assemble it with bash .ci/arm64"
    return None


def require() -> None:
    """Ends the script with a sentence and 2 where something is missing."""
    lacking = missing()
    if lacking is not None:
        print(lacking, file=sys.stderr)
        raise SystemExit(2)


@dataclass(frozen=True)
class Job:
    """A library for arm64 and what it is called with."""

    library: Library
    inputs: tuple[Array, ...]


def run(jobs: Sequence[Job], folder: Path, processor: str = "") -> list[list[Array]]:
    """The outputs of each job, in order; ``folder`` holds the files meanwhile. Raises RuntimeError where one fails.

    ``processor``: qemu's name of another one than the environment's, such as ``max``, which has what qemu knows.
    """
    for number, job in enumerate(jobs):
        job.library.save(folder / f"{number:03}.so")
        np.savez(folder / f"{number:03}.npz", *job.inputs)
    command = python(SCRIPT, folder)
    if processor:
        interpreter = (FOLDER / "root" / "usr" / "bin" / "python3").resolve()
        command[:1] = ["qemu-aarch64-static", "-cpu", processor, "-L", str(FOLDER / "root"), str(interpreter)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the emulated interpreter failed ({done.returncode}): {done.stderr[-2000:]}")
    found = []
    for number in range(len(jobs)):
        with np.load(folder / f"{number:03}.out.npz") as file:
            found.append([file[name] for name in file.files])
    return found


def python(*arguments: str | Path) -> list[str]:
    """A command line for the emulated interpreter, which keeps what it compiles of this checkout next to itself."""
    return [str(FOLDER / "python"), "-X", f"pycache_prefix={FOLDER / 'pycache'}", *map(str, arguments)]


def environment() -> dict[str, str]:
    """This process's environment with this checkout's code, and with files of compiled modules."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": str(common.ROOT / "src")}
