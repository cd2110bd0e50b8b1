"""Runs a library of secateur with TVM alone: neither secateur nor PyTorch is imported.

    python run.py LIBRARY.so INPUT.npy... [--output FOLDER]

A library is a ZIP archive without compression. ``code.so`` is a runtime module of TVM whose function ``main`` takes
scratch memory, weights, tables, then inputs and outputs in the order of ``metadata.json``; it allocates nothing.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import tvm
import tvm_ffi

TYPES = {"f16": "float16", "f32": "float32", "f64": "float64", "i32": "int32", "i64": "int64"}
LINE = 64  # bytes of a cache line: where scratch memory, weights and tables begin


def check_machine(target: dict[str, Any]) -> None:
    """Ends with a sentence where this processor lacks what the code was built for."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    known = next((set(line.split()) for line in lines if line.startswith(("flags", "Features"))), set())
    lacking = [name for name in target["features"] if known and name not in known]
    if lacking or not target["triple"].startswith(platform.machine().replace("arm64", "aarch64")):
        raise SystemExit(f"the library was built for {target['name']}; this machine lacks {', '.join(lacking) or 'it'}")


def aligned(data: bytes | int, dtype: Any) -> Any:
    """An array at a cache line, with this content, or with so many numbers of none."""
    size = data if isinstance(data, int) else len(data) // np.dtype(dtype).itemsize
    room = np.zeros(size * np.dtype(dtype).itemsize + LINE, np.uint8)
    start = -room.ctypes.data % LINE
    array = room[start : start + size * np.dtype(dtype).itemsize].view(dtype)
    if isinstance(data, bytes):
        array[:] = np.frombuffer(data, dtype)
    return array


def run(path: Path, inputs: list[Any]) -> list[Any]:
    """The outputs of a library for one machine, on one thread."""
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
        if "metadata.json" not in archive.namelist():
            raise SystemExit(f"'{path}' is a library in parts, some of which ONNX Runtime runs: run it with secateur")
        metadata = json.loads(archive.read("metadata.json"))
        check_machine(metadata["target"])  # before any of its code is loaded
        module = tvm.runtime.load_module(archive.extract("code.so", folder))
        fixed = [
            aligned(metadata["arena_words"], np.float32),
            aligned(archive.read("weights.bin"), np.float32),
            aligned(archive.read("tables.bin"), np.int32),
        ]
    outputs = [np.empty(shape, TYPES.get(dtype, dtype)) for _, shape, dtype in metadata["outputs"]]
    module["main"](*(tvm_ffi.from_dlpack(array) for array in (*fixed, *inputs, *outputs)))
    return outputs


def main() -> None:
    """Read arrays, run, write ``output0.npy`` and so on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path)
    parser.add_argument("inputs", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, default=Path())
    given = parser.parse_args()
    for i, array in enumerate(run(given.library, [np.ascontiguousarray(np.load(path)) for path in given.inputs])):
        np.save(given.output / f"output{i}.npy", array)


if __name__ == "__main__":
    main()
