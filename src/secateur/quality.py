"""A budget in quality: the smallest network that answers like the original, found by trying budgets of work.

Quality is a number that only a finished network has, after its repair, so each trial is a whole ``compile``; what lies
between two trials is halved. It is judged on examples that nothing was scored, fitted or tuned on.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from secateur.ir import BudgetError, InputError
from secateur.report.parts import Quality

if TYPE_CHECKING:
    from .compiled import Compiled

TRIALS = 7  # networks that are made at most
FINE = 0.02  # of the work: nearer than this two budgets are not told apart
Z = 1.96  # of the normal distribution: 95 in a hundred


@dataclass(frozen=True)
class Trial:
    """One network: the share of the multiply-accumulates that was left, and how it answers."""

    share: float
    quality: Quality

    def __str__(self) -> str:
        return f"{self.quality.agreement:.1%} at {self.share:.0%}"


def kept_share(keep: float | str) -> float:
    """``"99%"`` or 0.99 as 0.99. Raises InputError for what is no share of answers."""
    text = str(keep).strip()
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = math.nan
    if isinstance(keep, bool) or not 0 < share <= 1:
        raise InputError(f"keep {keep}: give the share of answers that must stay the same, such as 99% or 0.99")
    return share


class Makes(Protocol):
    """``compile`` of one model, with everything given but the budget."""

    def __call__(self, *, macs: float) -> Compiled:
        """The network that is left at this share of the multiply-accumulates."""


def smallest(keep: float, most: float, tries: Makes, makes: Makes) -> Compiled:
    """The smallest network of which at least ``keep`` of the answers are the original's, with ``most`` of its work.

    ``tries`` makes what is judged, ``makes`` the one that is given back, whose report says what was tried. Raises
    BudgetError where none keeps enough, and InputError where answers cannot be compared.
    """
    share, trials = search(keep, most, lambda left: tries(macs=left).report.quality)
    done = makes(macs=share)
    quality = _comparable(done.report.quality, keep)
    remarks = (*done.stated.remarks, said(keep, quality, trials))
    return dataclasses.replace(done, stated=dataclasses.replace(done.stated, remarks=remarks))


def search(keep: float, most: float, at: Callable[[float], Quality | None]) -> tuple[float, tuple[Trial, ...]]:
    """(the least share of the work, at most ``most``, at which at least ``keep`` of the answers stay, all trials).

    ``at`` makes the network of a share and says how it answers; it raises BudgetError where channels do not go so far
    down. Raises BudgetError where none keeps enough, and InputError where answers cannot be compared.
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
            trials.append(Trial(share, _comparable(found, keep)))
            low, high = (low, share) if trials[-1].quality.agreement >= keep else (share, high)
        if min(high, most) - low <= FINE:
            break
        share = (low + min(high, most)) / 2
    if high > most or high == 1:
        best = max(trials, key=lambda t: t.quality.agreement, default=None)
        tried = "no network of these budgets can be made" if best is None else f"the most was {best} of the MACs"
        raise BudgetError(
            f"{keep:.4g} of the answers cannot be kept"
            + (f" with at most {most:.0%} of the MACs" if most < 1 else "")
            + f": {tried}. Repair more (refit, distill in the policy), give more calibration data, or ask for less"
        )
    return high, tuple(trials)


def said(keep: float, chosen: Quality, trials: Sequence[Trial]) -> str:
    """What was found, how sure that is, and what else was tried, for the report."""
    low, high = interval(round(chosen.agreement * chosen.examples), chosen.examples)
    others = ", ".join(map(str, sorted(trials, key=lambda t: -t.share)))
    less = "" if chosen.agreement >= keep else " (LESS than was asked: tuned by time, it came out otherwise than tried)"
    return (
        f"at least {100 * keep:.4g}% of the answers had to stay: {chosen.agreement:.2%} of {chosen.examples} do{less}, "
        f"so between {low:.1%} and {high:.1%} of others will, 95 times in 100; tried: {others} of the MACs"
    )


def interval(hits: int, examples: int) -> tuple[float, float]:
    """Wilson's interval of a share of which ``hits`` of so many examples were seen, at 95 %."""
    p, n = hits / examples, examples
    centre, spread = p + Z**2 / (2 * n), Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n * n))
    scale = 1 + Z**2 / n
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def _comparable(found: Quality | None, keep: float) -> Quality:
    if found is None:
        raise InputError(
            "keep= compares the most likely class, and the network's first output is not scores by class; give a "
            "budget of work instead, as macs=0.5"
        )
    if keep < 1 and found.examples * (1 - keep) < 1:
        least = math.ceil(1 / (1 - keep))
        raise InputError(
            f"keep {keep:.4g}: {found.examples} examples to judge by cannot tell it from all answers; give calibration "
            f"data of which at least {least} can be held out, or hold out more"
        )
    return found
