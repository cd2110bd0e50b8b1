"""The law and the recipe for anybody: checking a slim network, and cutting another one alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateur.ir import Array, Graph, InputError
from secateur.passes import Pipeline
from secateur.passes.law import Verification, check
from secateur.passes.recipe import Recipe
from secateur.passes.rewrite.canonicalize import Canonicalize

from .models import Runner, capture, close_names
from .rewriting import AFTER, of_recipe

if TYPE_CHECKING:
    from .models import Model


def verify(
    original: Model,
    slim: Model,
    recipe: Recipe | str | Path,
    *,
    seed: int = 0,
    given: Sequence[Mapping[str, Array]] = (),
) -> Verification:
    """Check the law from the recipe alone, on random and given inputs. Raises InputError where they do not fit.

    Where the recipe names passes that mended weights after the cut, the cut is repeated and checked, and the slim
    network's shapes are compared with it. Where it names rewrites before the cut, they are repeated on the original
    first, and the law speaks of the network that they give.
    """
    known = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    _, cutting = of_recipe(known)
    dense, small = capture(original), capture(slim)
    _same_interface(dense, small)
    dense = rewritten(known, dense)
    if cutting.rewrites:  # weights were mended on purpose: the law speaks of the network before that
        cut = apply(cutting, dense)
        _same_shapes(cut, small)
        small = cut
    found = check(dense, small, known, run=Runner(), seed=seed, given=given)
    return dataclasses.replace(found, reference=AFTER) if cutting is not known else found


def apply(recipe: Recipe | str | Path, model: Model, *, example_inputs: Any = None) -> Graph:
    """Replay a recipe on a model of the same network, whatever its weights are now. Raises InputError."""
    known = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    graph = rewritten(known, capture(model, example_inputs))
    missing = sorted(set(known.weights) - set(graph.weights))
    if missing:
        raise InputError(
            f"recipe: '{graph.name}' has no weight '{missing[0]}'{close_names(missing[0], graph.weights)}; "
            "the recipe was made for another network"
        )
    return known.apply(Canonicalize()(graph))


def rewritten(recipe: Recipe, graph: Graph) -> Graph:
    """The graph after what the recipe did before its cut: what the law compares with."""
    steps, _ = of_recipe(recipe)
    return Pipeline(steps)(graph)


def _same_interface(dense: Graph, small: Graph) -> None:
    one, other = ([(v.name, tuple(v.shape)) for v in g.inputs] for g in (dense, small))
    if one != other or len(dense.outputs) != len(small.outputs):
        raise InputError(
            f"'{small.name}' takes {other} and gives {len(small.outputs)} outputs, '{dense.name}' takes {one} and "
            f"gives {len(dense.outputs)}: these are not the same network before and after"
        )


def _same_shapes(cut: Graph, small: Graph) -> None:
    """Raises InputError where the slim network is not what the recipe cuts, whatever its weights hold."""
    shapes = {name: w.shape for name, w in cut.weights.items()}
    for name, weight in small.weights.items():
        if shapes.get(name, weight.shape) != weight.shape:
            raise InputError(
                f"'{small.name}': weight '{name}' has shape {weight.shape}, the recipe leaves {shapes[name]}; "
                "it is not the network that this recipe was saved with"
            )
