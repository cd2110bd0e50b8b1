"""Recipes: what was kept, by weight name, so that anybody can replay or check a removal.

Indices count in the original's numbering. A recipe re-applies to a graph of the same network (after
fine-tuning, from another format) or to a bare state dict. Nobody pickles modules.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from secateur._version import __version__
from secateur.ir import Array, Graph, InputError
from secateur.ir.files import write_text
from secateur.passes.analysis.notes import Coupling, Mixing

SCHEMA = 1
Kept = dict[int, list[Any]]  # axis -> kept indices, or one list per surviving group


@dataclass(frozen=True, eq=False)
class Recipe:
    """Kept indices per weight; see the contract for the JSON form."""

    outlives_rewrites: ClassVar[bool] = True
    sha256: str
    shapes: Mapping[str, tuple[int, ...]]
    weights: Mapping[str, Kept]
    mixing: tuple[Mapping[str, Any], ...] = ()
    removed_nodes: tuple[str, ...] = ()
    rewrites: tuple[str, ...] = field(default=())

    def to_json(self) -> str:
        """The JSON text."""
        body = {
            "schema": SCHEMA,
            "secateur": __version__,
            "original": {"sha256": self.sha256, "weights": {k: list(v) for k, v in self.shapes.items()}},
            "weights": {n: {"kept": {str(a): i for a, i in kept.items()}} for n, kept in self.weights.items()},
            "removed_nodes": list(self.removed_nodes),
            "mixing": [dict(m) for m in self.mixing],
            "rewrites": list(self.rewrites),
        }
        return json.dumps(body, indent=1)

    @staticmethod
    def from_json(text: str, where: str = "recipe") -> Recipe:
        """Read the JSON text. Raises InputError if it is not a recipe of this schema."""
        try:
            body = json.loads(text)
            if body["schema"] != SCHEMA:
                raise InputError(f"{where}: recipe schema {body['schema']}, this version reads {SCHEMA}")
            return Recipe(
                body["original"]["sha256"],
                {k: tuple(v) for k, v in body["original"]["weights"].items()},
                {n: {int(a): i for a, i in entry["kept"].items()} for n, entry in body["weights"].items()},
                tuple(body["mixing"]),
                tuple(body["removed_nodes"]),
                tuple(body["rewrites"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{where}: not a secateur recipe ({type(error).__name__}: {error})") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the JSON file, whole or not at all. Raises InputError."""
        write_text(Path(path), self.to_json())

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Recipe:
        """Read a recipe file. Raises InputError if there is none or it is damaged."""
        try:
            text = Path(path).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot read the recipe ({error})") from error
        return Recipe.from_json(text, str(path))

    def keep_mask(self, graph: Graph) -> Array:
        """The mask over the units of a coupled graph that this recipe spells out.

        Raises InputError if the graph is not the recipe's network.
        """
        coupling = graph.note(Coupling)
        assert coupling is not None
        self._fits(graph)
        keep = np.ones(coupling.size, bool)
        for slot in coupling.slots:
            kept = self.weights.get(slot.weight, {}).get(slot.axis)
            if kept is not None:
                live = _live(kept, len(slot.units), slot.groups)
                dropped = slot.units[~live]
                keep[dropped[dropped >= 0]] = False
        return keep

    def apply(self, graph: Graph) -> Graph:
        """Replay on a graph of the same network, whatever its weights are now."""
        from secateur.passes.analysis.coupling import couple
        from secateur.passes.rewrite.slim import slim

        coupled = graph if graph.note(Coupling) is not None else graph.with_note(couple(graph))
        return slim(coupled, self.keep_mask(coupled))

    def apply_state_dict(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Replay on NumPy arrays or torch tensors by name; the rest is handed on."""
        out = dict(state)
        for name, kept in self.weights.items():
            if name not in out:
                raise InputError(f"recipe: the state dict has no '{name}'")
            if tuple(out[name].shape) != tuple(self.shapes[name]):
                raise InputError(f"recipe: '{name}' has shape {tuple(out[name].shape)}, expected {self.shapes[name]}")
            out[name] = _cut(out[name], kept)
        return out

    def _fits(self, graph: Graph) -> None:
        for name in self.weights:
            if name not in graph.weights:
                raise InputError(f"recipe: network '{graph.name}' has no weight '{name}'; is it another network?")
            if graph.weights[name].shape != self.shapes[name]:
                raise InputError(
                    f"recipe: weight '{name}' of '{graph.name}' has shape {graph.weights[name].shape}, "
                    f"the recipe was made for {self.shapes[name]}"
                )


def _live(kept: list[Any], size: int, groups: int) -> Array:
    live = np.zeros((groups, size // groups), bool)
    for row, indices in zip(live, kept if groups > 1 else [kept], strict=True):
        row[indices] = True
    return live.reshape(-1)


def _cut(array: Any, kept: Kept) -> Any:
    """Cut a NumPy array or torch tensor along every listed axis, grouped axes first."""
    for axis in sorted(kept, reverse=True):
        lists = kept[axis]
        if lists and isinstance(lists[0], list):
            rows = array.shape[0] // len(lists)
            parts = [array[g * rows : (g + 1) * rows][:, index] for g, index in enumerate(lists)]
            array = np.concatenate(parts) if isinstance(array, np.ndarray) else _torch_cat(parts)
        else:
            array = array[(slice(None),) * axis + (lists,)]
    return array


def _torch_cat(parts: list[Any]) -> Any:
    import torch

    return torch.cat(parts)


def fingerprint(weights: Mapping[str, Array]) -> str:
    """SHA-256 over names, shapes and bytes of the weights, in order of name."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = weights[name]
        digest.update(f"{name}{array.shape}{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
    return digest.hexdigest()


def recipe_of(graph: Graph, coupling: Coupling, keep: Array) -> Recipe:
    """What this mask does to the graph, in terms of its weights."""
    weights: dict[str, Kept] = {}
    for slot in coupling.slots:
        live = coupling.live(slot.units, keep)
        if live.all():
            continue
        if slot.groups > 1:
            kept: list[Any] = [np.flatnonzero(row).tolist() for row in live.reshape(slot.groups, -1)]
        else:
            kept = np.flatnonzero(live).tolist()
        weights.setdefault(slot.weight, {})[slot.axis] = kept
    mixing = tuple(_mixing(m, coupling.live(m.units, keep)) for m in coupling.mixing)
    return Recipe(
        "",
        {name: graph.weights[name].shape for name in weights},
        weights,
        tuple(m for m in mixing if m is not None),
    )


def _mixing(m: Mixing, live: Array) -> dict[str, Any] | None:
    if live.all():
        return None
    kept = np.flatnonzero(live).tolist()
    return {"node": m.node, "input": m.input, "axis": m.axis, "kept": kept, "statistics": m.mode == "kept"}
