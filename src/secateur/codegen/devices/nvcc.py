"""CUDA source to a cubin, by nvcc: that of NVIDIA's wheels, or one on the PATH. No GPU is needed for it."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

from secateur.ir import InputError

from .code import Resources

PACKAGES = "'secateur[cuda]'"
_KERNEL = re.compile(r"Compiling entry function '(\w+)'")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers(.*)")
_SHARED = re.compile(r"(\d+) bytes smem")


def find() -> Path | None:
    """nvcc of the newest wheel that is installed, else that on the PATH; None where there is none."""
    spec = find_spec("nvidia")
    for folder in sorted((Path(p) for p in (spec.submodule_search_locations or ()) if spec) if spec else (), key=str):
        found = sorted(folder.glob("cu*/bin/nvcc")) + sorted(folder.glob("cuda_nvcc/bin/nvcc"))
        if found:
            return found[-1]
    on_path = shutil.which("nvcc")
    return Path(on_path) if on_path else None


def need() -> Path:
    """nvcc. Raises InputError where it is missing, with what to install."""
    found = find()
    if found is None:
        raise InputError(
            f"a library for a CUDA GPU takes nvcc, which is not installed: pip install {PACKAGES} "
            "(no GPU is needed), or put NVIDIA's toolkit on the PATH; --target opencl does without"
        )
    return found


def compile_cubin(source: str, arch: str) -> tuple[bytes, dict[str, Resources]]:
    """Machine code for an architecture such as sm_90, and what each kernel takes of it.

    Raises InputError where nvcc is missing or refuses the source.
    """
    nvcc = need()
    with tempfile.TemporaryDirectory(prefix="secateur-") as folder:
        text, cubin = Path(folder) / "kernels.cu", Path(folder) / "kernels.cubin"
        text.write_text(source, encoding="utf-8")
        command = [
            str(nvcc),
            "-cubin",
            f"-arch={arch}",
            "-O3",
            "-Xptxas",
            "-v",
            "-x",
            "cu",
            str(text),
            "-o",
            str(cubin),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not cubin.exists():
            lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
            raise InputError(f"nvcc refuses the kernels for {arch}: {lines[0] if lines else 'it says nothing'}")
        return cubin.read_bytes(), resources(done.stderr)


def resources(report: str) -> dict[str, Resources]:
    """What ``ptxas -v`` says of each kernel."""
    found: dict[str, Resources] = {}
    name, spilled = "", 0
    for line in report.splitlines():
        if match := _KERNEL.search(line):
            name, spilled = match[1], 0
        elif match := _SPILLS.search(line):
            spilled = sum(int(n) for n in match.groups())
        elif (match := _USED.search(line)) and name:
            shared = _SHARED.search(match[2])
            found[name] = Resources(int(match[1]), spilled, int(shared[1]) if shared else 0)
    return found
