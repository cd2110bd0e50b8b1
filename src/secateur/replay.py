"""The recipe for anybody: cutting another network of the same kind alike."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from secateur.ir import Graph
from secateur.ir.frontends.onnx.process import OnnxProcess
from secateur.ir.progress import Listener, listening
from secateur.passes import Pipeline, print_spec
from secateur.passes.analysis.cost import cost
from secateur.passes.context import in_context
from secateur.passes.coupling.couple import Couple
from secateur.passes.law import check, failure
from secateur.passes.recipe import Recipe, Steps
from secateur.passes.recipe.digests import digests, fingerprint
from secateur.passes.replay import Replay, in_order
from secateur.passes.rewrite.canonicalize import Canonicalize
from secateur.passes.rewrite.portable import Portable
from secateur.passes.rewrite.slim import Slim
from secateur.passes.sparsify.zeros import notes_of
from secateur.passes.tables import repairs_of, rewrites_of

from .capture import capture, check_weights, fresh
from .checks.reading import check_reading
from .compiled import Compiled
from .report.collect import Collector, make_report
from .restructure import AFTER, restructure
from .run import Runner

if TYPE_CHECKING:
    from .capture import Model


def apply(
    recipe: Recipe | str | Path,
    model: Model,
    *,
    example_inputs: object = None,
    seed: int = 0,
    progress: Listener | None = None,
    trust: bool = False,
) -> Compiled:
    """Replay a recipe on a model of the same network, whatever its weights are now, and check the law.

    Rewrites before the cut are repeated on these weights, and zeros by magnitude after it. What a recipe says of
    weights that were repaired is not: that needs data, and a remark in the report says so. Raises
    InputError where the recipe does not fit, and LawError.
    """
    tell = listening(progress)
    known = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    tell(0, None, "read the model")
    process = OnnxProcess()
    dense = with_baseline(fresh(capture(model, example_inputs, process, fold=known.changes)))
    check_weights(dense)
    known = known.of(dense)
    reading = None if trust else check_reading(model, dense, example_inputs, process=process, seed=seed, tell=tell)
    process.stop()
    collector = Collector(tell)
    made = restructure(dense, rewrites_of(known.steps.before), collector.see, Runner(keep=2))
    slim = Pipeline((Canonicalize(), Couple(), Replay(known), Slim()), (collector.see,))(made.graph)
    if known.portable:
        slim = Pipeline((Portable(),), (collector.see,))(slim)
    in_order(known, slim)
    again = tuple(step for step in known.steps.after if not getattr(step, "data", not isinstance(step, Portable)))
    zeros = tuple(step for step in again if not isinstance(step, Portable))
    repair = (*repairs_of(known.steps.before), *(step for step in known.steps.after if step not in again))
    cut = slim
    slim = Pipeline(zeros, (collector.see,))(slim) if zeros else slim
    found = dataclasses.replace(
        known,
        sha256=fingerprint(dense.weights),
        steps=Steps(made.steps, again),
        digests=digests(dense, made.graph, cut, slim),
    )
    tell(0, None, "check the law")
    verification = check(made.graph, cut, found, run=Runner(), seed=seed)
    if not verification.passed:
        raise failure(dense.name, verification)
    if made.steps:
        verification = dataclasses.replace(verification, reference=AFTER)
    remarks = made.remarks
    if repair:
        remarks = (*remarks, f"not repeated, since it needs data: {print_spec(repair)}; weights are as cut")
    report = make_report(dense.name, dense, slim, collector, "recipe", seed, verification, remarks, reading=reading)
    return Compiled(fresh(slim).with_note(found, *notes_of(slim)), dense, found, report, trust)


def rewritten(recipe: Recipe, graph: Graph) -> Graph:
    """The graph after what the recipe did before its cut: what the law compares with."""
    return Pipeline(rewrites_of(recipe.steps.before))(graph)


def with_baseline(graph: Graph) -> Graph:
    """The graph with its own cost as what shares of a budget refer to."""
    return in_context(graph, baseline=cost(graph))
