"""A compiled network: call it, save it to one file, load it on another machine.

The file is a ZIP archive, stored without compression: ``metadata.json``, ``code.so``, ``weights.bin``, ``tables.bin``.
Its checksums find damage before any code is loaded.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
import threading
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.ir import InputError
from secateur.ir.graph import DTYPES, numpy_dtype

from .targets import Target, missing_features

FORMAT = 1
_MEMBERS = ("metadata.json", "code.so", "weights.bin", "tables.bin")


@dataclass(frozen=True)
class Port:
    """An input or output: its name, shape and element type (as the IR writes it)."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"'{self.name}' {self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Metadata:
    """What a library says of itself."""

    name: str
    target: Target
    threads: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    arena_words: int
    versions: Mapping[str, str]
    notes: tuple[str, ...] = ()  # for the report: nodes without a template, shapes tiled by a near record
    winograd: int = 0  # convolutions by Winograd's algorithm

    def to_json(self) -> dict[str, Any]:
        """The fields as plain data."""
        return {
            "format": FORMAT, "name": self.name, "target": self.target.to_json(), "threads": self.threads,
            "inputs": [[p.name, list(p.shape), p.dtype] for p in self.inputs],
            "outputs": [[p.name, list(p.shape), p.dtype] for p in self.outputs],
            "arena_words": self.arena_words, "versions": dict(self.versions), "notes": list(self.notes),
            "winograd": self.winograd,
        }  # fmt: skip

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Metadata:
        """The inverse of ``to_json``."""

        def ports(rows: Sequence[Any]) -> tuple[Port, ...]:
            return tuple(Port(name, tuple(shape), dtype) for name, shape, dtype in rows)

        return Metadata(
            data["name"], Target.from_json(data["target"]), data["threads"], ports(data["inputs"]),
            ports(data["outputs"]), data["arena_words"], data["versions"], tuple(data["notes"]),
            data.get("winograd", 0),
        )  # fmt: skip


class Library:
    """A network as machine code. Call it with arrays or tensors in the order of ``metadata.inputs``, or by name."""

    def __init__(
        self, metadata: Metadata, module: Any, weights: NDArray[np.float32], tables: NDArray[np.int32]
    ) -> None:
        import tvm_ffi

        self.metadata = metadata
        self._module, self._main = module, module["main"]
        self._host = {"weights.bin": _aligned(weights), "tables.bin": _aligned(tables)}
        arena = _aligned(np.zeros(metadata.arena_words, np.float32))
        self._fixed = [tvm_ffi.from_dlpack(a) for a in (arena, *self._host.values())]
        self._view = tvm_ffi.from_dlpack
        self._lock = threading.Lock()  # two calls at once would share the arena

    def __repr__(self) -> str:
        m = self.metadata
        return f"Library({m.name!r}, {m.target.name}, {', '.join(map(str, m.inputs))})"

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Run it. Returns one output alone, several as a tuple; torch tensors if the first input is one, else NumPy.

        Raises InputError for a missing or unknown input, a wrong shape or element type.
        """
        given = self._order(inputs, named)
        torch = sys.modules.get("torch")
        as_torch = torch is not None and isinstance(given[0], torch.Tensor)
        arrays = [self._check(port, x) for port, x in zip(self.metadata.inputs, given, strict=True)]
        outs = [self._empty(port, torch if as_torch else None) for port in self.metadata.outputs]
        with self._lock:
            _use_threads(self.metadata.threads)
            self._main(*self._fixed, *map(self._view, arrays), *map(self._view, outs))
        return outs[0] if len(outs) == 1 else tuple(outs)

    def _order(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> list[Any]:
        names = [p.name for p in self.metadata.inputs]
        if len(inputs) == 1 and isinstance(inputs[0], Mapping) and not named:
            return self._order((), inputs[0])
        unknown = sorted(set(named) - set(names[len(inputs) :]))
        missing = [n for n in names[len(inputs) :] if n not in named]
        if unknown or missing or len(inputs) > len(names):
            what = ", ".join(map(str, self.metadata.inputs))
            wrong = (
                f"unknown or given twice: {unknown}" if unknown else f"missing: {missing}" if missing else "too many"
            )
            raise InputError(f"library '{self.metadata.name}' takes {what}; {wrong}")
        return [*inputs, *(named[n] for n in names[len(inputs) :])]

    def _check(self, port: Port, x: Any) -> Any:
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(x, torch.Tensor):
            if x.device.type != "cpu":
                raise InputError(
                    f"input {port} is on {x.device}; this library runs on the CPU, move it there with .cpu()"
                )
            dtype, x = DTYPES.get(str(x.dtype).removeprefix("torch."), str(x.dtype)), x.detach().contiguous()
        else:
            x = np.asarray(x)
            dtype = DTYPES.get(x.dtype.name, x.dtype.name)
            if not (x.flags.c_contiguous and x.flags.writeable and x.flags.aligned):
                x = np.array(x, order="C")
        if tuple(x.shape) != port.shape:
            hint = "; build the library again for another batch or size" if len(x.shape) == len(port.shape) else ""
            raise InputError(f"input {port} was given shape {list(x.shape)}{hint}")
        if dtype != port.dtype:
            raise InputError(f"input {port} was given {dtype}; convert it to {numpy_dtype(port.dtype).name}")
        return x

    @staticmethod
    def _empty(port: Port, torch: Any) -> Any:
        dtype = numpy_dtype(port.dtype)
        return (
            np.empty(port.shape, dtype) if torch is None else torch.empty(port.shape, dtype=getattr(torch, dtype.name))
        )

    def save(self, path: str | Path) -> None:
        """Write one file with everything in it, whole or not at all. Raises InputError where that is impossible."""
        target = Path(path)
        try:
            with tempfile.TemporaryDirectory(prefix="secateur-") as folder:
                code = Path(folder) / "code.so"
                self._link(code)
                handle, name = tempfile.mkstemp(dir=target.parent, prefix=".secateur-")
                os.close(handle)
                try:
                    self._write(Path(name), code)
                    Path(name).chmod(0o644)
                    os.replace(name, target)
                finally:
                    Path(name).unlink(missing_ok=True)
        except OSError as error:
            hint = "; make room or choose another place" if error.errno == errno.ENOSPC else ""
            raise InputError(f"cannot write '{target}': {error.strerror or error}{hint}") from error

    def _link(self, code: Path) -> None:
        try:
            self._module.export_library(str(code))
        except RuntimeError as error:
            raise InputError(
                f"cannot link the library: {error}; a C compiler (gcc or clang) is needed to save"
            ) from error

    def _write(self, path: Path, code: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("metadata.json", json.dumps(self.metadata.to_json(), indent=1))
            archive.write(code, "code.so")
            for name, array in self._host.items():
                archive.writestr(name, array.tobytes())


class SavedLibrary(Library):
    """A library from a file: saving it writes the same code again."""

    def __init__(self, metadata: Metadata, module: Any, weights: NDArray[np.float32], tables: NDArray[np.int32],
                 code: bytes) -> None:  # fmt: skip
        super().__init__(metadata, module, weights, tables)
        self._code = code

    def _link(self, code: Path) -> None:
        code.write_bytes(self._code)


def load_library(path: str | Path) -> Library:
    """The library in a file. Raises InputError if it is damaged, or made for a machine that this one is not."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in _MEMBERS}
        data = json.loads(parts["metadata.json"])
        if data.get("format") != FORMAT:
            raise InputError(
                f"'{path}' has format {data.get('format')}, this version of secateur reads {FORMAT}; build it again"
            )
        metadata = Metadata.from_json(data)
    except OSError as error:
        raise InputError(f"cannot read '{path}': {error.strerror or error}") from error
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, EOFError) as error:
        raise InputError(f"'{path}' is no library of secateur, or damaged ({error}); build it again") from error
    missing = missing_features(metadata.target)
    if missing:
        raise InputError(
            f"'{path}' was built for {metadata.target.name}; this machine lacks {', '.join(missing)}. "
            "Build it again with a target that fits this machine, or with target='native' on it."
        )
    weights, tables = np.frombuffer(parts["weights.bin"], np.float32), np.frombuffer(parts["tables.bin"], np.int32)
    return SavedLibrary(metadata, _load(parts["code.so"], path), weights, tables, parts["code.so"])


def _load(code: bytes, path: str | Path) -> Any:
    import tvm

    with tempfile.TemporaryDirectory(prefix="secateur-") as folder:
        file = Path(folder) / "code.so"  # may go once it is loaded: the mapping keeps it
        try:
            file.write_bytes(code)
        except OSError as error:
            raise InputError(f"cannot unpack '{path}' into {folder}: {error.strerror or error}") from error
        try:
            return tvm.runtime.load_module(str(file))
        except (RuntimeError, OSError) as error:
            raise InputError(f"the code in '{path}' cannot be loaded here: {error}") from error


def _aligned(array: NDArray[Any]) -> NDArray[Any]:
    """A copy that begins at a cache line."""
    room = np.empty(array.nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    view = room[start : start + array.nbytes].view(array.dtype)
    view[:] = array
    return view


def _use_threads(threads: int) -> None:
    """Set TVM's pool, where the library has parallel loops; the pool belongs to the calling thread."""
    if threads > 1:
        import tvm_ffi

        count = tvm_ffi.get_global_func("runtime.NumThreads")
        if count() != threads:
            tvm_ffi.get_global_func("runtime.config_threadpool")(1, threads)
