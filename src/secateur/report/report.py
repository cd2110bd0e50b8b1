"""What was done and what it came to: one object, shown as a table, as JSON and as an HTML page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from secateur.ir import Graph
from secateur.ir.files import write_text
from secateur.passes import CRITERIA
from secateur.passes.analysis.cost import Costs, LayerCost, cost
from secateur.passes.notes import Coupling, Importance, KeepMask
from secateur.passes.rewrite.layers import Rewritten

if TYPE_CHECKING:
    from rich.console import Console

LAYERS = frozenset({"conv", "conv_transpose", "linear", "lstm", "gru"})  # what a report lists
UNITS = ("macs", "params", "bytes", "nodes")


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


def group_rows(coupling: Coupling, keep: np.ndarray[Any, Any] | None) -> Iterable[dict[str, Any]]:
    """One row for each channel group; ``keep`` is bool[units], None when nothing was chosen."""
    for group in coupling.groups:
        kept = group.size if keep is None else int(keep[group.units].sum())
        yield {
            "id": group.id, "size": group.size, "kept": kept, "slots": list(group.slots), "why": list(group.why),
            "frozen": group.frozen,
        }  # fmt: skip


def layer_rows(
    original: Costs, coupled: Graph | None, slim: Graph | None, rewritten: Rewritten | None = None
) -> list[dict[str, Any]]:
    """One row for each layer with weights. ``coupled``: the graph whose notes say what was frozen and chosen.

    A layer that was rewritten has the sums over what took its place.
    """
    places = _places(rewritten)
    after = {row.node: row for row in cost(slim).layers} if slim is not None else None
    reasons = _Reasons(coupled) if coupled is not None else None
    rows = []
    for row in original.layers:
        if row.widths is None:
            continue
        now, spec = _now(row, after, places)
        gone = after is not None and now is None
        widths = [list(row.widths), _widths(now, gone)]
        state, reason = _state(row, now, gone, reasons)
        if spec:
            more = f"; {reason}" if reason and reasons else ""  # a rewrite alone prunes nothing, and need not say so
            reason = f"removed by {spec}" if gone else f"rewritten by {spec}{more}"
        rows.append(
            {
                "name": row.label, "op": row.op,
                "macs": [row.macs, now.macs if now else 0 if gone else None],
                "params": [row.params, now.params if now else 0 if gone else None],
                "widths": widths, "state": state, "reason": reason,
            }
        )  # fmt: skip
    return rows


def _places(rewritten: Rewritten | None) -> dict[str, tuple[list[str], str]]:
    """By node of the original: the nodes that stand in its place after all rewrites, and by what."""
    places: dict[str, tuple[list[str], str]] = {}
    for row in rewritten.rows if rewritten is not None else ():
        if row.reason is not None or (not row.pieces and not row.macs[0]):
            continue
        heirs = [(name, nodes, spec) for name, (nodes, spec) in places.items() if row.node in nodes]
        for name, nodes, spec in heirs:
            at = nodes.index(row.node)
            places[name] = ([*nodes[:at], *row.pieces, *nodes[at + 1 :]], f"{spec}, {row.spec}")
        if not heirs:
            places[row.node] = (list(row.pieces), row.spec)
    return places


def _now(
    row: LayerCost, after: Mapping[str, LayerCost] | None, places: Mapping[str, tuple[list[str], str]]
) -> tuple[LayerCost | None, str]:
    """What stands in a layer's place and what it costs, None if nothing does; and which rewrites put it there."""
    if after is None:
        return None, ""
    nodes, spec = places.get(row.node, ([row.node], ""))
    found = [after[name] for name in nodes if name in after]
    if not found or not spec:
        return (found[0] if found else None), spec
    ends = (found[0].widths, found[-1].widths)
    widths = (ends[0][0], ends[1][1]) if ends[0] and ends[1] else None
    whole = LayerCost(
        found[-1].node, row.label, row.op, sum(f.macs for f in found), sum(f.params for f in found), widths
    )
    return whole, spec


def _widths(now: LayerCost | None, gone: bool) -> list[int] | None:
    if gone:
        return [0, 0]
    return list(now.widths) if now is not None and now.widths is not None else None


def _state(row: LayerCost, now: LayerCost | None, gone: bool, reasons: _Reasons | None) -> tuple[str, str | None]:
    node = now.node if now is not None else row.node
    frozen = reasons.frozen(node) if reasons else None
    if gone:
        return "pruned", "removed: nothing needs it any more"
    if now is not None and now.widths != row.widths:
        narrower = now.widths and row.widths and now.widths[1] < row.widths[1]
        return "pruned", None if narrower or not frozen else f"all outputs stay: {frozen}"
    if frozen:
        return "frozen", frozen
    return "kept", (reasons.unscored(node) if reasons else None) or (
        reasons.unchosen if reasons else "nothing was to be pruned"
    )


class _Reasons:
    """Why a layer's output channels stay, looked up by node."""

    def __init__(self, graph: Graph) -> None:
        coupling = graph.note(Coupling)
        self.outs: dict[str, list[np.ndarray[Any, Any]]] = {}
        self.frozen_units = np.zeros(0, bool)
        self.group_of = np.zeros(0, np.int64)
        self.coupling = coupling
        self.importance = graph.note(Importance)
        self.unchosen = None if graph.note(KeepMask) is None else "not chosen"
        if coupling is None:
            return
        self.frozen_units = coupling.frozen.astype(bool)
        self.group_of = np.zeros(coupling.size, np.int64)
        for number, group in enumerate(coupling.groups):
            self.group_of[group.units] = number
        for slot in coupling.slots:
            if slot.role == "out":
                self.outs.setdefault(slot.node, []).append(slot.units)
        for node in graph.nodes:  # layers without a producing slot of their own (depthwise): what they put out
            if node.name not in self.outs and node.op in LAYERS and node.name in coupling.channels:
                self.outs[node.name] = [coupling.channels[node.name].units]

    def frozen(self, node: str) -> str | None:
        """The reason if none of the node's output channels may go."""
        coupling = self.coupling
        if coupling is None:
            return None
        blocked = coupling.blocked.get(node)
        units = self._units(node)
        if not len(units):
            return str(blocked) if blocked else "its channels cannot be followed"
        if not self.frozen_units[units].all():
            return None
        for number in dict.fromkeys(self.group_of[units].tolist()):
            why: str | None = coupling.groups[number].frozen
            if why:
                return why
        return "frozen"

    def unscored(self, node: str) -> str | None:
        """The reason if the criterion has no score for any of them."""
        units = self._units(node)
        if self.importance is None or not len(units) or not np.isnan(self.importance.scores[units]).all():
            return None
        name = self.importance.criterion.partition("{")[0]
        why = getattr(CRITERIA.get(name), "unscored", "")
        return f"'{name}' has no score for it" + (f": {why}" if why else "")

    def _units(self, node: str) -> np.ndarray[Any, Any]:
        found = [np.ravel(u)[np.ravel(u) >= 0] for u in self.outs.get(node, ())]
        return np.concatenate(found) if found else np.zeros(0, np.int64)


def keep_of(graph: Graph) -> np.ndarray[Any, Any] | None:
    """The keep mask that was chosen, if one was."""
    note = graph.note(KeepMask)
    return None if note is None else note.mask


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
