"""Allocation: scores and one budget in, a keep mask out."""

from .budget import LANES, Allocation, Amount, Baseline, Vectors
from .global_ import Global
from .knapsack import Knapsack
from .rounds import Rounds
from .sensitivity import Sensitivity
from .timed import Cost, Timed
from .uniform import Uniform

__all__ = [
    "LANES",
    "Allocation",
    "Amount",
    "Baseline",
    "Cost",
    "Global",
    "Knapsack",
    "Rounds",
    "Sensitivity",
    "Timed",
    "Uniform",
    "Vectors",
]
