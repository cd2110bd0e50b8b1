"""Writing results: whole or not at all, and where the user said.

A file is replaced by a new one that was written next to it. What is not a file, a device or a pipe, cannot be replaced
without harm and is written through; a symbolic link stays, and the file it leads to is replaced. Every output of
secateur passes here.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from .errors import InputError

Job = tuple[str | Path, Callable[[Path], None]]  # where a result goes, and what fills the temporary file it is given

LINKS = 40  # as many as Linux follows
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
    errno.ELOOP: "its symbolic links lead in a circle; correct them",
    errno.ENXIO: "nothing can be written to it as to a file; choose another place",
}


def write_whole(path: str | Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file that takes the place of ``path`` at the end; see ``write_all``."""
    write_all([(path, write)])


def write_text(path: str | Path, text: str) -> None:
    """Write a text in UTF-8; see ``write_all``."""
    write_all([text_job(path, text)])


def text_job(path: str | Path, text: str) -> Job:
    """The job for ``write_all`` that writes this text in UTF-8."""
    return path, lambda temporary: _fill(temporary, text)


def late_job(path: str | Path, text: Callable[[], str]) -> Job:
    """The same for a text that is known when what stands before it has been written."""
    return path, lambda temporary: _fill(temporary, text())


def _fill(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def write_all(jobs: Sequence[Job]) -> None:
    """Write several results: all to temporary files first, then to where they belong.

    New files get the permissions that the process's mask leaves, others keep theirs. Raises InputError where a place
    cannot be written to; temporary files are gone then, and what stood there stands.
    """
    ready: list[tuple[Path, Path]] = []
    named = Path()
    with ExitStack() as scratch:
        try:
            for path, write in jobs:
                named = Path(path)
                place = destination(named)
                temporary = _temporary(place)
                scratch.callback(temporary.unlink, missing_ok=True)
                write(temporary)
                _settle(temporary, place)
                ready.append((temporary, place))
            ready.sort(key=lambda pair: not is_special(pair[1]))  # what cannot be taken back comes first
            for temporary, place in ready:
                named = place
                (_pour if is_special(place) else os.replace)(temporary, place)
        except OSError as error:
            why = WHY.get(error.errno or 0, error.strerror or str(error))
            raise InputError(f"cannot write '{named}': {why}") from error


def destination(path: Path) -> Path:
    """The place that a path leads to through symbolic links, whether something is there or not. Raises OSError.

    A link below /proc is the place itself: it is an open file of a process, and its text need not be a path.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a directory")
    for _ in range(LINKS):
        place = Path(os.path.realpath(path.parent), path.name)
        if _below_proc(place) or not place.is_symlink():
            return place
        path = place.parent / os.readlink(place)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def is_special(place: Path) -> bool:
    """Must this place be written through, since it is a device, a pipe, or an open file of a process?"""
    try:
        mode = place.stat().st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(mode) or _below_proc(place)


def _below_proc(place: Path) -> bool:
    return place.parts[1:2] == ("proc",)


def _temporary(place: Path) -> Path:
    """An empty file, next to what it will replace; nobody else may read it where nobody else may read that."""
    special = is_special(place)
    folder = Path(tempfile.gettempdir()) if special else place.parent
    path = folder / f".secateur-{secrets.token_hex(8)}{'' if special else place.suffix}"
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_CLOEXEC", 0)
    os.close(os.open(path, flags, 0o600 if place.exists() else 0o666))
    return path


def _settle(temporary: Path, place: Path) -> None:
    """Bring the content to the disk, so that after a crash there is the old file or the new one."""
    if is_special(place):
        return
    if place.exists():
        temporary.chmod(place.stat().st_mode & 0o777)
    handle = os.open(temporary, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _pour(temporary: Path, place: Path) -> None:
    with temporary.open("rb") as content, _opened(place) as stream:
        shutil.copyfileobj(content, stream)


def _opened(place: Path) -> BinaryIO:
    """The device or pipe to write to. An open file of this process goes on where it stands."""
    if place.parts[2:3] == (str(os.getpid()),) and place.parent.name == "fd" and place.name.isdigit():
        return os.fdopen(os.dup(int(place.name)), "wb")
    return os.fdopen(os.open(place, os.O_WRONLY | os.O_NOCTTY), "wb")


def check_writable(path: str | Path) -> None:
    """Raise InputError now where ``write_whole`` would later, as far as can be told without writing."""
    kind = _obstacle(Path(path))
    if kind is not None:
        raise InputError(f"cannot write '{path}': {WHY.get(kind, os.strerror(kind))}")


def _obstacle(path: Path) -> int | None:
    """The errno that writing there would end in, as far as can be told."""
    try:
        place = destination(path)
        if is_special(place):
            return None if os.access(place, os.W_OK) else errno.EACCES
    except OSError as error:
        return error.errno or errno.EIO
    parent = place.parent
    if not parent.is_dir():
        return errno.ENOTDIR if parent.exists() else errno.ENOENT
    return None if os.access(parent, os.W_OK | os.X_OK) else errno.EACCES


def same_file(one: str | Path, other: str | Path) -> bool:
    """Do the two paths name one file, through links as well? Devices and pipes are no files."""
    try:
        return os.path.samefile(one, other) and stat.S_ISREG(os.stat(one).st_mode)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)
