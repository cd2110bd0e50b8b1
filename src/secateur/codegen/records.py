"""Tuning results: one JSON line each, safe when several tuners append at once.

A line: ``{"v":2,"target":"x86-avx512","kind":"ConvSpec","revision":1,"workload":{..},"choice":[..],"seconds":8e-4,
"versions":{"apache-tvm":".."}}`` and, where they were kept, ``"timings":[[choice,seconds],..]``; ``"family"``, the
processor's as ``host.family`` writes it, and ``"board"``, where one behind a tracker measured. The last line of a
workload counts, and one of this machine's family before all of others. A line that is damaged, or says what no longer
holds, is skipped, and ``notes`` says so.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import stat
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from secateur.ir import InputError

from .plan.family import LATE, Workload
from .plan.program import Choice

VERSION = 2
BAD = (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError)  # what other text raises
SHOWN = 3  # damaged lines that are noted one by one
Doubt = Callable[["Record"], str | None]
Fields = Mapping[str, Any]  # of a dataclass, as JSON has them
Values = tuple[Any, ...]
Key = tuple[str, str, str]  # target, kind, workload


@dataclass(frozen=True)
class Origin:
    """Where something was measured: the processor's family, and the board's name where it was one."""

    family: str = ""
    board: str = ""


@dataclass(frozen=True)
class Record:
    """What was measured for a workload: the best choice, and the median seconds of every choice.

    ``revision``: that of the template that was measured. ``family``, ``board``: on which processor, empty where nobody
    wrote it down.
    """

    target: str
    kind: str
    workload: Fields
    choice: Values
    seconds: float
    revision: int = 1
    versions: Mapping[str, str] = field(default_factory=dict)
    timings: tuple[tuple[Values, float], ...] = ()
    family: str = ""
    board: str = ""

    def line(self) -> str:
        """As it stands in the file."""
        data = asdict(self)
        for name in ("timings", "family", "board"):
            if not data[name]:
                del data[name]
        return json.dumps({"v": VERSION, **data}, separators=(",", ":")) + "\n"

    @staticmethod
    def parse(line: str) -> Record:
        """The inverse of ``line``. Raises one of ``BAD`` for any other text."""
        data = json.loads(line)
        if data.get("v") != VERSION:
            raise ValueError(f"it is of version {data.get('v')}, this secateur reads {VERSION}")
        if not isinstance(data["workload"], dict):
            raise ValueError("the workload is not an object")
        timings = tuple((tuple(choice), float(seconds)) for choice, seconds in data.get("timings", ()))
        return Record(str(data["target"]), str(data["kind"]), data["workload"], tuple(data["choice"]),
                      float(data["seconds"]), int(data["revision"]), dict(data["versions"]), timings,
                      str(data.get("family", "")), str(data.get("board", "")))  # fmt: skip

    @property
    def key(self) -> Key:
        """What it is looked up by."""
        return self.target, self.kind, json.dumps(self.workload, separators=(",", ":"), sort_keys=True)


def workload_of(spec: Workload) -> dict[str, Any]:
    """A workload as plain data: its fields without what does not change its speed."""
    data = asdict(spec)
    del data["post_ops"]
    for late in (f.name for f in fields(spec) if f.metadata == LATE and not data[f.name]):
        del data[late]
    return {name: list(value) if isinstance(value, tuple) else value for name, value in data.items()}


def key_of(target: str, spec: Workload) -> Key:
    """What a workload is looked up by."""
    return Record(target, type(spec).__name__, workload_of(spec), (), 0.0).key


def record_of(target: str, spec: Workload, choice: Choice | None, seconds: float, **rest: Any) -> Record:
    """A record of a workload; ``rest`` are the fields of Record."""
    return Record(target, type(spec).__name__, workload_of(spec), stored(choice), seconds, **rest)


class Records:
    """The records of a file, and those of ``under`` where it has none.

    ``doubt`` says why a record does not hold any more, or None. ``family``: the processor's that choices are for, empty
    for any; what was measured on another one is a guess. Raises InputError if the file cannot be read.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        doubt: Doubt | None = None,
        under: Records | None = None,
        family: str = "",
    ) -> None:
        self.path = None if path is None else Path(path)
        self.under = under
        self.family = family
        self.table: dict[Key, Record] = {}
        self._near: dict[tuple[str, str, str], dict[Key, tuple[float, ...]]] = {}
        self._damaged: list[str] = []
        self._doubted: Counter[str] = Counter()
        if self.path is not None:
            self._read(self.path, doubt or _believe)

    def _read(self, path: Path, doubt: Doubt) -> None:
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                raise InputError(f"cannot read the records in '{path}': it is not a file; name one")
            lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        except FileNotFoundError:
            return
        except OSError as error:
            raise InputError(
                f"cannot read the records in '{path}': {error.strerror or error}; name a file that may be read"
            ) from error
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = Record.parse(line)
                why = doubt(record)
                if why is None:
                    self._keep(record)
                else:
                    self._doubted[why] += 1
            except BAD as error:
                self._damaged.append(f"{path}:{number}: skipped, {_reason(error)}")

    @property
    def notes(self) -> list[str]:
        """Lines that could not be used, and why; of many damaged ones the first few."""
        rest = len(self._damaged) - SHOWN
        more = [f"{self.path}: {rest} more damaged lines were skipped"] if rest > 0 else []
        doubted = [f"{self.path}: {n} records not used, {why}; tune again to replace them"
                   for why, n in self._doubted.items()]  # fmt: skip
        return [*self._damaged[:SHOWN], *more, *doubted]

    def others(self, target: str) -> str | None:
        """Says so if the file has records, and all are for other targets."""
        counts = Counter(key[0] for key in self.table)
        if not counts or target in counts:
            return None
        what = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        return f"{self.path}: none of its {len(self.table)} records is for {target} ({what}); not used"

    def foreign(self, record: Record) -> bool:
        """Was it measured on a processor of another family?"""
        return bool(self.family and record.family and record.family != self.family)

    def _keep(self, record: Record) -> None:
        before = self.table.get(record.key)
        if before is not None and self.foreign(record) and not self.foreign(before):
            return
        same, sizes = _place(record.kind, record.workload)
        self.table[record.key] = record
        self._near.setdefault((record.target, record.kind, same), {})[record.key] = sizes

    def check_writable(self) -> None:
        """Raise InputError now where ``add`` would later, as far as can be known without writing."""
        if self.path is None:
            return
        folder = self.path.parent
        if os.access(self.path if self.path.exists() else folder, os.W_OK):
            return
        why = "you may not write there" if folder.is_dir() else "its folder does not exist"
        raise InputError(f"cannot append to the records in '{self.path}': {why}; name another file")

    def add(self, record: Record) -> None:
        """Keep a record and append it to the file, whole or not at all, under a lock. Raises InputError."""
        self._keep(record)
        if self.path is None:
            return
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                _append(handle, record.line().encode())
            finally:
                os.close(handle)
        except OSError as error:
            hint = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "name another file"
            raise InputError(
                f"cannot append to the records in '{self.path}': {error.strerror or error}; {hint}, what was measured "
                "before is kept"
            ) from error

    @property
    def layers(self) -> tuple[Records, ...]:
        """These records, then those beneath."""
        return (self, *(() if self.under is None else self.under.layers))

    def holds(self, target: str, spec: Workload) -> bool:
        """Is there a record of exactly this workload in the file itself, of this family?"""
        found = self.table.get(key_of(target, spec))
        return found is not None and not self.foreign(found)

    def find(self, target: str, spec: Workload) -> Record | None:
        """The record of exactly this workload, one of this family where there is one."""
        found = [r for records in self.layers if (r := records.table.get(key_of(target, spec))) is not None]
        return next((r for r in found if not self.foreign(r)), found[0] if found else None)

    def nearest(self, target: str, spec: Workload) -> Record | None:
        """The record of the workload of the same kind that is nearest in size, in this file alone.

        Beneath it lies what was measured on another machine of this kind: there the defaults do as well or better.
        """
        kind = type(spec).__name__
        same, sizes = _place(kind, workload_of(spec))
        near = [(math.dist(sizes, there), key) for key, there in self._near.get((target, kind, same), {}).items()]
        return self.table[min(near, key=lambda pair: pair[0])[1]] if near else None


_SIZES = ("n", "ci", "blocks", "h", "w")
_ELSEWHERE = {*_SIZES, "x", "y", "table", "size", "pad"}  # fields in which near workloads may differ


def _place(kind: str, workload: Fields) -> tuple[str, tuple[float, ...]]:
    """What near workloads have in common, and where this one lies among them: the logarithms of its sizes."""
    same = {name: value for name, value in workload.items() if name not in _ELSEWHERE}
    sizes = tuple(math.log(workload.get(name, 1)) for name in _SIZES)
    return json.dumps(same, separators=(",", ":"), sort_keys=True), sizes


def _append(handle: int, line: bytes) -> None:
    """Write at the end, after a line break if a killed writer left none; take back what was written in part."""
    size = os.fstat(handle).st_size
    if size and os.pread(handle, 1, size - 1) != b"\n":
        line = b"\n" + line
    try:
        if os.write(handle, line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        os.ftruncate(handle, size)
        raise


def _believe(record: Record) -> None:
    return None


def _reason(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


def stored(choice: Choice | None) -> Values:
    """The fields of a choice, as a record has them."""
    return () if choice is None else tuple(asdict(choice).values())
