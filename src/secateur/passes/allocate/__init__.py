"""Allocation: scores and one budget in, a keep mask out."""

from .budget import LANES, Allocation, Amount, Baseline, Vectors
from .global_ import Global
from .knapsack import Knapsack
from .select import select
from .uniform import Uniform

__all__ = ["LANES", "Allocation", "Amount", "Baseline", "Global", "Knapsack", "Uniform", "Vectors", "select"]
