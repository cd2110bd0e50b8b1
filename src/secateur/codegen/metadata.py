"""What a library says of itself: its inputs and outputs, the machine it is for, and what it was made with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from secateur.ir.graph import DTYPES
from secateur.ir.plain import one_line

from .targets import Target

FORMAT = 1  # of a library's file
MOST = 1 << 40  # of anything that is counted


@dataclass(frozen=True)
class Port:
    """An input or output: its name, shape and element type (as the IR writes it)."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"'{one_line(self.name)}' {self.dtype}[{', '.join(map(str, self.shape))}]"


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
    kernels: Mapping[str, int] = field(default_factory=dict)  # calls of each kernel family
    dtype: str = "f32"  # of activations between kernels
    precision: str = "f32"  # of products and sums

    def to_json(self) -> dict[str, Any]:
        """The fields as plain data."""
        return {
            "format": FORMAT, "name": self.name, "target": self.target.to_json(), "threads": self.threads,
            "inputs": [[p.name, list(p.shape), p.dtype] for p in self.inputs],
            "outputs": [[p.name, list(p.shape), p.dtype] for p in self.outputs],
            "arena_words": self.arena_words, "versions": dict(self.versions), "notes": list(self.notes),
            "kernels": dict(self.kernels), "dtype": self.dtype, "precision": self.precision,
        }  # fmt: skip

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Metadata:
        """The inverse of ``to_json``. Raises KeyError, ValueError or TypeError where it is something else."""
        versions = {_text(name): _text(version) for name, version in dict(data["versions"]).items()}
        return Metadata(
            _text(data["name"]), Target.from_json(data["target"]), _count(data["threads"], 1), _ports(data["inputs"]),
            _ports(data["outputs"]), _count(data["arena_words"]), versions, tuple(map(_text, data["notes"])),
            {_text(k): _count(n) for k, n in dict(_kernels(data)).items()}, _text(data.get("dtype", "f32")),
            _text(data.get("precision", "f32")),
        )  # fmt: skip


def _ports(rows: Sequence[tuple[object, Sequence[object], str]]) -> tuple[Port, ...]:
    found = []
    for name, shape, dtype in rows:
        if dtype not in DTYPES.values():
            raise ValueError(f"{dtype!r} is not an element type")
        found.append(Port(_text(name), tuple(map(_count, shape)), dtype))
    return tuple(found)


def _count(value: object, least: int = 0) -> int:
    if type(value) is not int or not least <= value < MOST:
        raise ValueError(f"{value!r} is not a number from {least} to {MOST}")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _kernels(data: Mapping[str, Any]) -> Mapping[object, object]:
    """Calls by kernel family; libraries of before count two of them alone."""
    found: Mapping[object, object] = data.get(
        "kernels", {name: data[name] for name in ("winograd", "strassen") if data.get(name)}
    )
    return found
