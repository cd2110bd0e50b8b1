"""What compensation passes share: what they leave in the recipe, and which rows of a weight were kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from secateur.ir import Array, Graph, InputError, Node
from secateur.passes.pipeline import Pass
from secateur.passes.recipe import Recipe

EXAMPLES = 256  # as many as are looked at unless told otherwise: the memory for a layer's outputs grows with them


def noted(graph: Graph, step: Pass) -> Graph:
    """The recipe says that weights were changed: the law holds for the network before this pass."""
    recipe = graph.note(Recipe)
    if recipe is None:
        return graph
    return graph.with_note(replace(recipe, steps=replace(recipe.steps, after=(*recipe.steps.after, step))))


def refuse_both(graph: Graph, spec: str, other: str) -> None:
    """Raises InputError after ``other``: each gives readers the mean of what they lost, both would do so twice."""
    recipe = graph.note(Recipe)
    if recipe is not None and any(done.name == other for done in recipe.steps.after):
        raise InputError(
            f"'{spec}' after '{other}': each gives layers the mean of what they lost, so both would add it twice; "
            "leave one of them out (refit repairs more)"
        )


def kept_rows(recipe: Recipe | None, weight: str, axis: int = 0) -> Array | None:
    """The rows of a weight that the slim network has, None for all."""
    kept = None if recipe is None else recipe.weights.get(weight, {}).get(axis)
    return None if kept is None else np.asarray(kept, np.int64)


def channel_axis(node: Node) -> int:
    """Where a layer's outputs have their channels."""
    return len(node.out.shape) - 1 if node.op == "linear" else 1
