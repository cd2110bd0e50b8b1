"""Meeting one budget, counted on the real rewritten graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from secateur.ir import Array, BudgetError, Graph, InputError, PassError
from secateur.passes.analysis.cost import Costs, totals
from secateur.passes.analysis.notes import Coupling, Importance

from .estimate import Count
from .select import Ladder

KINDS = ("macs", "params", "bytes", "channels")
AUTO_ROUNDING = (8, 4, 2, 1)
FILL_TRIES = 12  # counts spent on using up what a wide last step left
CLOSE = 0.005  # a budget met to this share is met


@dataclass(frozen=True)
class Amount:
    """What must remain at most: a share of the original (float up to 1) or an absolute number (int)."""

    kind: str
    value: float | int

    @property
    def share(self) -> bool:
        return isinstance(self.value, float)

    def limit(self, before: int) -> int:
        """The absolute number."""
        return int(self.value * before) if self.share else int(self.value)


@dataclass(frozen=True)
class Baseline:
    """What shares of a budget refer to: the cost of the model as it was given."""

    outlives_rewrites = True
    costs: Costs


@dataclass(frozen=True)
class Allocation:
    """What the allocator did, for the report. ``reached`` is in the budget's unit; ``remarks`` are sentences."""

    outlives_rewrites = True
    amount: Amount
    before: int
    reached: int
    round_to: int
    remarks: tuple[str, ...] = ()

    @property
    def achieved(self) -> float | int:
        """In the terms of the target: a share, or an absolute number."""
        return self.reached / self.before if self.amount.share and self.before else self.reached


def one_amount(method: str, **given: float | int | None) -> Amount:
    """The one budget that was given. Raises InputError for none, for two, and for senseless values."""
    named = {kind: value for kind, value in given.items() if value is not None}
    if len(named) != 1:
        what = "no budget" if not named else f"the budgets {' and '.join(named)}"
        raise InputError(
            f"'{method}' was given {what}; name exactly one of {', '.join(KINDS)}, for example {method}{{macs=50%}}"
        )
    ((kind, value),) = named.items()
    check_amount(kind, value)
    return Amount(kind, value)


def check_amount(kind: str, value: float | int) -> None:
    """Raises InputError where the value is no share and no absolute number."""
    if isinstance(value, float) and not 0 < value <= 1:
        raise InputError(
            f"budget {kind}={value:g}: a share lies above 0 and is at most 1 (100%), as what remains; "
            "an absolute number is written whole, such as 120M or 120000000"
        )
    if isinstance(value, int) and (value <= 0 or kind == "channels"):
        raise InputError(
            f"budget {kind}={value}: give {'a share such as 50%' if kind == 'channels' else 'more than 0'}"
        )


def notes_of(graph: Graph, method: str) -> tuple[Coupling, Importance]:
    """Raises PassError where the passes that an allocator builds on did not run."""
    coupling, importance = graph.note(Coupling), graph.note(Importance)
    if coupling is None or importance is None:
        missing = "'couple'" if coupling is None else "a criterion such as 'l1'"
        raise PassError(f"'{method}' divides a budget by scores: put {missing} before it")
    return coupling, importance


def roundings(round_to: int | str) -> tuple[int, ...]:
    """The widths to try, in order. Raises InputError."""
    if round_to == "auto":
        return AUTO_ROUNDING
    if not isinstance(round_to, int) or round_to < 1:
        raise InputError(f"round_to={round_to}: give 'auto' or a whole number from 1 up")
    return (round_to,)


def meet(
    ladder: Ladder, order: Array, amount: Amount, before: int, count: Count, round_to: int | str, estimate: Count
) -> tuple[Array, Allocation]:
    """The keep mask that keeps most and costs at most the amount, one step from exceeding it.

    Raises BudgetError that states the least that can be reached.
    """
    if before == 0:
        raise InputError(
            f"budget {amount.kind}={_spell(amount)}: the network has no {amount.kind} that could be counted, so "
            "there is nothing to shrink; its operators may all be opaque (`secateur inspect` names them)"
        )
    limit = amount.limit(before)
    least = -1
    tried = roundings(round_to)
    for width in tried:
        found, reached = _search(ladder, order, width, limit, count, estimate)
        if found is not None:
            remarks: tuple[str, ...] = ()
            if width != tried[0]:
                remarks = (f"widths are multiples of {width}, as the budget is out of reach with {tried[0]}",)
            return found, Allocation(amount, before, reached, width, remarks)
        least = reached if least < 0 else min(least, reached)
    share = f" ({least / before:.1%} of {before:,})" if before else ""
    raise BudgetError(
        f"budget {amount.kind}={_spell(amount)} is out of reach: at least {least:,}{share} remain, because frozen "
        "channels and one survivor in every layer stay; raise the budget, lower round_to or floor, or protect less"
    )


def _spell(amount: Amount) -> str:
    return f"{amount.value:.4g} of the original ({amount.value:.1%})" if amount.share else f"{amount.value:,}"


def _search(
    ladder: Ladder, order: Array, width: int, limit: int, count: Count, estimate: Count
) -> tuple[Array | None, int]:
    """(mask, cost) of the best selection within the limit, or (None, least cost).

    Bisection on the estimate finds where to start; from there the real count decides, in growing steps.
    """
    counted: dict[bytes, int] = {}

    def widths(kept: int) -> Array:
        return ladder.rounded(ladder.kept(order, kept), width)

    def real(kept: int) -> int:
        at = widths(kept)
        key = at.tobytes()
        if key not in counted:
            counted[key] = count(ladder.mask(at))
        return counted[key]

    low, high = -1, len(order) + 1  # the largest that is known to fit, the smallest that is known not to
    while high - low > 1:
        middle = (low + high) // 2
        fits = estimate(ladder.mask(widths(middle))) <= limit
        low, high = (middle, high) if fits else (low, middle)
    probe, low, high, step = max(low, 0), -1, len(order) + 1, 1
    while high - low > 1:
        if real(probe) <= limit:
            low = probe
        else:
            high = probe
        if low < 0:  # still above the limit: further down
            probe = max(high - step, 0)
        elif high > len(order):
            probe = min(low + step, len(order))
        else:
            probe = (low + high) // 2
        step *= 2
    if low < 0:
        return None, real(0)
    at_low = widths(low)
    return _fill(ladder, order[low:], width, at_low, ladder.mask(at_low), real(low), limit, count)


def _fill(
    ladder: Ladder, rest: Array, width: int, kept: Array, best: Array, cost: int, limit: int, count: Count
) -> tuple[Array, int]:
    """Widen single pools by one step while that fits, those whose turn was next first.

    The step that exceeds the budget may be a wide one; smaller ones behind it can still find room.
    """
    tries = 0
    _, first = np.unique(ladder.orbit[rest], return_index=True)
    for orbit in ladder.orbit[rest[np.sort(first)]]:
        if tries == FILL_TRIES or limit - cost <= CLOSE * limit:
            break
        step = ladder.step(width)[orbit]
        wider = kept.copy()
        wider[orbit] = min((kept[orbit] // step + 1) * step, ladder.length[orbit])
        if wider[orbit] == kept[orbit]:
            continue
        tries += 1
        mask = ladder.mask(wider)
        reached = count(mask)
        if reached <= limit:
            kept, best, cost = wider, mask, reached
    return best, cost


def counter(graph: Graph, kind: str) -> Count:
    """Count ``kind`` on the real rewritten graph, with weights that are only shapes."""
    from secateur.passes.rewrite.slim import slim_shapes

    def count(mask: Array) -> int:
        return int(getattr(totals(slim_shapes(graph, mask)), kind))

    return count


def before(graph: Graph, kind: str) -> int:
    """What the model cost as it was given, or, where nobody noted it, what the graph costs."""
    noted = graph.note(Baseline)
    return int(getattr(noted.costs if noted else totals(graph), kind))
