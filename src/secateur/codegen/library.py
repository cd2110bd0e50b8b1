"""A compiled network: call it, save it to one file, load it on another machine.

The file is a ZIP archive, stored without compression: ``metadata.json``, ``code.so``, ``weights.bin``, ``tables.bin``.
Its checksums find damage before any code is loaded. Weights are read straight to where they are used from, once. They
are not mapped: a mapped file lies in small pages, and one that is overwritten takes the process with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import threading
import weakref
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from secateur.ir import InputError
from secateur.ir.files import write_whole
from secateur.ir.graph import DTYPES, numpy_dtype

from .archive import write_archive
from .metadata import FORMAT, Metadata, Port
from .runtime import ffi, use_threads
from .targets import Target, at_home, missing_features, target_system

if TYPE_CHECKING:
    import tvm_ffi

Floats = NDArray[np.float32]
UNKNOWN = "unknown"  # a version that nobody could tell
_CHUNK = 1 << 20
_LINE = 64  # bytes of a cache line


class Library:
    """A network as machine code. Call it with arrays or tensors in the order of ``metadata.inputs``, or by name."""

    def __init__(self, metadata: Metadata, module: tvm_ffi.Module, weights: Floats, tables: NDArray[np.int32],
                 code: Callable[[Path], None]) -> None:  # fmt: skip
        """``weights`` and ``tables`` begin at a cache line; ``code`` writes the machine code to a file."""
        self.metadata = metadata
        self._module, self._code = module, code
        self._host = {"weights.bin": weights, "tables.bin": tables}
        self._view = ffi().from_dlpack
        self._fixed = [self._view(a) for a in (aligned(metadata.arena_words, np.float32), weights, tables)]
        self._turn = self._new_turn()

    @cached_property
    def _main(self) -> Callable[..., None]:
        """The entry of the code. Raises InputError where this machine cannot run it, though it can save it."""
        check_machine(self.metadata.target, f"the library of '{self.metadata.name}'")
        return self._module["main"]

    def __repr__(self) -> str:
        m = self.metadata
        return f"Library({m.name!r}, {m.target.name}, {', '.join(map(str, m.inputs))})"

    def __call__(self, /, *inputs: Any, **named: Any) -> Any:
        """Run it. Returns one output alone, several as a tuple; torch tensors if the first input is one, else NumPy.

        Raises InputError for a missing or unknown input, a wrong shape or element type.
        """
        given = self._order(inputs, named)
        torch = sys.modules.get("torch")
        as_torch = torch is not None and isinstance(given[0], torch.Tensor)
        arrays = [self._check(port, x) for port, x in zip(self.metadata.inputs, given, strict=True)]
        outs = self._run(arrays, torch if as_torch else None)
        return outs[0] if len(outs) == 1 else tuple(outs)

    def _run(self, arrays: Sequence[Any], torch: ModuleType | None) -> list[Any]:
        """The outputs in order, torch tensors where ``torch`` is given. Raises InputError."""
        main = self._main
        try:
            outs = [self._empty(port, torch) for port in self.metadata.outputs]
            with self._lock():
                use_threads(self.metadata.threads)
                main(*self._fixed, *map(self._view, arrays), *map(self._view, outs))
        except (ValueError, TypeError, MemoryError) as error:  # of the code's own check of what it is given
            why = str(error).partition(" when calling")[0]
            raise InputError(
                f"library '{self.metadata.name}' does not fit its own code: {why}; build it again"
            ) from error
        return outs

    @staticmethod
    def _new_turn() -> tuple[int, threading.Lock]:
        """This process, and a lock: two calls at once would share the arena."""
        return os.getpid(), threading.Lock()

    def _lock(self) -> threading.Lock:
        """That of this process: who is forked while another thread runs the library would find it held for ever."""
        if self._turn[0] != os.getpid():
            self._turn = self._new_turn()
        return self._turn[1]

    def _order(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> list[Any]:
        if not named and 0 < len(inputs) == len(self.metadata.inputs) and not isinstance(inputs[0], Mapping):
            return list(inputs)
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
            if x.layout is not torch.strided:
                raise InputError(f"input {port} was given a sparse tensor; pass it as .to_dense()")
            dtype = DTYPES.get(str(x.dtype).removeprefix("torch."), str(x.dtype))
            x = x.detach().contiguous().resolve_neg()  # a view may negate what lies in memory
        else:
            exchanged = hasattr(x, "__dlpack__") and not hasattr(x, "__array__")
            x = np.from_dlpack(x) if exchanged else np.asarray(x)
            x = x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))
            right = x.dtype == numpy_dtype(port.dtype)  # its name takes as long to find as a small kernel to run
            dtype = port.dtype if right else DTYPES.get(x.dtype.name, x.dtype.name)
            if not (x.flags.c_contiguous and x.flags.writeable and x.flags.aligned):
                x = np.array(x, order="C")
        if tuple(x.shape) != port.shape:
            raise InputError(f"input {port} was given shape {list(x.shape)}; {_remedy(port, tuple(x.shape))}")
        if dtype != port.dtype:
            raise InputError(f"input {port} was given {dtype}; convert it to {numpy_dtype(port.dtype).name}")
        return x

    @staticmethod
    def _empty(port: Port, torch: ModuleType | None) -> Any:
        dtype = numpy_dtype(port.dtype)
        return (
            np.empty(port.shape, dtype) if torch is None else torch.empty(port.shape, dtype=getattr(torch, dtype.name))
        )

    def save(self, path: str | Path) -> None:
        """Write one file with everything in it, whole or not at all. Raises InputError where that is impossible."""
        write_whole(path, self.write)

    def write(self, path: Path) -> None:
        """Fill a file that may end half-written; ``save`` and ``files.write_all`` call it. Raises OSError."""
        with tempfile.TemporaryDirectory(prefix="secateur-") as folder:
            code = Path(folder) / "code.so"
            self._code(code)
            self._write(path, code)

    def _write(self, path: Path, code: Path) -> None:
        head = json.dumps(self.metadata.to_json(), indent=1)
        write_archive(path, [("metadata.json", head), ("code.so", code), *self._host.items()])


def _remedy(port: Port, shape: tuple[int, ...]) -> str:
    """What to do about an input of another shape: a library is made for one."""
    if len(shape) != len(port.shape):
        return f"give it {len(port.shape)} dimensions"
    if shape[1:] == port.shape[1:]:
        return f"build the library again for this batch, with batch={shape[0]} or --batch {shape[0]}"
    return "build the library again from a model of this size"


def built(
    metadata: Metadata, module: tvm_ffi.Module, weights: NDArray[np.float32], tables: NDArray[np.int32]
) -> Library:
    """A library from what the compiler gave; its constants are copied to a cache line each."""
    places = [aligned(array.size, array.dtype) for array in (weights, tables)]
    for place, array in zip(places, (weights, tables), strict=True):
        place[:] = array
    return Library(metadata, module, places[0], places[1], partial(_link, module, metadata.target))


def linker(target: Target) -> str | None:
    """The program that makes a shared library for a target; None where this machine's own compiler does, or for a GPU.

    Raises InputError where it is another machine's and missing, with the package to install.
    """
    if target.gpu or at_home(target):
        return None
    if target_system(target) == "darwin":
        raise InputError(f"cannot link the library for {target.name} here: that takes macOS; build it there")
    name = f"{target.triple}-gcc"
    if shutil.which(name) is None:
        raise InputError(
            f"cannot link the library for {target.name}: there is no {name}; install that cross compiler "
            f"(Debian: gcc-{target.triple.replace('_', '-')})"
        )
    return name


def _link(module: tvm_ffi.Module, target: Target, code: Path) -> None:
    """Make a shared library of compiled code, with the compiler of the target's own machine if it is another one."""
    options, name = {}, linker(target)
    if name is not None:
        from tvm.support.cc import cross_compiler

        options = {"fcompile": cross_compiler(name)}
    try:
        module.export_library(str(code), **options)
    except RuntimeError as error:
        raise InputError(
            f"cannot link the library: {error}; saving needs a C compiler (gcc or clang) and room in "
            f"{tempfile.gettempdir()}"
        ) from error


def load_library(path: str | Path) -> Library:
    """The library in a file. Raises InputError if it is damaged, or made for a machine that this one is not."""
    try:
        with zipfile.ZipFile(path) as archive:
            metadata = read_metadata(archive, path)
            check_versions(metadata, f"'{path}'")
            weights, tables = (
                read_array(archive, "weights.bin", np.float32),
                read_array(archive, "tables.bin", np.int32),
            )
            module, code = _unpack(archive, path)
    except OSError as error:
        raise InputError(f"cannot read '{path}': {error.strerror or error}") from error
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, EOFError, NotImplementedError) as error:
        raise InputError(f"'{path}' is not a library of secateur, or damaged ({error}); build it again") from error
    try:
        library = Library(metadata, module, weights, tables, partial(_copy, code))
    except MemoryError as error:
        os.close(code)
        raise InputError(f"'{path}' needs {metadata.arena_words * 4} bytes to run, more than there are") from error
    weakref.finalize(library, os.close, code)
    return library


def read_metadata(archive: zipfile.ZipFile, path: str | Path) -> Metadata:
    """What the file says of itself. Raises InputError where it is of another format, or does not run here."""
    data = json.loads(archive.read("metadata.json"))
    if data.get("format") != FORMAT:
        raise InputError(
            f"'{path}' has format {data.get('format')}, this version of secateur reads {FORMAT}; build it again"
        )
    metadata = Metadata.from_json(data)
    check_machine(metadata.target, f"'{path}'")
    return metadata


def check_versions(metadata: Metadata, what: str) -> None:
    """Raise InputError where TVM's runtime here is of another release than the one that the code was made for."""
    for name in ("apache-tvm", "apache-tvm-ffi"):
        made, here = metadata.versions.get(name, UNKNOWN), _version(name)
        if UNKNOWN not in (made, here) and made.split(".")[:2] != here.split(".")[:2]:
            raise InputError(
                f"{what} was built with {name} {made}, and here is {here}, whose runtime may not fit: pip install "
                f"{name}=={made}, or build it again"
            )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return UNKNOWN


def check_machine(target: Target, what: str) -> None:
    """Raise InputError where this machine cannot run code for a target: trying would end the process."""
    missing = missing_features(target)
    if missing:
        raise InputError(
            f"{what} was built for {target.name}; this machine lacks {', '.join(missing)}. "
            "Build it again with a target that fits this machine, or with target='native' on it."
        )


def read_array(archive: zipfile.ZipFile, name: str, dtype: DTypeLike) -> NDArray[Any]:
    """A member, read to where it stays; at its end its checksum is compared."""
    size, left = divmod(archive.getinfo(name).file_size, np.dtype(dtype).itemsize)
    if left:
        raise ValueError(f"{name} ends within a number")
    array = aligned(size, dtype)
    view = array.data.cast("B")
    with archive.open(name) as member:
        for start in range(0, len(view) + 1, _CHUNK):  # in pieces, as each is copied on its way
            piece = member.read(_CHUNK)
            view[start : start + len(piece)] = piece
    return array


def _unpack(archive: zipfile.ZipFile, path: str | Path) -> tuple[tvm_ffi.Module, int]:
    """The machine code, loaded, and a handle of its file: it has to be one, and needs no name once it is loaded."""
    with tempfile.TemporaryDirectory(prefix="secateur-") as folder, contextlib.ExitStack() as undo:
        place = Path(folder) / "code.so"
        handle = os.open(place, os.O_RDWR | os.O_CREAT, 0o700)
        undo.callback(os.close, handle)
        try:
            with archive.open("code.so") as member, open(handle, "wb", closefd=False) as file:
                shutil.copyfileobj(member, file)
            module = ffi().load_module(str(place), keep_module_alive=False)
        except (RuntimeError, OSError) as error:
            why = getattr(error, "strerror", None) or error
            raise InputError(f"the code in '{path}' cannot be unpacked to {folder} and loaded: {why}") from error
        undo.pop_all()
        return module, handle


def _copy(handle: int, code: Path) -> None:
    code.write_bytes(os.pread(handle, os.fstat(handle).st_size, 0))


def aligned(size: int, dtype: DTypeLike) -> NDArray[Any]:
    """Zeros that begin at a cache line."""
    nbytes = size * np.dtype(dtype).itemsize
    room = np.zeros(nbytes + _LINE, np.uint8)
    start = -room.ctypes.data % _LINE
    return room[start : start + nbytes].view(dtype)
