"""Meeting one budget, counted on the real rewritten graph."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from secateur.ir import Array, BudgetError, Graph, InputError, PassError
from secateur.passes.analysis.cost import totals
from secateur.passes.context import context_of
from secateur.passes.notes import Coupling, Importance, KeepMask

from .amount import UNITS, Allocation, Amount
from .estimate import Count, estimator, fixed_cost, work_of_weights
from .obstacles import obstacles, uncounted
from .select import Ladder
from .widths import SLACKS, Stops, stops

LANES = 8  # channels in a vector where nobody said for which machine
FILL_TRIES = 12  # counts spent on using up what a wide last step left
CLOSE = 0.005  # a budget met to this share is met
USED = 0.95  # a budget used to this share is used: no finer widths are tried


def notes_of(graph: Graph, method: str, rounds: int = 1) -> tuple[Coupling, Importance]:
    """Raises PassError where the passes that an allocator builds on did not run."""
    if rounds != 1:
        raise PassError(f"'{method}{{rounds={rounds}}}': an allocation is one round; a policy runs several (Rounds)")
    coupling, importance = graph.note(Coupling), graph.note(Importance)
    if coupling is None or importance is None:
        missing = "'couple'" if coupling is None else "a criterion such as 'l1'"
        raise PassError(f"'{method}' divides a budget by scores: put {missing} before it")
    if np.shape(importance.scores) != (coupling.size,):
        raise PassError(
            f"criterion '{importance.criterion}' left scores of shape {list(np.shape(importance.scores))}; '{method}' "
            f"takes one number for each of the {coupling.size} units of the coupling"
        )
    return coupling, importance


def roundings(graph: Graph, round_to: int | str) -> tuple[int, ...]:
    """The vector widths to try, in order. Raises InputError."""
    if round_to == "auto":
        lanes = context_of(graph).lanes or LANES
        return tuple(lanes >> k for k in range(lanes.bit_length()))
    if not isinstance(round_to, int) or round_to < 1:
        raise InputError(f"round_to={round_to}: give 'auto' or a whole number from 1 up")
    return (round_to,)


def share_of_channels(graph: Graph, amount: Amount, ladder: Ladder, kept: Array, round_to: int | str) -> Graph:
    """Add the keep mask of these numbers of rungs, at widths that pay. The share is one of what may go at all."""
    coupling = graph.note(Coupling)
    assert coupling is not None
    lanes = roundings(graph, round_to)[0]
    mask = ladder.mask(stops(coupling, ladder, lanes, work_of_weights(graph, "macs")).rounded(kept))
    loose = ~coupling.frozen.astype(bool)
    return graph.with_note(KeepMask(mask), Allocation(amount, int(loose.sum()), int(mask[loose].sum()), lanes))


def meet(graph: Graph, amount: Amount, ladder: Ladder, order: Array, round_to: int | str) -> Graph:
    """Add the keep mask that keeps most and costs at most the amount, one step from exceeding it.

    Rungs are given up in this order, at widths that pay: the first kind of stops that uses the budget, or the one that
    uses most of it. Raises BudgetError that states the least that can be reached.
    """
    coupling, kind = graph.note(Coupling), amount.kind
    assert coupling is not None
    whole = before(graph, kind)
    if whole == 0:
        raise InputError(
            f"budget {kind}={_spell(amount)}: the network has no {kind} that could be counted, so "
            f"there is nothing to shrink; {uncounted(graph)}"
        )
    limit, least, lanes = amount.limit(whole), whole, roundings(graph, round_to)
    work, count, guess = work_of_weights(graph, "macs"), counter(graph, kind), estimator(graph, coupling, kind)
    best: tuple[Array | None, int, int] = (None, -1, lanes[0])
    for width, slack in ((n, slack) for n in lanes for slack in (SLACKS if n > 1 else SLACKS[:1])):
        table = stops(coupling, ladder, width, work, slack)
        found, reached = _Search(ladder, order, table, limit, count, guess).run()
        if found is None:
            least = min(least, reached)
        elif reached > best[1]:
            best = (found, reached, width)
        if best[1] >= USED * limit:
            break
    mask, reached, width = best
    if mask is None:
        stopping = obstacles(graph, coupling, ladder.mask(ladder.least), kind)
        raise BudgetError(
            f"budget {kind}={_spell(amount)} is out of reach: at least {least:,} ({least / whole:.1%} of {whole:,}) "
            "remain, because frozen channels and one survivor in every layer stay"
            + (f", most of it in {stopping}; " if stopping else "; ")
            + (_shared(amount) or "raise the budget, lower round_to or floor, or protect less")
        )
    remark = f"widths are multiples of {width}, as with {lanes[0]} the budget is out of reach or left unused"
    done = Allocation(amount, whole, reached, width, (remark,) if width != lanes[0] else ())
    return graph.with_note(KeepMask(mask), done)


def _spell(amount: Amount) -> str:
    return f"{amount.value:.4g} of the original ({amount.value:.1%})" if amount.share else f"{amount.value:,}"


def _shared(amount: Amount) -> str:
    """What to do about an absolute number that reads like percents."""
    if amount.share or not 0 < amount.value <= 100:
        return ""
    return f"{amount.value} means {amount.value} {UNITS[amount.kind]}; for a share write {amount.value}%"


@dataclass(frozen=True, eq=False)
class _Search:
    """The best selection within a limit, along one order of giving up rungs."""

    ladder: Ladder
    order: Array
    stops: Stops
    limit: int
    count: Count
    estimate: Count
    counted: dict[bytes, int] = field(default_factory=dict)

    def run(self) -> tuple[Array | None, int]:
        """(mask, cost), or (None, least cost)."""
        low = self._last_that_fits()
        if low < 0:
            return None, self._real(self._widths(0))
        return self._fill(self.order[low:], self._widths(low))

    def _widths(self, count: int) -> Array:
        return self.stops.rounded(self.ladder.kept(self.order, count))

    def _real(self, widths: Array) -> int:
        key = widths.tobytes()
        if key not in self.counted:
            self.counted[key] = self.count(self.ladder.mask(widths))
        return self.counted[key]

    def _last_that_fits(self) -> int:
        """How many rungs of the order may stay; -1 for not even none.

        Bisection on the estimate finds where to start; from there the real count decides, in growing steps.
        """
        most = len(self.order)
        low, high = -1, most + 1  # the largest that is known to fit, the smallest that is known not to
        while high - low > 1:
            middle = (low + high) // 2
            fits = self.estimate(self.ladder.mask(self._widths(middle))) <= self.limit
            low, high = (middle, high) if fits else (low, middle)
        probe, low, high, step = max(low, 0), -1, most + 1, 1
        while high - low > 1:
            fits = self._real(self._widths(probe)) <= self.limit
            low, high = (probe, high) if fits else (low, probe)
            if low < 0:  # still above the limit: further down
                probe = max(high - step, 0)
            elif high > most:
                probe = min(low + step, most)
            else:
                probe = (low + high) // 2
            step *= 2
        return low

    def _fill(self, rest: Array, kept: Array) -> tuple[Array, int]:
        """Widen single orbits to their next stop while that fits, those whose turn was next first.

        The step that exceeds the budget may be a wide one; smaller ones after it can still find room.
        """
        tries, cost = 0, self._real(kept)
        _, first = np.unique(self.ladder.orbit[rest], return_index=True)
        for orbit in self.ladder.orbit[rest[np.sort(first)]]:
            if tries == FILL_TRIES or self.limit - cost <= CLOSE * self.limit:
                break
            wider = kept.copy()
            wider[orbit] = self.stops.wider(kept)[orbit]
            if wider[orbit] == kept[orbit]:
                continue
            tries += 1
            reached = self._real(wider)
            if reached <= self.limit:
                kept, cost = wider, reached
        return self.ladder.mask(kept), cost


def counter(graph: Graph, kind: str) -> Count:
    """Count ``kind`` on the real rewritten graph, with weights that are only shapes; time is an estimate."""
    if kind == "time":
        coupling = graph.note(Coupling)
        assert coupling is not None
        return estimator(graph, coupling, kind)
    from secateur.passes.rewrite.slim import slim_shapes

    def count(mask: Array) -> int:
        return int(getattr(totals(slim_shapes(graph, mask)), kind))

    return count


def before(graph: Graph, kind: str) -> int:
    """What the model cost as it was given, or, where nobody noted it, what the graph costs."""
    if kind == "time":
        return fixed_cost(graph, kind) + sum(work_of_weights(graph, kind).values())
    return int(getattr(context_of(graph).baseline or totals(graph), kind))
