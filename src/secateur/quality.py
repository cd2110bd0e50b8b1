"""A budget in quality: the smallest network that answers like the original, found by trying budgets of work.

Quality is a number that only a finished network has, after its repair, so each trial is a whole ``compile``; what lies
between two trials is halved. It is judged on examples that nothing was scored, fitted or tuned on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from secateur.ir import BudgetError, Graph
from secateur.passes.allocate.amount import Amount
from secateur.passes.allocate.side_by_side import SideBySide

from .goals import Goal, Judged
from .policy.parts import amount

if TYPE_CHECKING:
    from secateur.passes.context import LatencyModel
    from secateur.report.report import Report

    from .compiled import Compiled

TRIALS = 7  # networks that are made at most
ROUNDS = 3  # searches, where what is small enough turns out to be too slow
FINE = 0.02  # of the work: nearer than this two budgets are not told apart


@dataclass(frozen=True)
class Trial:
    """One network: the share of the multiply-accumulates that was left, and what its answers are like."""

    share: float
    shown: str
    distance: float

    def __str__(self) -> str:
        return f"{self.shown} at {self.share:.0%}"


class Makes(Protocol):
    """``compile`` of one model, with everything given but the budget."""

    def __call__(self, *, macs: float) -> Compiled:
        """The network that is left at this share of the multiply-accumulates."""


def smallest(
    goal: Goal, most: float, tries: Makes, makes: Makes, slow: Callable[[Compiled], float] = lambda made: 0.0
) -> Compiled:
    """The smallest network that meets the goal, with at most ``most`` of the original's work.

    ``tries`` makes what is judged, ``makes`` the one that is given back, whose report says what was tried. ``slow``:
    how many times as long as it may a network takes; one that is too slow is made smaller. Raises BudgetError where
    none meets all, and InputError where answers cannot be compared.
    """
    tried: list[Trial] = []
    for _ in range(ROUNDS):
        share, trials = search(goal, most, lambda left: tries(macs=left).report)
        tried += trials
        done = makes(macs=share)
        over = slow(done)
        if over <= 1:
            others = ", ".join(map(str, sorted(tried, key=lambda t: -t.share)))
            took = f"; it takes {over:.2f} of the time that it may" if over else ""
            told = f"{goal.said(done.report)}; tried: {others} of the MACs{took}"
            return dataclasses.replace(
                done, stated=dataclasses.replace(done.stated, remarks=(*done.stated.remarks, told))
            )
        most = share * min(1 - FINE, 1 / over)
    raise BudgetError(
        f"the network of {share:.0%} of the MACs takes {over:.2f} times as long as it may, and {ROUNDS} searches found "
        "none that is quicker; allow more time, or give a budget in macs"
    )


def share_of_macs(report: Report) -> float:
    """The share of the original's multiply-accumulates that is left."""
    return 1.0 if report.after is None else report.after.macs / max(report.before.macs, 1)


def too_slow(dense: Graph, timed: Mapping[str, float | str | None], model: LatencyModel) -> Callable[[Compiled], float]:
    """How many times as long as ``latency_ms`` or ``speedup`` allow a network takes, by all that blocks say of it."""
    limits = [Amount(kind, amount(kind, value)) for kind, value in timed.items() if value is not None]
    clocks = [SideBySide(dense, model, limit) for limit in limits]

    def over(made: Compiled) -> float:
        return max(clock.used(clock(made.graph).high) for clock in clocks)

    return over


def search(goal: Goal, most: float, at: Callable[[float], Judged]) -> tuple[float, tuple[Trial, ...]]:
    """(the least share of the work, at most ``most``, at which the goal is met, all trials).

    ``at`` makes the network of a share and says how it answers; it raises BudgetError where channels do not go so far
    down. Raises BudgetError where no network meets the goal, and InputError where answers cannot be compared.
    """
    low, high, trials = 0.0, 1.0, list[Trial]()
    share = min(most, 0.5)
    while len(trials) < TRIALS:
        try:
            found = at(share)
        except BudgetError:
            if not low and share >= most:
                raise
            low = share
        else:
            trials.append(Trial(share, goal.shown(found), goal.distance(found)))
            low, high = (low, share) if trials[-1].distance <= 0 else (share, high)
        if min(high, most) - low <= FINE:
            break
        share = (low + min(high, most)) / 2
    if high > most or high == 1:
        best = min(trials, key=lambda t: t.distance, default=None)
        tried = "no network of these budgets can be made" if best is None else f"the best was {best} of the MACs"
        raise BudgetError(
            goal.wish
            + (f" with at most {most:.0%} of the MACs" if most < 1 else "")
            + f": {tried}. Repair more (refit, distill in the policy), give more calibration data, or ask for less"
        )
    return high, tuple(trials)
