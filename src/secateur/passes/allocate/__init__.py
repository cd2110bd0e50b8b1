"""Allocation: scores and one budget in, a keep mask out."""

from .budget import Allocation, Amount, Baseline
from .global_ import Global
from .select import select
from .uniform import Uniform

__all__ = ["Allocation", "Amount", "Baseline", "Global", "Uniform", "select"]
