"""A recipe in place of scores and an allocation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from secateur.ir import Graph, PassError

from .coupling.couple import couple
from .notes import Coupling, KeepMask
from .recipe.mask import keep_mask
from .recipe.recipe import Recipe
from .rewrite.slim import slim


@dataclass(frozen=True)
class Replay:
    """The keep mask that a recipe spells out."""

    name: ClassVar[str] = "recipe"
    recipe: Recipe = field(repr=False)

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError where the recipe does not fit the graph."""
        if graph.note(Coupling) is None:
            raise PassError("a recipe needs the coupling: run couple before it")
        return graph.with_note(KeepMask(keep_mask(self.recipe, graph)))


def replayed(recipe: Recipe, graph: Graph) -> Graph:
    """The cut, on a graph of the same network, whatever its weights are now. Raises InputError as ``keep_mask``."""
    coupled = graph if graph.note(Coupling) is not None else graph.with_note(couple(graph))
    return slim(coupled, keep_mask(recipe, coupled))
