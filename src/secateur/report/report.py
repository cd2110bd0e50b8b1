"""What was done and what it came to: one object, shown as a table, as JSON and as an HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from secateur.ir.files import write_text

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, repr=False)
class Report:
    """The fields of the report's JSON, under the same names. ``after`` is None for an inspection."""

    model: str
    policy: str
    seed: int
    versions: Mapping[str, str]
    before: Mapping[str, int]
    after: Mapping[str, int] | None
    budget: Mapping[str, Any] | None
    verification: Mapping[str, Any] | None
    groups: tuple[Mapping[str, Any], ...]
    layers: tuple[Mapping[str, Any], ...]
    passes: tuple[Mapping[str, Any], ...]
    latency_ms: Mapping[str, Any] | None = None
    quality: Mapping[str, Any] | None = None
    remarks: tuple[str, ...] = ()
    rewrites: tuple[Mapping[str, Any], ...] = ()
    reading: Mapping[str, Any] | None = None
    written: Mapping[str, Any] | None = None
    secateur: str = field(default="")
    schema: int = 1

    def to_dict(self) -> dict[str, Any]:
        """The JSON's content, in the order in which it is written."""
        names = (
            "schema", "secateur", "model", "policy", "seed", "versions", "before", "after", "budget", "reading",
            "written", "verification",
            "groups", "layers", "rewrites", "latency_ms", "quality", "passes", "remarks",
        )  # fmt: skip
        return {name: _plain(getattr(self, name)) for name in names}

    def to_json(self) -> str:
        """The report as JSON text, one line for each group and layer."""
        parts = []
        for name, value in self.to_dict().items():
            text = json.dumps(value, ensure_ascii=False)
            if name in ("groups", "layers", "rewrites", "passes") and value:
                text = "[\n  " + ",\n  ".join(json.dumps(v, ensure_ascii=False) for v in value) + "\n ]"
            parts.append(f" {json.dumps(name)}: {text}")
        return "{\n" + ",\n".join(parts) + "\n}\n"

    def to_html(self, path: str | Path) -> None:
        """Write one page that needs no other file, whole or not at all. Raises InputError."""
        from .html import page

        write_text(path, page(self))

    def show(self, console: Console) -> None:
        """Print the tables to a console, in its width and colours."""
        from .text import show

        show(self, console)

    def __str__(self) -> str:
        from .text import text

        return text(self)

    def __repr__(self) -> str:
        from .text import headline

        return f"<Report: {headline(self)}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the page in a frame of its own, so that its style stays there."""
        from .html import frame

        return frame(self)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None  # JSON has no infinity
    return value


def versions() -> dict[str, str]:
    """Versions of what the result depends on, without importing any of it."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("numpy", "torch", "onnx", "onnxruntime"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
