"""What a run of the command line in this process came to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Result:
    code: int
    out: str
    err: str


Call = Callable[..., Result]


def listing(path: Path) -> set[str]:
    """The names of what lies next to a file."""
    return {p.name for p in path.parent.iterdir()}
