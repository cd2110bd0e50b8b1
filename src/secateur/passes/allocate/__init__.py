"""Allocation: scores and one budget in, a keep mask out."""

from .amount import Allocation, Amount
from .budget import LANES
from .global_ import Global
from .knapsack import Knapsack
from .rounds import Rounds
from .sensitivity import Sensitivity
from .timed import Timed
from .uniform import Uniform
from .zeros import Zeros

__all__ = [
    "LANES",
    "Allocation",
    "Amount",
    "Global",
    "Knapsack",
    "Rounds",
    "Sensitivity",
    "Timed",
    "Uniform",
    "Zeros",
]
