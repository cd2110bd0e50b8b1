"""What was done and what it came to: one object, shown as a table, as JSON and as an HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from secateur.ir.fields import Json, as_json
from secateur.ir.files import write_text

from .parts import Budget, Deviation, Group, Latency, Layer, PassRun, Quality, Totals

if TYPE_CHECKING:
    from rich.console import Console

    from secateur.checks.comparison import Reading
    from secateur.passes.law import Verification
    from secateur.passes.rewrite.layers import Row


@dataclass(frozen=True, repr=False)
class Report:
    """What was done and found: the fields of the report's JSON, under the same names; ``after`` is None if nothing was.

    Costs are of the whole network (``before``, ``after``) and by layer: multiply-accumulates, parameters, bytes of
    weights, nodes. ``latency_ms`` is in milliseconds, ``seconds`` of a pass in seconds; errors are relative to the
    largest value of the reference. ``str(report)`` is the table, unwrapped; ``to_html`` writes a page. What the fields
    hold answers to the JSON's names too: ``report.after.macs`` is ``report.after["macs"]``.
    """

    model: str
    policy: str
    seed: int
    versions: Mapping[str, str]
    before: Totals
    after: Totals | None
    budget: Budget | None
    verification: Verification | None
    groups: tuple[Group, ...]
    layers: tuple[Layer, ...]
    passes: tuple[PassRun, ...]
    latency_ms: Latency | None = None
    quality: Quality | None = None
    deviation: Deviation | None = None
    remarks: tuple[str, ...] = ()
    rewrites: tuple[Row, ...] = ()
    reading: Reading | None = None
    written: Reading | None = None
    secateur: str = field(default="")
    schema: int = 1

    def to_dict(self) -> dict[str, Json]:
        """The JSON's content, in the order in which it is written."""
        names = (
            "schema", "secateur", "model", "policy", "seed", "versions", "before", "after", "budget", "reading",
            "written", "verification",
            "groups", "layers", "rewrites", "latency_ms", "quality", "deviation", "passes", "remarks",
        )  # fmt: skip
        found = {name: as_json(getattr(self, name)) for name in names}
        if self.deviation is None:  # an entry that only reports with data have
            del found["deviation"]
        return found

    def to_json(self) -> str:
        """The report as JSON text, one line for each group and layer."""
        parts = []
        for name, value in self.to_dict().items():
            text = json.dumps(value, ensure_ascii=False)
            if name in ("groups", "layers", "rewrites", "passes") and isinstance(value, list) and value:
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
