"""The parts of a policy: passes and numbers, checked. Text of any form is read into them once, and printed again."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from secateur.ir import InputError
from secateur.ir.near import did_you_mean
from secateur.passes import AFTER_CUT, ALLOCATORS, BEFORE_CUT, CRITERIA, PASSES, REWRITES
from secateur.passes.allocate import Global
from secateur.passes.allocate.amount import TIMED, Allocator, check_amount, takes_budget
from secateur.passes.pipeline import Pass, build, check_numbers, number, options_of, parse_pass, with_options
from secateur.passes.score import L1, Criterion, check_criterion
from secateur.passes.score.criterion import ByReader, Exchanging

SCORE, METHOD = L1(), Global()  # what a policy does that says nothing else
BUDGETS = ("macs", "params", "bytes", "channels", *TIMED)
_WANTED = {"latency_ms": "milliseconds (12.5)", "speedup": "how many times as fast (2x)"}
_SUFFIXES = {"bytes": "B", "speedup": "x"}
UNMET = (
    "{what} prunes nothing, so the budget {budget} cannot be met; name a criterion, as in --policy l1 or "
    "'separable{{rank=1}},l1', or leave the budget out"
)
ALREADY = (
    "'{method}' removes what is zero and nothing else, so the budget {budget} cannot be met; name another method, as "
    "in global{{{budget}}}"
)


@dataclass(frozen=True)
class Parts:
    """A criterion, an allocation under one budget, layers to leave alone, rewrites before and compensation after.

    Among the rewrites stands what repairs their weights before anything is scored.

    ``method`` has no budget of its own. See ``Policy`` for the fields.
    """

    criterion: Criterion | None = SCORE
    method: Allocator = METHOD
    budget: tuple[str, float | int] = ("macs", 0.5)
    round_to: int | str = "auto"
    protect: tuple[str, ...] = ()
    compensate: tuple[Pass, ...] = ()
    rewrites: tuple[Pass, ...] = ()
    portable: bool = True
    targets: tuple[str, ...] = ()

    def allocator(self) -> Allocator:
        """The method under the budget."""
        if not takes_budget(self.method):
            return with_options(self.method, round_to=self.round_to)
        kind, value = self.budget
        options = {item.name: getattr(self.method, item.name) for item in options_of(self.method)}
        return build(self.method.name, {**options, kind: value, "round_to": self.round_to}, ALLOCATORS)


def check_parts(parts: Parts) -> None:
    """Raises InputError for a pass of the wrong kind and for a number that makes no sense."""
    of_texts(parts.protect, "'protect'")
    check_budget(*parts.budget)
    if parts.criterion is not None:
        check_numbers(check_criterion(parts.criterion))
        _of_kind(parts.method, ALLOCATORS, "allocation method")
        check_numbers(parts.allocator())
        if getattr(parts.method, "readers", None) == "own":
            per_reader(parts)
    for step in parts.rewrites:
        _of_kind(step, BEFORE_CUT, "rewrite")
    if parts.rewrites and parts.rewrites[0].name not in REWRITES:
        raise InputError(
            f"'{parts.rewrites[0].name}' comes before any rewrite, where it has nothing to repair; put it after one "
            f"({', '.join(REWRITES)}), or after slim"
        )
    for step in parts.compensate:
        _of_kind(step, AFTER_CUT, "compensation")


def per_reader(parts: Parts) -> ByReader:
    """The criterion, of a policy in which readers keep their own channels. Raises InputError where that cannot be."""
    what, score = f"{parts.method.name}{{readers=own}}", typing.cast(object, parts.criterion)
    if not isinstance(score, ByReader):
        known = ", ".join(name for name, kind in CRITERIA.items() if issubclass(kind, ByReader))
        raise InputError(
            f"{what} needs a criterion that says what a channel is worth to each layer that reads it ({known}); "
            f"'{parts.criterion.name if parts.criterion else 'none'}' gives one number for all"
        )
    if isinstance(score, Exchanging) and score.swaps:
        raise InputError(f"{what}: channels that differ by reader cannot be exchanged; leave swaps=true out")
    if parts.method.rounds != 1 or getattr(parts.method, "by", "macs") != "macs":
        raise InputError(f"{what} goes by multiply-accumulates, in one round; leave rounds= and by= out")
    return score


def criterion_of(given: Criterion | str | None) -> Criterion | None:
    """The criterion that a name with options spells, or the object itself. Raises InputError."""
    if not isinstance(given, str):
        return given
    _of_kind(parse_pass(given, PASSES), CRITERIA, "criterion")
    return parse_pass(given, CRITERIA)


def method_of(given: Allocator | str) -> Allocator:
    """The allocation method that a name with options spells, or the object itself. Raises InputError."""
    if not isinstance(given, str):
        return given
    _of_kind(parse_pass(given, PASSES), ALLOCATORS, "allocation method")
    return parse_pass(given, ALLOCATORS)


def passes_of(given: Iterable[Pass | str], what: str) -> tuple[Pass, ...]:
    """The passes that texts spell, objects as they are. Raises InputError for anything else."""
    if not isinstance(given, list | tuple):
        raise InputError(f"{what} is {repr(given)[:40]}; write a list of text in quotes")
    of_texts([step for step in given if not isinstance(step, Pass)], what)
    return tuple(parse_pass(step, PASSES) if isinstance(step, str) else step for step in given)


def check_budget(kind: str, value: float | int) -> None:
    """Raises InputError for a budget that does not exist or makes no sense."""
    if kind not in BUDGETS:
        raise InputError(f"there is no budget '{kind}'{did_you_mean(kind, BUDGETS)}; give one of {BUDGETS}")
    check_amount(kind, value)


def amount(kind: str, value: object) -> float | int:
    """``"50%"`` -> 0.5, ``"120M"`` -> 120000000, of bytes ``"5MB"`` too, of speedup ``"2x"``; numbers as they are.

    Raises InputError.
    """
    text = value.strip() if isinstance(value, str) else ""
    found = number(text.removesuffix(_SUFFIXES.get(kind, ""))) if text else value
    if isinstance(found, bool) or not isinstance(found, int | float):
        wanted = _WANTED.get(kind, "a share (50%, 0.5) or a number (120M, 3000000)")
        raise InputError(f"budget {kind}={value!r} is not an amount; write {wanted}")
    check_budget(kind, found)
    return float(found) if kind in TIMED else found


def of_texts(found: object, what: str) -> tuple[str, ...]:
    """The list or tuple of text. Raises InputError for anything else."""
    if not isinstance(found, list | tuple):
        raise InputError(f"{what} is {repr(found)[:40]}; write a list of text in quotes")
    wrong = [item for item in found if not isinstance(item, str)]
    if wrong:
        raise InputError(f"{what} holds {repr(wrong[0])[:40]}, which is not text; put it in quotes")
    return tuple(found)


def check_known(given: Iterable[str], names: tuple[str, ...], what: str) -> None:
    """Raises InputError for the first that is not among ``names``."""
    for key in given:
        if key not in names:
            raise InputError(f"unknown {what} '{key}'{did_you_mean(key, names)}; known are {', '.join(names)}")


def without_budget(method: Allocator, *kinds: str) -> Allocator:
    """The method without a budget of these kinds, at ``round_to`` auto."""
    options = {item.name: getattr(method, item.name) for item in options_of(method)}
    return build(method.name, {**options, "round_to": "auto", **dict.fromkeys(kinds)}, ALLOCATORS)


def _of_kind(step: Pass, table: Mapping[str, type[Pass]], what: str) -> None:
    check_numbers(step)
    if step.name not in table:
        raise InputError(f"'{step.name}' is not a valid {what}; choose one of {', '.join(table)}")


NOTHING = dataclasses.replace(Parts(), criterion=None)
