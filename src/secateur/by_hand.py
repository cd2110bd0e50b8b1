"""``widths=`` and ``drop=`` of ``compile``: layers named by glob, by type or by module, in place of a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from secateur.ir import Graph, InputError
from secateur.passes.allocate.by_hand import ByHand
from secateur.passes.coupling.couple import Couple
from secateur.passes.pipeline import Pass, print_spec
from secateur.passes.rewrite.canonicalize import Canonicalize
from secateur.passes.rewrite.slim import Slim

from .capture import patterns_of

if TYPE_CHECKING:
    from .capture import Layer, Model
    from .policy import Policy

T = TypeVar("T")


def by_hand(
    model: Model,
    graph: Graph,
    widths: Mapping[Layer, float | int] | None,
    drop: Mapping[Layer, Sequence[int]] | None,
) -> ByHand | None:
    """The pass that chooses what these say; None where neither is given. Raises InputError for keys of no layer."""
    if widths is None and drop is None:
        return None
    return ByHand(_named(model, graph, widths, "widths"), _named(model, graph, drop, "drop"))


def passes_by_hand(policy: Policy, hand: ByHand, seed: int) -> tuple[tuple[Pass, ...], str]:
    """The pipeline up to ``slim``, and what to call it: the policy's criterion ranks where widths are given."""
    if hand.widths and policy.criterion is None:
        raise InputError(f"widths: policy '{policy.spec}' ranks no channels; name a criterion, or say which to drop")
    ranking = policy.scoring(seed) if hand.widths else (Couple(protect=policy.protect),)
    shown = (*policy.rewrites, *(ranking[-1:] if hand.widths else ()), hand, Slim(), *policy.compensation())
    return (Canonicalize(), *ranking, hand, Slim()), print_spec(shown)


def _named(model: Model, graph: Graph, given: Mapping[Layer, T] | None, option: str) -> dict[str, T]:
    if given is not None and not isinstance(given, Mapping):
        raise InputError(f"{option} is {given!r:.40}; give a dict from layers to what is to become of them")
    return {name: value for layer, value in (given or {}).items() for name in patterns_of(model, graph, layer, option)}
