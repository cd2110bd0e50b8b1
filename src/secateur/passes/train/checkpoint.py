"""Training that was stopped, as a file: whole or not at all, checked before it is believed, and never unpickled."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import cast

import torch

from secateur.ir import InputError
from secateur.ir.files import write_whole
from secateur.passes.sweep.parallel import world

from .hook import State
from .parallel import shared

MAGIC = b"secateur checkpoint 1\n"
DIGEST = 64  # hexadecimal digits of the SHA-256 of what follows


def save_checkpoint(path: str | Path, state: State) -> None:
    """Write tensors, numbers, text, lists and dicts; the file that stands there is replaced at the end.

    Raises InputError where it cannot be written.
    """
    content = io.BytesIO()
    torch.save(state, content)
    data = content.getvalue()
    digest = hashlib.sha256(data).hexdigest().encode()
    write_whole(path, lambda temporary: _fill(temporary, MAGIC + digest + b"\n" + data))


def _fill(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def load_checkpoint(path: str | Path) -> State:
    """What was written. Raises InputError for a file that cannot be read, is damaged or is not a checkpoint."""
    try:
        return decoded(Path(path).read_bytes(), f"checkpoint '{path}'")
    except OSError as error:
        raise InputError(f"checkpoint '{path}' cannot be read: {error.strerror or error}; name another") from error


def resumed(path: str | Path) -> State | None:
    """What the file holds, in all processes, of which the first reads it; None where there is none.

    Raises InputError as ``decoded``.
    """
    there = world()[0] == 0 and Path(path).is_file()
    data = shared(Path(path).read_bytes() if there else None)
    return None if data is None else decoded(data, f"checkpoint '{path}'")


def decoded(data: bytes, what: str) -> State:
    """The state in the bytes of a file. Raises InputError; nothing in them is executed."""
    start = len(MAGIC) + DIGEST + 1
    if not data.startswith(MAGIC) or len(data) <= start:
        raise InputError(f"{what} is not a checkpoint of secateur, or was cut off; delete it to begin anew")
    digest, content = data[len(MAGIC) : start - 1], data[start:]
    if hashlib.sha256(content).hexdigest().encode() != digest:
        raise InputError(f"{what} is damaged: its bytes are not those that were written; delete it to begin anew")
    try:
        found = torch.load(io.BytesIO(content), weights_only=True)
    except Exception as error:  # torch's reader raises whatever it stumbles over
        said = str(error).partition("\n")[0]
        raise InputError(f"{what} holds more than tensors and numbers, or is not an archive: {said}") from error
    if not isinstance(found, dict):
        raise InputError(f"{what} holds a {type(found).__name__}, not the state of training; delete it to begin anew")
    return cast(State, found)
