"""The arguments of ``compile``, checked against each other before anything is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from secateur.ir import Graph, InputError
from secateur.passes import COMPENSATION
from secateur.passes.allocate import LANES
from secateur.passes.allocate.amount import Amount
from secateur.passes.analysis.cost import totals
from secateur.passes.pipeline import keeps_state

from .goals import Goal, Keep, Near, kept_share, largest_error
from .policy import Policy
from .policy.parts import amount
from .timing.tables import Table, read_table


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
    """How many channels a vector of the target holds, or a warp, of several the widest; eight where none is named.

    The narrowest tile of a GPU is as wide as a warp. Raises InputError for an unknown target.
    """
    if target is None:
        return LANES
    from secateur.codegen import get_target  # a tenth of a second, where a target is named

    chosen = [get_target(name) for name in targets_of(target)]
    return max((one.warp or one.lanes for one in chosen), default=LANES)


def untimed(target: str | None) -> str | None:
    """The same target by the name of its kind, at which nothing is timed on this machine."""
    if target is None:
        return None
    from secateur.codegen import get_target

    return ",".join(dict.fromkeys(get_target(name).name for name in targets_of(target)))


def targets_of(target: str | None) -> tuple[str, ...]:
    """The targets of a text such as ``x86-avx2,aarch64:cortex-a76``. Raises InputError where one is named twice."""
    names = () if target is None else tuple(name.strip() for name in target.split(","))
    if len(set(names)) < len(names) or not all(names):
        raise InputError(f"target '{target}': name each target once, with commas between them")
    return names


def table_of(path: str | Path | None, lanes: int, timed: bool, runtime: str | None = None) -> Table | None:
    """The latency table in a file. Raises InputError for one that nobody asks, or that cannot be read, and for a
    ``runtime`` to measure in where nothing is measured.
    """
    if (path is not None or runtime is not None) and not timed:
        what = "a latency table" if path is not None else "a runtime"
        raise InputError(
            f"{what} says what a budget of time takes: give one, latency_ms=12.5 or speedup=2, or leave it out"
        )
    if path is None:
        return None
    if runtime is not None:
        raise InputError(f"a latency table stands for measuring, so runtime={runtime} cannot be given as well")
    return read_table(path, lanes)


def check_by_hand_alone(budgets: Mapping[str, object]) -> None:
    """Raises InputError for budgets where widths or channels are chosen by hand."""
    given = [name for name, value in budgets.items() if value is not None]
    if given:
        raise InputError(
            f"widths= and drop= say what remains, so {', '.join(given)} cannot be given as well; leave it out"
        )


def checkpoints_of(folder: str | Path | None, policy: Policy) -> Path | None:
    """The folder for states of passes that take long, made if it is not there.

    Raises InputError where no pass keeps any, and for what is not a folder.
    """
    if folder is None:
        return None
    if not any(keeps_state(type(step)) for step in (*policy.rewrites, *policy.compensation())):
        able = ", ".join(name for name, kind in COMPENSATION.items() if keeps_state(kind))
        raise InputError(
            f"checkpoint={str(folder)!r} is where passes that take long keep their state ({able}), and policy "
            f"'{policy.spec}' has none; add it, as in 'obs,knapsack,refit,distill{{time=2m}}', or leave the folder out"
        )
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"checkpoint '{folder}' is not a folder: {error.strerror or error}; name another") from error
    return Path(folder)


def check_recipe_alone(options: Mapping[str, object], policy: Policy | str | Path) -> None:
    """Raises InputError for options that say what a recipe says already."""
    given = [name for name, value in options.items() if value is not None]
    if policy != "l1":
        given.insert(0, "policy")
    if given:
        raise InputError(f"recipe= says what to remove, so {', '.join(given)} cannot be given as well; leave one out")


def goal_of(
    keep: float | str | None, max_error: float | str | None, calibrated: bool, others: Mapping[str, object]
) -> Goal:
    """``keep`` or ``max_error`` as what must hold.

    Raises InputError where both are given, for what neither goes with, and without data to judge by.
    """
    if keep is not None and max_error is not None:
        raise InputError("keep= and max_error= are two budgets in quality; give one")
    goal: Goal = Near(largest_error(max_error)) if max_error is not None else Keep(kept_share(keep or 0))
    name = "max_error=" if max_error is not None else "keep="
    given = [other for other, value in others.items() if value is not None]
    if given:
        raise InputError(
            f"{name} finds out how much may go, so {', '.join(given)} cannot be given as well; of budgets it goes with "
            "macs=, latency_ms= and speedup="
        )
    if not calibrated:
        raise InputError(
            f"{name} compares answers on data: give calibration=batches in Python, or --calibration FILE.npz or a "
            "folder of images; no labels are needed"
        )
    return goal


def most_of(macs: float | int | str | None, graph: Graph) -> float:
    """A budget of multiply-accumulates as a share of this graph's, at most 1; 1 without one. Raises InputError."""
    if macs is None:
        return 1.0
    before = totals(graph).macs
    return min(1.0, Amount("macs", amount("macs", macs)).limit(before) / max(before, 1))
