"""Writing results: whole or not at all, and a clear message where a place cannot be written to."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from secateur.ir import InputError

WHY = {
    errno.ENOSPC: "the disk is full; make room or choose another place",
    errno.EDQUOT: "your disk quota is used up; make room or choose another place",
    errno.EACCES: "you may not write there; choose another folder",
    errno.EPERM: "you may not write there; choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOENT: "the folder does not exist; create it first",
    errno.ENOTDIR: "a part of the path is a file and no folder; correct the path",
    errno.EISDIR: "it is a folder; name a file in it",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}


def write_whole(path: str | Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file beside ``path`` and rename it at the end; see ``write_all``."""
    write_all([(path, write)])


def write_all(jobs: Sequence[tuple[str | Path, Callable[[Path], None]]]) -> None:
    """Write several files: all to temporary names first, then renamed together.

    Raises InputError where that is impossible; temporary files are gone then, and what stood there stands.
    """
    ready: list[tuple[Path, Path]] = []
    target = Path()
    try:
        for path, write in jobs:
            target = Path(path)
            temporary = _temporary(target)
            ready.append((temporary, target))
            write(temporary)
            temporary.chmod(_mode(target))
        for temporary, target in ready:
            os.replace(temporary, target)
    except OSError as error:
        why = WHY.get(error.errno or 0, error.strerror or str(error))
        raise InputError(f"cannot write '{target}': {why}") from error
    finally:
        for temporary, _ in ready:
            temporary.unlink(missing_ok=True)


def _temporary(target: Path) -> Path:
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a directory")
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".secateur-", suffix=target.suffix)
    os.close(handle)
    return Path(name)


def _mode(target: Path) -> int:
    """The permissions the file has, or that a new one would get."""
    return target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask()


def check_writable(path: str | Path) -> None:
    """Raise InputError now where ``write_whole`` would later, as far as can be told without writing."""
    target = Path(path)
    parent = target.parent
    if not parent.is_dir():
        kind = errno.ENOTDIR if parent.exists() else errno.ENOENT
    elif target.is_dir():
        kind = errno.EISDIR
    elif not os.access(parent, os.W_OK | os.X_OK):
        kind = errno.EACCES
    else:
        return
    raise InputError(f"cannot write '{target}': {WHY[kind]}")


def same_file(one: str | Path, other: str | Path) -> bool:
    """Do the two paths name one file, through links as well?"""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)


def _umask() -> int:
    """The process's mask; it can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
