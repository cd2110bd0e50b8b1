"""What a library says of itself: its inputs and outputs, the machine it is for, and what it was made with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .targets import Target

FORMAT = 1  # of a library's file


@dataclass(frozen=True)
class Port:
    """An input or output: its name, shape and element type (as the IR writes it)."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"'{self.name}' {self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Metadata:
    """What a library says of itself."""

    name: str
    target: Target
    threads: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    arena_words: int
    versions: Mapping[str, str]
    notes: tuple[str, ...] = ()  # for the report: nodes without a template, shapes tiled by a near record
    winograd: int = 0  # convolutions by Winograd's algorithm
    strassen: int = 0  # by Strassen's

    def to_json(self) -> dict[str, Any]:
        """The fields as plain data."""
        return {
            "format": FORMAT, "name": self.name, "target": self.target.to_json(), "threads": self.threads,
            "inputs": [[p.name, list(p.shape), p.dtype] for p in self.inputs],
            "outputs": [[p.name, list(p.shape), p.dtype] for p in self.outputs],
            "arena_words": self.arena_words, "versions": dict(self.versions), "notes": list(self.notes),
            "winograd": self.winograd, "strassen": self.strassen,
        }  # fmt: skip

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Metadata:
        """The inverse of ``to_json``."""

        def ports(rows: Sequence[Any]) -> tuple[Port, ...]:
            return tuple(Port(name, tuple(shape), dtype) for name, shape, dtype in rows)

        return Metadata(
            data["name"], Target.from_json(data["target"]), data["threads"], ports(data["inputs"]),
            ports(data["outputs"]), data["arena_words"], data["versions"], tuple(data["notes"]),
            data.get("winograd", 0),
            data.get("strassen", 0),
        )  # fmt: skip
