"""Compensation: weights of a slim network repaired to compute more nearly what the original does. No labels."""

from .constants import FoldConstants
from .reestimate import ReestimateBN
from .refit import Refit

ALL = (FoldConstants, Refit, ReestimateBN)


__all__ = ["ALL", "FoldConstants", "ReestimateBN", "Refit"]
