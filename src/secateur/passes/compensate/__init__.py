"""Compensation: weights of a slim network repaired to compute more nearly what the original does. No labels."""

from .constants import FoldConstants
from .distill import Distill
from .reestimate import ReestimateBN
from .refit import Refit

ALL = (FoldConstants, Refit, ReestimateBN, Distill)


__all__ = ["ALL", "Distill", "FoldConstants", "ReestimateBN", "Refit"]
