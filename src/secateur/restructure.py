"""Rewrites before pruning, and what repairs them: run, and measured against the network as it was given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from secateur.ir import Graph, InputError
from secateur.ir.numeric import random_inputs, relative_error
from secateur.passes import PASSES, REWRITES, Pipeline, parse_spec
from secateur.passes.allocate.amount import TIMED, Amount
from secateur.passes.analysis.cost import cost
from secateur.passes.context import context_of, in_context
from secateur.passes.pipeline import Announce, Observer, Pass, Ran, parse_pass, reorders
from secateur.passes.rewrite.canonicalize import Canonicalize
from secateur.passes.rewrite.layers import Rewritten
from secateur.passes.tables import repairs_of

from .run import Runner

AFTER = "masked original after its rewrites"  # what the law compares with: a rewrite may approximate, the cut may not


@dataclass(frozen=True, eq=False)
class Restructured:
    """A network after its rewrites, what was run (fit to be repeated), and sentences for the report."""

    graph: Graph
    steps: tuple[Pass, ...] = ()
    remarks: tuple[str, ...] = ()


def restructure(
    graph: Graph, steps: Sequence[Pass], observer: Observer, run: Runner, announce: Announce | None = None
) -> Restructured:
    """Run the rewrites and what repairs them, and compare outputs before and after on random inputs.

    Repairs follow the network as it was given, or as it was after the last rewrite that reorders channels; both are
    canonical by then, so that examples run through them in batches of any size.
    """
    if not steps:
        return Restructured(graph)
    done: list[Pass] = []
    given = Canonicalize()(graph)

    def record(ran: Ran) -> None:
        nonlocal given
        observer(ran)
        done.append(_as_run(ran))
        given = Canonicalize()(ran.after) if reorders(type(ran.step)) else given

    after = graph
    for step in steps:
        after = Canonicalize()(after) if repairs_of((step,)) else after
        after = in_context(Pipeline((step,), (record,), announce)(after), given=given)
    feed = random_inputs(graph, 0)
    error = max(relative_error(a, b) for a, b in zip(run(graph, feed), run(after, feed), strict=True))
    note = after.note(Rewritten) or Rewritten()
    changed = sum(row.reason is None for row in note.rows)
    said = f"rewrites: {changed} layers changed, {len(note.rows) - changed} left alone"
    mended = ", ".join(dict.fromkeys(step.name for step in repairs_of(steps)))
    differ = f"outputs differ by {error:.1e}{f' after {mended}' if mended else ''} (relative, random inputs)"
    return Restructured(after, tuple(done), (f"{said}; {differ}",))


def _as_run(ran: Ran) -> Pass:
    """The step; one that chose by data names what it chose, so that it can be repeated without."""
    before, after = (g.note(Rewritten) or Rewritten() for g in (ran.before, ran.after))
    new = after.rows[len(before.rows) :]
    return parse_pass(new[-1].spec, REWRITES) if new else ran.step


def met_already(graph: Graph, budget: tuple[str, float | int]) -> tuple[str, ...]:
    """A remark if rewrites alone meet a budget, which counts from the network as it was given."""
    baseline, (kind, value) = context_of(graph).baseline, budget
    if baseline is None or kind in TIMED:
        return ()
    before, now = baseline.totals()[kind], cost(graph).totals()[kind]
    if not before or now > Amount(kind, value).limit(before):
        return ()
    return (f"the rewrites alone left {now / before:.2%} of the {kind}, which meets the budget: nothing was pruned",)


def steps_of(text: str) -> tuple[Pass, ...]:
    """The rewrites of a spec line. Raises InputError for passes of other kinds."""
    steps = parse_spec(text, PASSES)
    for step in steps:
        if step.name not in REWRITES:
            raise InputError(
                f"--passes '{text}': '{step.name}' is not a rewrite; give some of {', '.join(REWRITES)}, and prune "
                f"with `secateur compile --policy '{text}'`"
            )
    return steps
