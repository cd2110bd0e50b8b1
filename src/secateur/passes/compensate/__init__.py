"""Compensation: weights of a slim network repaired to compute more nearly what the original does. No labels."""

from collections.abc import Iterable

from secateur.ir import Graph
from secateur.passes.pipeline import Pass

from .constants import FoldConstants
from .reestimate import ReestimateBN
from .refit import Refit

ALL = (FoldConstants, Refit, ReestimateBN)


def may_change(steps: Iterable[Pass], graph: Graph) -> frozenset[str]:
    """The weights of a slim graph that these passes after the cut may change: what each compensation declares."""
    kinds = {kind.name: kind for kind in ALL}
    return frozenset(name for step in steps if step.name in kinds for name in kinds[step.name].may_change(graph))


__all__ = ["ALL", "FoldConstants", "ReestimateBN", "Refit", "may_change"]
