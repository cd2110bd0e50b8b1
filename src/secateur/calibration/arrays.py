"""Reading .npy and .npz files that nobody vouches for.

What a file says of itself is checked against the bytes that are there before anything is allocated or believed: kinds
of numbers, shapes, sizes, checksums. Nothing in it is executed: arrays of objects are
pickles, and refused.
"""

from __future__ import annotations

import errno
import math
import os
import tokenize
import warnings
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from secateur.ir import Array, InputError

HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
KINDS = "biufcSUV"  # what may be in a file; V is what bfloat16 is stored as, and refused where no input takes it
LONGEST = 200  # characters of a message that may quote the file
STEP = 1 << 22  # bytes that are read at a time
AMPLE = 1 << 28  # bytes that any file may unpack to
RATIO = 100  # and how many times its own size beyond that: zeros alone are packed tighter, and say nothing


@dataclass(frozen=True)
class ArrayFile:
    """An .npy or .npz file: the names of its arrays (an .npy has one, called ``x``), each read when it is asked for."""

    path: Path
    option: str
    names: tuple[str, ...]
    packed: bool

    @staticmethod
    def open(path: Path, option: str) -> ArrayFile:
        """Look at what the file holds; ``option`` is what the user gave it to. Raises InputError."""
        if not path.exists():
            raise InputError(f"{option}: there is no '{path}'; check the path")
        if not path.is_file():
            raise InputError(f"{option}: '{path}' is not a file; name a .npy or .npz file")
        try:
            with path.open("rb") as file:
                head = file.read(6)
            if head == npy.MAGIC_PREFIX:
                return ArrayFile(path, option, ("x",), False)
            if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
                with zipfile.ZipFile(path) as archive:
                    return ArrayFile(path, option, _members(archive, path.stat().st_size), True)
        except Exception as error:  # the readers of both formats raise whatever they stumble over
            raise InputError(_unreadable(path, option, error)) from error
        raise InputError(_unreadable(path, option, "it begins like neither of the two"))

    def read(self, name: str) -> Array:
        """The array of this name. Raises InputError."""
        try:
            if not self.packed:
                with self.path.open("rb") as file:
                    return _array(file, os.fstat(file.fileno()).st_size)
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as file:
                return _array(file, archive.getinfo(f"{name}.npy").file_size)
        except Exception as error:  # the readers of both formats raise whatever they stumble over
            where = f"array {name!r}: " if self.packed else ""
            raise InputError(_unreadable(self.path, self.option, f"{where}{_why(error)}")) from error

    def read_all(self, names: Collection[str] | None = None) -> dict[str, Array]:
        """These arrays by name, or all. Raises InputError."""
        return {name: self.read(name) for name in (self.names if names is None else names)}


def _members(archive: zipfile.ZipFile, size: int) -> tuple[str, ...]:
    """Names of the arrays in an archive of ``size`` bytes. Raises ValueError for what no array file holds."""
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    twice = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else ()
    if twice:
        raise ValueError(f"{min(twice)!r} is in it twice")
    others = [name for name in names if not name.endswith(".npy")]
    if others:
        raise ValueError(f"it holds {others[0]!r}, which is not an array")
    if not names:
        raise ValueError("it holds no array")
    if any(entry.flag_bits & 1 for entry in entries):
        raise ValueError("it is encrypted")
    total = sum(entry.file_size for entry in entries)
    if total > AMPLE + RATIO * size:
        raise ValueError(
            f"its {size:,} bytes claim to unpack to {total:,}, more than numbers that differ are packed to"
        )
    return tuple(name.removesuffix(".npy") for name in names)


def _array(file: IO[bytes], size: int) -> Array:
    """The array in a stream of ``size`` bytes. Raises ValueError where they are not what its header says."""
    version = npy.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"version {version[0]}.{version[1]} of the format is not known, or holds records")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that Python 2 wrote
        shape, fortran, dtype = HEADERS[version](file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not read; save numbers alone")
    if dtype.kind not in KINDS or dtype.names is not None or not dtype.itemsize:
        raise ValueError(f"it holds {dtype}, which are not numbers")
    if any(isinstance(n, bool) or n < 0 for n in shape) or len(shape) > 32:
        raise ValueError(f"its shape is said to be {shape}")
    declared, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if declared != there:
        raise ValueError(f"{list(shape)} {dtype} are {declared:,} bytes, {there:,} are there: it is damaged or cut off")
    raw = np.empty(declared, np.uint8)  # pages are not taken before bytes come
    seen = 0
    while seen < declared:
        part = file.read(min(STEP, declared - seen))
        if not part:
            raise ValueError(f"it ends after {seen:,} of {declared:,} bytes: it is cut off")
        raw[seen : seen + len(part)] = np.frombuffer(part, np.uint8)
        seen += len(part)
    if file.read(1):  # the end of an archive's member, where its checksum is compared
        raise ValueError(f"more than the {declared:,} bytes of its shape are there")
    array: Array = raw.view(dtype).reshape(shape, order="F" if fortran else "C")
    return array


def _unreadable(path: Path, option: str, error: Any) -> str:
    return f"{option} '{path}' cannot be read as NumPy arrays: {_why(error)}"


def _why(error: Any) -> str:
    if isinstance(error, KeyError):
        return f"it names {error} and does not hold it"
    if isinstance(error, MemoryError):
        return "there is not enough memory for it"
    if isinstance(error, SyntaxError):
        return "its header is damaged"
    if isinstance(error, OSError) and error.errno == errno.EINVAL:
        return "its table of contents points outside of it"
    if isinstance(error, tokenize.TokenError):
        return "its header is damaged"
    said = "".join(c if c.isprintable() else "?" for c in str(error).partition("\n")[0][:LONGEST])
    return said or type(error).__name__
