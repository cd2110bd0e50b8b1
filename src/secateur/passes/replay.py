"""A recipe in place of scores and an allocation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from secateur.ir import Graph, InputError, PassError

from .coupling.couple import couple
from .notes import Coupling
from .recipe.mask import mask_of, with_mask
from .recipe.recipe import Recipe
from .rewrite.portable import Portable
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
        return with_mask(self.recipe, graph)


def replayed(recipe: Recipe, graph: Graph) -> Graph:
    """The cut, on a graph of the same network, whatever its weights are now. Raises InputError as ``with_mask``."""
    coupled = graph if graph.note(Coupling) is not None else graph.with_note(couple(graph))
    masked = with_mask(recipe, coupled)
    cut = slim(masked, mask_of(masked))
    return in_order(recipe, Portable()(cut)) if recipe.portable else cut


def in_order(recipe: Recipe, graph: Graph) -> Graph:
    """The replayed graph itself. Raises InputError where its channels stand in another order than the recipe says."""
    made = graph.note(Recipe)
    assert made is not None
    for name, kept in recipe.weights.items():
        for axis, lists in kept.items():
            if recipe.portable and made.weights.get(name, {}).get(axis, lists) != lists:
                raise InputError(
                    f"recipe: weight '{name}', axis {axis}: its channels stand in another order than 'portable' puts "
                    "them in; take the recipe as it was written"
                )
    return graph
