"""The file of a library: a ZIP archive without compression, whose bytes depend on what is in it alone.

``zipfile`` writes down when each member was made. Here all say the same day, so that the same weights, records and seed
give the same file.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

DAY = (1980, 1, 1, 0, 0, 0)  # the first that a ZIP archive can name
READABLE = 0o644 << 16
_LARGE = 1 << 31  # bytes from which a member needs the format's longer fields


class Buffer(Protocol):
    """An array that can say its bytes."""

    @property
    def nbytes(self) -> int: ...
    @property
    def data(self) -> memoryview: ...


def write_archive(path: Path, members: Iterable[tuple[str, str | bytes | Path | Buffer]]) -> None:
    """Write an archive of these members in order: texts, bytes, the contents of files, arrays. Raises OSError."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name, DAY)
            info.external_attr = READABLE
            if isinstance(content, Path):
                archive.writestr(info, content.read_bytes())
            elif isinstance(content, str | bytes):
                archive.writestr(info, content)
            else:
                with archive.open(info, "w", force_zip64=content.nbytes >= _LARGE) as member:
                    member.write(content.data.cast("B"))
