"""The recipe for anybody: cutting another network of the same kind alike."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from secateur.ir import Graph, LawError, PassError
from secateur.ir.frontends.onnx.process import OnnxProcess
from secateur.ir.progress import Listener, listening
from secateur.passes import Pipeline
from secateur.passes.analysis.cost import cost
from secateur.passes.context import in_context
from secateur.passes.coupling.couple import Couple
from secateur.passes.law import check, failure
from secateur.passes.notes import Coupling, KeepMask
from secateur.passes.recipe import Recipe, digests, fingerprint
from secateur.passes.recipe_schema import CUT
from secateur.passes.rewrite.canonicalize import Canonicalize
from secateur.passes.rewrite.slim import Slim

from .capture import Runner, capture, check_weights, fresh
from .compiled import Compiled
from .reading import check_reading
from .report.collect import Trail, make_report
from .restructure import AFTER, of_recipe, restructure

if TYPE_CHECKING:
    from .capture import Model


@dataclass(frozen=True)
class Replay:
    """The keep mask that a recipe spells out, in place of scores and an allocation."""

    name: ClassVar[str] = "recipe"
    recipe: Recipe = field(repr=False)

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError where the recipe does not fit the graph."""
        if graph.note(Coupling) is None:
            raise PassError("a recipe needs the coupling: run couple before it")
        return graph.with_note(KeepMask(self.recipe.keep_mask(graph)))


def apply(
    recipe: Recipe | str | Path,
    model: Model,
    *,
    example_inputs: Any = None,
    seed: int = 0,
    progress: Listener | None = None,
    trust: bool = False,
) -> Compiled:
    """Replay a recipe on a model of the same network, whatever its weights are now, and check the law.

    Rewrites before the cut are repeated on these weights. What a recipe says of weights that were repaired after the
    cut is not: that needs data, and a remark in the report says so. Raises InputError where the recipe does not fit,
    and LawError.
    """
    tell = listening(progress)
    known = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    tell(0, None, "read the model")
    process = OnnxProcess()
    dense = with_baseline(fresh(capture(model, example_inputs, process, fold=known.changes)))
    check_weights(dense)
    known = known.of(dense)
    steps, cutting = of_recipe(known)
    reading = None if trust else check_reading(model, dense, example_inputs, process=process, seed=seed, tell=tell)
    process.stop()
    trail = Trail(tell)
    made = restructure(dense, steps, trail.see, Runner(keep=2))
    slim = Pipeline((Canonicalize(), Couple(), Replay(known), Slim()), (trail.see,))(made.graph)
    before = (*made.specs, CUT) if made.specs else ()
    found = dataclasses.replace(
        known, sha256=fingerprint(dense.weights), rewrites=before, digests=digests(dense, made.graph, slim, slim)
    )
    tell(0, None, "check the law")
    verification = check(made.graph, slim, found, run=Runner(), seed=seed)
    if not verification.passed:
        raise LawError(failure(dense.name, verification))
    if made.specs:
        verification = dataclasses.replace(verification, reference=AFTER)
    remarks = made.remarks
    if cutting.rewrites:
        remarks = (*remarks, f"not repeated, since it needs data: {', '.join(cutting.rewrites)}; weights are as cut")
    report = make_report(dense.name, dense, slim, trail, "recipe", seed, verification, remarks, reading=reading)
    return Compiled(fresh(slim).with_note(found), dense, found, report, trust)


def rewritten(recipe: Recipe, graph: Graph) -> Graph:
    """The graph after what the recipe did before its cut: what the law compares with."""
    steps, _ = of_recipe(recipe)
    return Pipeline(steps)(graph)


def with_baseline(graph: Graph) -> Graph:
    """The graph with its own cost as what shares of a budget refer to."""
    return in_context(graph, baseline=cost(graph))
