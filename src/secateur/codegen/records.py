"""Tuning results: one JSON line each, safe when several tuners append at once."""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from secateur.ir import InputError

from .specs import CHOICES, Workload

VERSION = 1


@dataclass(frozen=True)
class Record:
    """What was measured for a workload: the best choice, and the median seconds of every choice."""

    target: str
    workload: str
    choice: tuple[Any, ...]
    seconds: float
    timings: tuple[tuple[tuple[Any, ...], float], ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    def line(self) -> str:
        """As it stands in the file."""
        return json.dumps({"v": VERSION, **asdict(self)}, separators=(",", ":")) + "\n"


def workload_key(spec: Workload) -> str:
    """The name of a workload: its fields as JSON, without what does not change its speed."""
    data = asdict(spec)
    data.pop("steps")
    return json.dumps({"kind": type(spec).__name__, **data}, separators=(",", ":"), sort_keys=True)


class Records:
    """The records of a file; ``problems`` names lines that could not be used."""

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        self.table: dict[tuple[str, str], Record] = {}
        self.problems: list[str] = []
        if self.path is not None and self.path.exists():
            self._read(self.path)

    def _read(self, path: Path) -> None:
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            raise InputError(f"cannot read the records in '{path}': {error.strerror or error}") from error
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                self._keep(_parse(line))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                self.problems.append(f"{path}:{number}: skipped, {error}")

    def _keep(self, record: Record) -> None:
        self.table[record.target, record.workload] = record

    def add(self, record: Record) -> None:
        """Keep a record and append it to the file in one write under a lock."""
        self._keep(record)
        if self.path is None:
            return
        try:
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                os.write(handle, record.line().encode())
            finally:
                os.close(handle)
        except OSError as error:
            raise InputError(f"cannot append to the records in '{self.path}': {error.strerror or error}") from error

    def find(self, target: str, spec: Workload) -> Record | None:
        """The record of exactly this workload."""
        return self.table.get((target, workload_key(spec)))

    def nearest(self, target: str, spec: Workload) -> Record | None:
        """The record of the workload of the same kind that is nearest in size."""
        wanted = json.loads(workload_key(spec))
        best: tuple[float, Record] | None = None
        for (name, key), record in self.table.items():
            if name == target:
                distance = _distance(wanted, json.loads(key))
                if distance is not None and (best is None or distance < best[0]):
                    best = (distance, record)
        return None if best is None else best[1]


_SAME = ("kind", "lanes", "kernel", "stride", "dilation", "threads")
_SIZES = ("n", "ci", "blocks", "h", "w")


def _distance(a: Mapping[str, Any], b: Mapping[str, Any]) -> float | None:
    if any(a.get(key) != b.get(key) for key in _SAME):
        return None
    return sum(abs(math.log(a.get(key, 1) / b.get(key, 1))) for key in _SIZES)


def _parse(line: str) -> Record:
    data = json.loads(line)
    if data.get("v") != VERSION:
        raise ValueError(f"record version {data.get('v')}, this secateur reads {VERSION}")
    timings = tuple((tuple(choice), float(seconds)) for choice, seconds in data["timings"])
    record = Record(str(data["target"]), str(data["workload"]), tuple(data["choice"]), float(data["seconds"]), timings,
                    dict(data["versions"]))  # fmt: skip
    if not isinstance(json.loads(record.workload), dict):
        raise ValueError("the workload is no object")
    return record


def choice_of(spec: Workload, stored: Sequence[Any]) -> Any:
    """A stored choice as its template takes it. Raises TypeError where it has other fields."""
    return CHOICES[type(spec)](*stored)


def stored(choice: Any) -> tuple[Any, ...]:
    """The inverse of ``choice_of``."""
    return tuple(asdict(choice).values())
