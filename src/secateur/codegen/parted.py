"""A library in parts: machine code for what has some, and ONNX Runtime for the rest, one after the other.

The file is a ZIP archive like any library's, with ``parts.json`` (which values each part reads and writes, and what the
runtime computes of it), a library for each compiled part and a model for each of the runtime's.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from secateur.ir import InputError
from secateur.ir.graph import numpy_dtype

from .archive import write_archive
from .gpu_library import load_library as load_one
from .library import Library, check_machine
from .metadata import FORMAT, Metadata

PARTS = "parts.json"
RUNTIME = "onnxruntime"  # the family under which calls of the runtime are counted
BFLOAT16 = "bfloat16"
AnyArray = NDArray[Any]


class Runs(Protocol):
    """What computes a part: arrays in, arrays out, in order."""

    def __call__(self, *inputs: AnyArray) -> Any: ...


class RuntimeModel:
    """A model that ONNX Runtime computes. The runtime is looked for when it is first called.

    It takes and gives float32 in the place of bfloat16, which the runtime's Python does not know.
    """

    def __init__(self, data: bytes, threads: int) -> None:
        self.data, self.threads = data, threads

    @cached_property
    def _session(self) -> Any:
        try:
            import onnxruntime
        except ImportError as error:
            raise InputError(
                "this library has parts that ONNX Runtime computes, which is not installed: pip install onnxruntime"
            ) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, self.threads
        return onnxruntime.InferenceSession(self.data, options, providers=["CPUExecutionProvider"])

    def __call__(self, *inputs: AnyArray) -> tuple[AnyArray, ...]:
        names = [i.name for i in self._session.get_inputs()]
        given = (x.astype(np.float32) if x.dtype.name == BFLOAT16 else x for x in inputs)
        try:
            return tuple(self._session.run(None, dict(zip(names, given, strict=True))))
        except Exception as error:  # the runtime's types share no base of their own
            raise InputError(
                f"ONNX Runtime cannot compute its part of this library: {str(error).strip().splitlines()[0]}"
            ) from error


@dataclass(frozen=True, eq=False)
class Part:
    """A library or a model, and the names of what it reads and writes. ``what`` names what the runtime computes."""

    run: Library | RuntimeModel
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    what: tuple[str, ...] = ()


class PartedLibrary(Library):
    """A network of which ONNX Runtime computes what has no code. It is called, saved and loaded as any library is."""

    def __init__(self, metadata: Metadata, parts: Sequence[Part], names: Sequence[Sequence[str]],
                 constants: Mapping[str, AnyArray]) -> None:  # fmt: skip
        """``names``: what parts call the inputs, and the outputs. ``constants``: outputs that no part makes."""
        self.metadata = metadata
        self.parts = tuple(parts)
        self._inputs, self._outputs = (tuple(n) for n in names)
        self._constants = dict(constants)

    def _run(self, arrays: Sequence[Any], torch: ModuleType | None) -> list[Any]:
        known = self.values(arrays)
        outs = [
            np.asarray(known[name], numpy_dtype(port.dtype) if port.dtype == "bf16" else None, order="C")
            for name, port in zip(self._outputs, self.metadata.outputs, strict=True)
        ]
        return outs if torch is None else [_tensor(torch, out) for out in outs]

    def values(self, arrays: Sequence[Any]) -> dict[str, AnyArray]:
        """All that is known after a run on these inputs, by name: those, the outputs, and what passes between parts."""
        check_machine(self.metadata.target, f"the library of '{self.metadata.name}'")
        known: dict[str, AnyArray] = dict(self._constants)
        known.update(zip(self._inputs, map(_array, arrays), strict=True))
        for part in self.parts:
            found = part.run(*(known[name] for name in part.reads))
            known.update(zip(part.writes, found if isinstance(found, tuple) else (found,), strict=True))
        return known

    def write(self, path: Path) -> None:
        """Fill a file that may end half-written; ``save`` and ``files.write_all`` call it. Raises OSError."""
        rows = [{"reads": p.reads, "writes": p.writes, "what": p.what} for p in self.parts]
        table = {"inputs": self._inputs, "outputs": self._outputs, "parts": rows}
        head = json.dumps(self.metadata.to_json(), indent=1)
        members: list[tuple[str, str | bytes | Path]] = [("metadata.json", head), (PARTS, json.dumps(table, indent=1))]
        with tempfile.TemporaryDirectory() as folder:
            for i, part in enumerate(self.parts):
                if isinstance(part.run, RuntimeModel):
                    members.append((f"part{i}.onnx", part.run.data))
                else:
                    one = Path(folder) / f"part{i}.so"
                    part.run.write(one)
                    members.append((one.name, one))
            for name, array in self._constants.items():
                stream = io.BytesIO()
                np.save(stream, array)
                members.append((f"constants/{self._outputs.index(name)}.npy", stream.getvalue()))
            write_archive(path, members)


def _array(given: Any) -> AnyArray:
    """An input as an array over the same memory."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(given, torch.Tensor) and given.dtype == torch.bfloat16:
        return np.asarray(given.view(torch.int16)).view(numpy_dtype("bf16"))
    return np.asarray(given)


def _tensor(torch: ModuleType, out: AnyArray) -> Any:
    if out.dtype.name == BFLOAT16:
        return torch.from_numpy(out.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(out)


def load_library(path: str | Path) -> Library:
    """The library in a file. Raises InputError if it is damaged, or made for a machine that this one is not."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _load(archive) if PARTS in archive.namelist() else load_one(path)
    except OSError as error:
        raise InputError(f"cannot read '{path}': {error.strerror or error}") from error
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, EOFError, NotImplementedError) as error:
        raise InputError(f"'{path}' is not a library of secateur, or damaged ({error}); build it again") from error


def _load(archive: zipfile.ZipFile) -> Library:
    data = json.loads(archive.read("metadata.json"))
    if data.get("format") != FORMAT:
        raise InputError(
            f"'{archive.filename}' has format {data.get('format')}, this version of secateur reads {FORMAT}; "
            "build it again"
        )
    metadata = Metadata.from_json(data)
    check_machine(metadata.target, f"'{archive.filename}'")
    table = json.loads(archive.read(PARTS))
    members = set(archive.namelist())
    parts = []
    with tempfile.TemporaryDirectory(prefix="secateur-") as folder:
        for i, row in enumerate(table["parts"]):
            run: Library | RuntimeModel
            if f"part{i}.onnx" in members:
                run = RuntimeModel(archive.read(f"part{i}.onnx"), metadata.threads)
            else:
                run = load_one(archive.extract(f"part{i}.so", folder))
            parts.append(Part(run, tuple(row["reads"]), tuple(row["writes"]), tuple(row["what"])))
    outputs = tuple(table["outputs"])
    constants = {
        name: np.load(io.BytesIO(archive.read(f"constants/{i}.npy")))
        for i, name in enumerate(outputs) if f"constants/{i}.npy" in members
    }  # fmt: skip
    return PartedLibrary(metadata, parts, (tuple(table["inputs"]), outputs), constants)
