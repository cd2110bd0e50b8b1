"""The one-line form of a policy: ``separable,l1,global{macs=50%},slim``."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TypeGuard

from secateur.ir import InputError
from secateur.passes import AFTER_CUT, ALLOCATORS, BEFORE_CUT, CRITERIA, PASSES, REWRITES
from secateur.passes.allocate.amount import Allocator
from secateur.passes.coupling.couple import Couple
from secateur.passes.pipeline import Pass, parse_spec, print_spec
from secateur.passes.rewrite.canonicalize import Canonicalize
from secateur.passes.rewrite.portable import Portable
from secateur.passes.rewrite.slim import Slim
from secateur.passes.score import Criterion

from .parts import BUDGETS, NOTHING, Parts, without_budget


def read_spec(text: str) -> Parts:
    """Read ``taylor,knapsack{macs=50%},slim``. Couple and slim may be left out. Raises InputError."""
    if text.strip() == "none":
        return NOTHING
    steps = list(parse_spec(text, PASSES))
    first = _first_after(steps)
    # canonicalize runs before every analysis in any case
    rewrites = tuple(step for step in steps[:first] if not isinstance(step, Canonicalize))
    if first == len(steps):
        return Parts(None, rewrites=rewrites)
    criterion: Criterion | None = None
    allocator: Allocator | None = None
    protect: tuple[str, ...] = ()
    compensate: list[Pass] = []
    portable = True
    for step in steps[first:]:
        if _scores(step) and criterion is None:
            criterion = step
        elif _allocates(step) and allocator is None:
            allocator = step
        elif isinstance(step, Couple):
            protect = step.protect
        elif step.name in AFTER_CUT and (criterion is not None or not any(map(_scores, steps))):
            compensate.append(step)
        elif isinstance(step, Portable):
            portable = step.on
        elif not isinstance(step, Slim | Canonicalize):
            raise InputError(_misplaced(text, step))
    if criterion is None and rewrites and allocator is None and not protect:
        return Parts(None, compensate=tuple(compensate), rewrites=rewrites, portable=portable)
    if criterion is None:
        raise InputError(f"policy '{text}' names no criterion; start with one of {', '.join(CRITERIA)}")
    if allocator is None:
        return Parts(criterion, protect=protect, compensate=tuple(compensate), rewrites=rewrites, portable=portable)
    budgets = {k: getattr(allocator, k) for k in BUDGETS if getattr(allocator, k, None) is not None}
    if len(budgets) > 1:
        raise InputError(f"policy '{text}' names {len(budgets)} budgets; give one")
    method = without_budget(allocator, *budgets)
    budget = next(iter(budgets.items()), Parts().budget)
    return Parts(criterion, method, budget, allocator.round_to, protect, tuple(compensate), rewrites, portable)


def write_spec(parts: Parts) -> str:
    """The spec line; rewrites and what repairs them alone, or ``none``."""
    if parts.criterion is None:
        return print_spec((*parts.rewrites, *parts.compensate)) or "none"
    protect = (Couple(protect=parts.protect),) if parts.protect else ()
    order = () if parts.portable else (Portable(on=False),)
    return print_spec(
        (*parts.rewrites, *protect, parts.criterion, parts.allocator(), Slim(), *order, *parts.compensate)
    )


def _first_after(steps: Sequence[Pass]) -> int:
    """Where rewrites and their repairs end. Of a policy that scores nothing the last repairs are its compensation."""
    before = list(itertools.takewhile(lambda step: step.name in BEFORE_CUT, steps))
    if len(before) == len(steps):
        while before and before[-1].name not in REWRITES:
            before.pop()
    return len(before)


def _scores(step: Pass) -> TypeGuard[Criterion]:
    return step.name in CRITERIA


def _allocates(step: Pass) -> TypeGuard[Allocator]:
    return step.name in ALLOCATORS


def _misplaced(text: str, step: Pass) -> str:
    if step.name in REWRITES:
        return (
            f"policy '{text}': '{step.name}' stands after other passes; rewrites come first, so that what they make "
            "is scored and pruned"
        )
    if step.name in AFTER_CUT:
        return (
            f"policy '{text}': '{step.name}' stands before the criterion; there only rewrites have a place, and what "
            "repairs them right after them; what follows the cut comes after slim"
        )
    return (
        f"policy '{text}': '{step.name}' does not fit; a policy is rewrites ({', '.join(REWRITES)}), a criterion "
        f"({', '.join(CRITERIA)}), an allocation ({', '.join(ALLOCATORS)}), slim and compensation "
        f"({', '.join(AFTER_CUT)}), as in 'l1,global{{macs=50%}},slim'"
    )
