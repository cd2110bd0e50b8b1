"""Criteria: one number per unit, higher = keep."""

from .criterion import Criterion
from .l1 import L1
from .l2 import L2
from .random import Random
from .slimming import Slimming
from .thinet import ThiNet

__all__ = ["L1", "L2", "Criterion", "Random", "Slimming", "ThiNet"]
