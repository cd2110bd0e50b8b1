"""Recipes: what was kept, by weight name, so that anybody can replay or check a removal.

Indices count in the original's numbering. A recipe re-applies to a graph of the same network (after
fine-tuning, from another format) or to a bare state dict. Nobody pickles modules.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from secateur._version import __version__
from secateur.ir import Array, Graph, InputError
from secateur.ir.files import write_text
from secateur.passes import recipe_schema

from .notes import Coupling, Mixing
from .recipe_places import file_names, in_file

SCHEMA = recipe_schema.SCHEMA
Kept = dict[int, list[Any]]  # axis -> kept indices, or one list per surviving group


@dataclass(frozen=True, eq=False)
class Recipe:
    """Kept indices per weight, by axis, in the original's numbering; one list per group where a layer has several.

    ``mixing``: what nodes keep that read across channels without a weight. ``rewrites``: what was done before the cut,
    ``"slim"``, and what repaired weights after it. ``digests``: the SHA-256 of each weight of the slim network that
    is no cut of the original's: what a rewrite made and what a compensation changed.
    """

    outlives_rewrites: ClassVar[bool] = True
    sha256: str
    shapes: Mapping[str, tuple[int, ...]]
    weights: Mapping[str, Kept]
    mixing: tuple[Mapping[str, Any], ...] = ()
    removed_nodes: tuple[str, ...] = ()
    rewrites: tuple[str, ...] = field(default=())
    digests: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)  # of weights and values that the file calls otherwise

    @property
    def changes(self) -> bool:
        """Does this recipe cut or rewrite anything?"""
        return bool(self.weights or self.mixing or self.removed_nodes or self.rewrites)

    def to_json(self) -> str:
        """The JSON text, in the names of the file."""
        told = self.renamed(self.names)
        body: dict[str, Any] = {
            "schema": SCHEMA,
            "secateur": __version__,
            "original": {"sha256": self.sha256, "weights": {k: list(v) for k, v in told.shapes.items()}},
            "weights": {n: {"kept": {str(a): i for a, i in kept.items()}} for n, kept in told.weights.items()},
            "removed_nodes": list(told.removed_nodes),
            "mixing": [dict(m) for m in told.mixing],
            "rewrites": list(self.rewrites),
        }
        if told.digests:
            body["digests"] = dict(told.digests)
        return json.dumps(body, indent=1)

    def of(self, graph: Graph) -> Recipe:
        """The recipe as it was read, in the graph's names instead of those of the file that this came from."""
        names = file_names(graph)
        return dataclasses.replace(self.renamed({told: name for name, told in names.items()}), names=names)

    def renamed(self, names: Mapping[str, str]) -> Recipe:
        """The recipe with weights and nodes under these names; others keep theirs."""
        if not names:
            return self

        def keys(table: Mapping[str, Any]) -> dict[str, Any]:
            return {names.get(name, name): value for name, value in table.items()}

        mixing = tuple({**m, "node": names.get(m["node"], m["node"])} for m in self.mixing)
        removed = tuple(names.get(name, name) for name in self.removed_nodes)
        return dataclasses.replace(
            self, shapes=keys(self.shapes), weights=keys(self.weights), digests=keys(self.digests), mixing=mixing,
            removed_nodes=removed,
        )  # fmt: skip

    @staticmethod
    def from_json(text: str, where: str = "recipe") -> Recipe:
        """Read the JSON text. Raises InputError if it is not a recipe of this schema."""
        body = recipe_schema.read(text, where)
        return Recipe(
            body.original.sha256,
            {name: tuple(shape) for name, shape in body.original.weights.items()},
            body.weights,
            tuple(body.mixing),
            tuple(body.removed_nodes),
            tuple(body.rewrites),
            body.digests,
        )

    def save(self, path: str | Path) -> None:
        """Write the JSON file, whole or not at all. Raises InputError."""
        write_text(Path(path), self.to_json())

    @staticmethod
    def load(path: str | Path) -> Recipe:
        """Read a recipe file. Raises InputError if there is none or it is damaged."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot read the recipe ({error})") from error
        return Recipe.from_json(text, str(path))

    def keep_mask(self, graph: Graph) -> Array:
        """The mask over the units of a coupled graph that this recipe spells out.

        Raises InputError if the graph is not the recipe's network, or the recipe not a removal that it allows.
        """
        from .recipe_fit import keep_mask

        return keep_mask(self, graph)

    def apply(self, graph: Graph) -> Graph:
        """Replay on a graph of the same network, whatever its weights are now. Raises InputError as ``keep_mask``."""
        from .coupling.couple import couple
        from .rewrite.slim import slim

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
            out[name] = cut(out[name], kept)
        return out


def cut(array: Any, kept: Kept) -> Any:
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


def digest(array: Array) -> str:
    """SHA-256 over an array's shape, type and bytes."""
    return fingerprint({"": array})


def digests(dense: Graph, rewritten: Graph, cut: Graph, slim: Graph) -> dict[str, str]:
    """Digests of the slim network's weights that no cut of the original gives: of rewrites, and of compensation."""
    made = {n for n, w in rewritten.weights.items() if w.dtype.kind == "f" and not same(w, dense.weights.get(n))}
    changed = {n for n, w in slim.weights.items() if not same(w, cut.weights.get(n))}
    return {name: digest(slim.weights[name]) for name in sorted(made | changed) if name in slim.weights}


def same(one: Array, other: Array | None) -> bool:
    """Are the two the same to the last bit?"""
    if one is other:
        return True
    if other is None or one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(np.array_equal(_bytes(one), _bytes(other))) if one.dtype != object else bool((one == other).all())


def _bytes(array: Array) -> Array:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


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
    placed = (in_file(graph, coupling, m) for m in coupling.mixing if not coupling.live(m.units, keep).all())
    mixing = tuple(_mixing(m, coupling.live(m.units, keep)) for m in placed)
    return Recipe(
        "",
        {name: graph.weights[name].shape for name in weights},
        weights,
        tuple(m for m in mixing if m is not None),
        names=file_names(graph),
    )


def _mixing(m: Mixing, live: Array) -> dict[str, Any] | None:
    if live.all():
        return None
    kept = np.flatnonzero(live).tolist()
    return {"node": m.node, "input": m.input, "axis": m.axis, "kept": kept, "statistics": m.mode == "kept"}
