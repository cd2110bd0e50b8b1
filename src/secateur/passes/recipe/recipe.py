"""A recipe: kept indices per weight, what mixes channels, and the passes around the cut.

Indices count in the original's numbering. A recipe re-applies to a graph of the same network (after
fine-tuning, from another format) or to a bare state dict. Nobody pickles modules.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from secateur._version import __version__
from secateur.ir import InputError
from secateur.ir.files import write_text
from secateur.passes.pipeline import Pass, print_pass

from .places import file_names

if TYPE_CHECKING:
    from secateur.ir import Graph

SCHEMA = 1
REORDER = "portable"  # after the cut: channels stand in another order than the original's
CUT = "slim"  # in a file's list of rewrites: what stands before it was done before the cut
Indices = list[int] | list[list[int]]  # kept indices, or one list per surviving group
Kept = dict[int, Indices]  # by axis
T = TypeVar("T")


def groups_of(kept: Indices) -> list[list[int]] | None:
    """The lists of a grouped axis, one for each group; None where these are plain indices."""
    return kept if kept and isinstance(kept[0], list) else None


@dataclass(frozen=True)
class Mixed:
    """What a node keeps that reads across channels without a weight: ``kept`` along ``axis`` of its input.

    ``statistics``: it normalises over the kept channels alone, which is not what the original does.
    """

    node: str
    input: int
    axis: int
    kept: tuple[int, ...]
    statistics: bool = False


@dataclass(frozen=True)
class Steps:
    """The rewrites before the cut, what repaired them, in order, and the passes that changed weights after it."""

    before: tuple[Pass, ...] = ()
    after: tuple[Pass, ...] = ()

    def texts(self) -> tuple[str, ...]:
        """As a file lists them: what comes before the cut and ``slim``, if anything does, and compensation."""
        before = (*map(print_pass, self.before), CUT) if self.before else ()
        return (*before, *map(print_pass, self.after))


@dataclass(frozen=True, eq=False)
class Recipe:
    """Kept indices per weight, by axis, in the original's numbering; one list per group where a layer has several.

    They rise, unless ``portable`` put channels into another order after the cut: then they stand as in the slim weight.

    ``own``: weights whose columns are not all that is left of what flows in, as their layers read their own channels.
    ``mixing``: what nodes keep that read across channels without a weight. ``steps``: what was done before the cut and
    what repaired weights after it. ``digests``: the SHA-256 of each weight of the slim network that is not a cut of the
    original's: what a rewrite made and what a compensation changed.
    """

    outlives_rewrites: ClassVar[bool] = True
    sha256: str
    shapes: Mapping[str, tuple[int, ...]]
    weights: Mapping[str, Kept]
    mixing: tuple[Mixed, ...] = ()
    removed_nodes: tuple[str, ...] = ()
    steps: Steps = Steps()
    digests: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)  # of weights and values that the file calls otherwise
    own: tuple[str, ...] = ()

    @property
    def rewrites(self) -> tuple[str, ...]:
        """The passes before and after the cut, as the file lists them."""
        return self.steps.texts()

    @property
    def portable(self) -> bool:
        """Do channels stand in another order than the original's?"""
        return any(print_pass(step) == REORDER for step in self.steps.after)

    def rising(self) -> Recipe:
        """The same removal with kept channels in the order of the original."""
        if not self.portable:
            return self
        weights = {name: {a: _rising(i) for a, i in kept.items()} for name, kept in self.weights.items()}
        return dataclasses.replace(self, weights=weights)

    @property
    def changes(self) -> bool:
        """Does this recipe cut or rewrite anything?"""
        return bool(self.weights or self.mixing or self.removed_nodes or self.rewrites)

    def to_json(self) -> str:
        """The JSON text, in the names of the file."""
        told = self.renamed(self.names)
        body: dict[str, object] = {
            "schema": SCHEMA,
            "secateur": __version__,
            "original": {"sha256": self.sha256, "weights": {k: list(v) for k, v in told.shapes.items()}},
            "weights": {n: {"kept": {str(a): i for a, i in kept.items()}} for n, kept in told.weights.items()},
            "removed_nodes": list(told.removed_nodes),
            "mixing": [dataclasses.asdict(m) for m in told.mixing],
            "rewrites": list(self.rewrites),
        }
        if told.own:
            body["own"] = list(told.own)
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

        def keys(table: Mapping[str, T]) -> dict[str, T]:
            return {names.get(name, name): value for name, value in table.items()}

        mixing = tuple(dataclasses.replace(m, node=names.get(m.node, m.node)) for m in self.mixing)
        removed, own = (tuple(names.get(name, name) for name in of) for of in (self.removed_nodes, self.own))
        return dataclasses.replace(
            self, shapes=keys(self.shapes), weights=keys(self.weights), digests=keys(self.digests), mixing=mixing,
            removed_nodes=removed, own=own,
        )  # fmt: skip

    @staticmethod
    def from_json(text: str, where: str = "recipe") -> Recipe:
        """Read the JSON text. Raises InputError if it is not a recipe of this schema."""
        from .schema import read

        return read(text, where)

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


def _rising(kept: Indices) -> Indices:
    groups = groups_of(kept)
    return sorted(k for k in kept if isinstance(k, int)) if groups is None else [sorted(row) for row in groups]


def cut(array: Any, kept: Kept) -> Any:
    """Cut a NumPy array or torch tensor along every listed axis, grouped axes first."""
    for axis in sorted(kept, reverse=True):
        groups = groups_of(kept[axis])
        if groups is None:
            array = array[(slice(None),) * axis + (kept[axis],)]
            continue
        rows = array.shape[0] // len(groups)
        parts = [array[g * rows : (g + 1) * rows][:, index] for g, index in enumerate(groups)]
        array = np.concatenate(parts) if isinstance(array, np.ndarray) else _torch_cat(parts)
    return array


def _torch_cat(parts: list[Any]) -> Any:
    import torch

    return torch.cat(parts)
