"""The arguments of ``compile``, checked against each other before anything is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from secateur.ir import InputError
from secateur.passes.allocate import LANES
from secateur.passes.pipeline import Pass, number, print_pass
from secateur.passes.sparsify import Sparsify

from .policy import Policy


def policy_of(policy: Policy | str | Path, round_to: int | str | None, budgets: Mapping[str, object]) -> Policy:
    """The policy with the budget and the rounding that were given in its place. Raises InputError for two budgets."""
    given = {kind: value for kind, value in budgets.items() if value is not None}
    if len(given) > 1:
        raise InputError(f"{len(given)} budgets were given ({', '.join(given)}); give one, or compile twice")
    chosen = Policy.parse(policy)
    for kind, value in given.items():
        chosen = chosen.with_budget(kind, value)
    return chosen if round_to is None else dataclasses.replace(chosen, round_to=round_to)


def lanes_of(target: str | None) -> int:
    """How many channels a vector of the target holds, or of this machine. Raises InputError for an unknown target."""
    from secateur.codegen import get_target

    try:
        return get_target(target or "native").lanes
    except InputError:
        if target is not None:
            raise
        return LANES


def sparse_of(
    sparsity: float | str | None, block: str | tuple[int, int] | None, data: bool, lanes: int
) -> tuple[Sparsify, ...]:
    """The pass that makes zeros, if a share was given. ``data``: is there calibration data?

    Raises InputError for what is no share, for an unknown pattern, and for a pattern without a share.
    """
    if sparsity is None:
        if block is not None:
            raise InputError("block= says where zeros stand, and nothing how many; give sparsity= as well, as 0.7")
        return ()
    share = number(sparsity) if isinstance(sparsity, str) else sparsity
    if isinstance(share, str | bool) or not 0 <= share < 1:
        raise InputError(f"sparsity {sparsity}: the share of weights that become zero, as 70% or 0.7, below 100%")
    spelled = "x".join(map(str, block)) if isinstance(block, tuple) else block or "auto"
    width = lanes if spelled == "auto" else 0
    return (Sparsify(float(share), spelled, "moments" if data else "magnitude", width),)


def with_zeros(spec: str, zeros: Sequence[Pass]) -> str:
    """The spec line with the passes that make zeros; these alone where nothing else is done."""
    return ",".join([*(() if zeros and spec == "none" else (spec,)), *map(print_pass, zeros)])


def check_by_hand_alone(budgets: Mapping[str, object]) -> None:
    """Raises InputError for budgets where widths or channels are chosen by hand."""
    given = [name for name, value in budgets.items() if value is not None]
    if given:
        raise InputError(
            f"widths= and drop= say what remains, so {', '.join(given)} cannot be given as well; leave it out"
        )


def check_recipe_alone(options: Mapping[str, object], policy: Policy | str | Path) -> None:
    """Raises InputError for options that say what a recipe says already."""
    given = [name for name, value in options.items() if value is not None]
    if policy != "l1":
        given.insert(0, "policy")
    if given:
        raise InputError(f"recipe= says what to remove, so {', '.join(given)} cannot be given as well; leave one out")
