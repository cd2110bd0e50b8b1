"""Graph in, graph out: analyses, criteria, allocation and rewrites, and the table of all of them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from .allocate.global_ import Global
from .allocate.uniform import Uniform
from .analysis.cost import CountCost
from .analysis.coupling import Couple
from .pipeline import Pass, Pipeline, parse_spec, print_spec
from .rewrite.canonicalize import Canonicalize
from .rewrite.slim import Slim
from .score import ALL, Criterion

CRITERIA: Mapping[str, type[Criterion]] = MappingProxyType({p.name: p for p in ALL})
ALLOCATORS: Mapping[str, type[Any]] = MappingProxyType({p.name: p for p in (Uniform, Global)})
PASSES: Mapping[str, type[Any]] = MappingProxyType(
    {p.name: p for p in (Canonicalize, Couple, CountCost, Slim)} | dict(CRITERIA) | dict(ALLOCATORS)
)

__all__ = ["ALLOCATORS", "CRITERIA", "PASSES", "Pass", "Pipeline", "parse_spec", "print_spec"]
