"""What must hold of a smaller network's answers: so many stay the same, or outputs differ by so little.

Judged on examples that nothing was scored, fitted or tuned on; how sure the figure is goes with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from secateur.ir import InputError
from secateur.report.parts import Deviation, Quality

Z = 1.96  # of the normal distribution: 95 in a hundred


class Judged(Protocol):
    """What was seen of a network: its report."""

    @property
    def quality(self) -> Quality | None: ...
    @property
    def deviation(self) -> Deviation | None: ...


class Goal(Protocol):
    """What must hold of a network's answers on held-out examples."""

    def distance(self, found: Judged) -> float:
        """How much too far from the original it is; at most 0 where the goal is met. Raises InputError."""

    def shown(self, found: Judged) -> str:
        """What was seen, for a list of trials."""

    def said(self, found: Judged) -> str:
        """What had to hold, what was seen, and how sure that is."""

    @property
    def wish(self) -> str:
        """What cannot be had, for an error."""


@dataclass(frozen=True)
class Keep:
    """At least this share of the most likely classes stay what they were.

    The search keeps the smallest network of several that passed, by the examples that judge it, so what was seen of it
    flatters: it has to show a standard error more than the share, so that others' answers stay as well.
    """

    share: float

    def distance(self, found: Judged) -> float:
        seen = self._comparable(found)
        return self.shown_by(seen.examples) - seen.agreement

    def shown_by(self, examples: int) -> float:
        """The share of so many examples that must be seen; as many as can tell the share from 1 can show it."""
        return min(1.0, self.share + math.sqrt(self.share * (1 - self.share) / examples))

    def shown(self, found: Judged) -> str:
        return f"{self._comparable(found).agreement:.1%}"

    def said(self, found: Judged) -> str:
        seen = self._comparable(found)
        low, high = interval(round(seen.agreement * seen.examples), seen.examples)
        return (
            f"at least {100 * self.share:.4g}% of the answers had to stay, and {self.shown_by(seen.examples):.2%} of "
            f"these {seen.examples}, which it was chosen by: {seen.agreement:.2%} do{_unmet(self, found)}, so between "
            f"{low:.1%} and {high:.1%} of others will, 95 times in 100"
        )

    @property
    def wish(self) -> str:
        return f"{self.share:.4g} of the answers cannot be kept"

    def _comparable(self, found: Judged) -> Quality:
        if found.quality is None:
            raise InputError(
                "keep= compares the most likely class, and the network's first output is not scores by class; say how "
                "far outputs may differ instead, as max_error=0.01 (--max-error 1%)"
            )
        if self.share < 1 and found.quality.examples * (1 - self.share) < 1:
            least = math.ceil(1 / (1 - self.share))
            raise InputError(
                f"keep {self.share:.4g}: {found.quality.examples} examples to judge by cannot tell it from all answers;"
                f" give calibration data of which at least {least} can be held out, or hold out more"
            )
        return found.quality


@dataclass(frozen=True)
class Near:
    """Outputs differ by at most this share, in the mean of all examples (``Deviation``)."""

    error: float

    def distance(self, found: Judged) -> float:
        return self._comparable(found).error - self.error

    def shown(self, found: Judged) -> str:
        return f"{self._comparable(found).error:.2%}"

    def said(self, found: Judged) -> str:
        seen = self._comparable(found)
        sure = f", between {seen.low:.2%} and {seen.high:.2%} of others, 95 times in 100" if seen.examples > 1 else ""
        return (
            f"outputs could differ by {self.error:.2%} at most: they do by {seen.error:.2%} in the mean of "
            f"{seen.examples} examples{_unmet(self, found)}{sure}"
        )

    @property
    def wish(self) -> str:
        return f"an error of at most {self.error:.4g} cannot be had"

    def _comparable(self, found: Judged) -> Deviation:
        if found.deviation is None:
            raise InputError("max_error= compares outputs of real numbers, and the network has none")
        return found.deviation


def _unmet(goal: Goal, found: Judged) -> str:
    met = goal.distance(found) <= 0
    return "" if met else " (NOT what was asked: tuned by time, it came out otherwise than when it was tried)"


def kept_share(keep: float | str) -> float:
    """``"99%"`` or 0.99 as 0.99. Raises InputError for what is not a share of answers."""
    share = _share(keep)
    if not 0 < share <= 1:
        raise InputError(f"keep {keep}: give the share of answers that must stay the same, such as 99% or 0.99")
    return share


def largest_error(error: float | str) -> float:
    """``"1%"`` or 0.01 as 0.01. Raises InputError for what is not a distance of outputs."""
    share = _share(error)
    if not 0 < share < 1:
        raise InputError(f"max_error {error}: give how far outputs may differ in the mean, such as 1% or 0.01")
    return share


def _share(value: float | str) -> float:
    text = str(value).strip()
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        return math.nan
    return math.nan if isinstance(value, bool) else share


def interval(hits: int, examples: int) -> tuple[float, float]:
    """Wilson's interval of a share of which ``hits`` of so many examples were seen, at 95 %."""
    p, n = hits / examples, examples
    centre, spread = p + Z**2 / (2 * n), Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n * n))
    scale = 1 + Z**2 / n
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
