"""A network compiled for a GPU: called, saved and loaded as any library is.

Its file is a ZIP archive like that of other libraries, with the kernels' text (``kernels.cl``, or ``kernels.cu`` and
the ``kernels.cubin`` of it) and ``launches.json`` in the place of ``code.so``. It is loaded on a device when it is
first called.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from secateur.ir import InputError

from .archive import write_archive
from .devices import cuda, opencl
from .devices.code import Code, Session, read
from .library import Library, check_machine, read_array, read_metadata
from .library import load_library as load_machine_code
from .metadata import Metadata

LAUNCHES, BINARY = "launches.json", "kernels.cubin"


class GpuLibrary(Library):
    """A network as kernels for a GPU. Inputs and outputs lie in the memory of the processor."""

    def __init__(self, metadata: Metadata, code: Code) -> None:
        """Nothing is asked of a device yet."""
        self.metadata, self.code = metadata, code
        self._turn = self._new_turn()

    @cached_property
    def session(self) -> Session:
        """The code on a device. Raises InputError where there is none that fits."""
        target = self.metadata.target
        check_machine(target, f"the library of '{self.metadata.name}'")
        return cuda.CudaSession(self.code, target.mcpu) if target.triple == "cuda" else opencl.OpenClSession(self.code)

    def _run(self, arrays: Sequence[Any], torch: ModuleType | None) -> list[Any]:
        outs = [self._empty(port, torch) for port in self.metadata.outputs]
        with self._lock():
            self.session.run([np.asarray(a) for a in arrays], [np.asarray(out) for out in outs])
        return outs

    def write(self, path: Path) -> None:
        """Fill a file that may end half-written; ``save`` and ``files.write_all`` call it. Raises OSError."""
        head = json.dumps(self.metadata.to_json(), indent=1)
        binary = [(BINARY, self.code.binary)] if self.code.binary else []
        constants = [("weights.bin", self.code.weights), ("tables.bin", self.code.tables)]
        texts = [("metadata.json", head), (text_name(self.metadata), self.code.source), (LAUNCHES, self.code.plan())]
        write_archive(path, [*texts, *binary, *constants])


def text_name(metadata: Metadata) -> str:
    """The member that holds the kernels' text."""
    return "kernels.cu" if metadata.target.triple == "cuda" else "kernels.cl"


def load_library(path: str | Path) -> Library:
    """The library in a file, of a processor or of a GPU. Raises InputError if it is damaged, or does not run here."""
    try:
        with zipfile.ZipFile(path) as archive:
            if LAUNCHES not in archive.namelist():
                return load_machine_code(path)
            metadata = read_metadata(archive, path)
            arrays = read_array(archive, "weights.bin", np.float32), read_array(archive, "tables.bin", np.int32)
            binary = archive.read(BINARY) if metadata.target.triple == "cuda" else b""
            source = archive.read(text_name(metadata)).decode()
            return GpuLibrary(metadata, read(source, binary, archive.read(LAUNCHES).decode(), *arrays))
    except OSError as error:
        raise InputError(f"cannot read '{path}': {error.strerror or error}") from error
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, EOFError, NotImplementedError) as error:
        raise InputError(f"'{path}' is not a library of secateur, or damaged ({error}); build it again") from error
