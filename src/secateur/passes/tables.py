"""The tables of all passes, by name."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from secateur.ir import Graph

from .allocate.amount import Allocator
from .allocate.global_ import Global
from .allocate.knapsack import Knapsack
from .allocate.sensitivity import Sensitivity
from .allocate.uniform import Uniform
from .allocate.zeros import Zeros
from .analysis.cost import CountCost
from .analysis.modularity import Modularity
from .compensate import ALL as ALL_COMPENSATION
from .compensate.constants import FoldConstants
from .coupling.couple import Couple
from .pipeline import Pass
from .rewrite import ALL as ALL_REWRITES
from .rewrite.portable import Portable
from .rewrite.slim import Slim
from .score import ALL as ALL_CRITERIA
from .score import Criterion
from .sparsify import Sparsify

CRITERIA: Mapping[str, type[Criterion]] = MappingProxyType({p.name: p for p in ALL_CRITERIA})
ALL_ALLOCATORS: tuple[type[Allocator], ...] = (Uniform, Global, Sensitivity, Knapsack, Zeros)
ALLOCATORS: Mapping[str, type[Allocator]] = MappingProxyType({p.name: p for p in ALL_ALLOCATORS})
COMPENSATION: Mapping[str, type[Pass]] = MappingProxyType({p.name: p for p in ALL_COMPENSATION})
# ``fold_constants`` is exact before slim and repairs after it.
REWRITES: Mapping[str, type[Pass]] = MappingProxyType(
    {p.name: p for p in ALL_REWRITES} | {FoldConstants.name: FoldConstants}
)
# What may stand before the cut: rewrites, and what repairs the weights that these made.
BEFORE_CUT: Mapping[str, type[Pass]] = MappingProxyType(dict(COMPENSATION) | dict(REWRITES))
SPARSITY: Mapping[str, type[Pass]] = MappingProxyType({Sparsify.name: Sparsify})
# What may change weights after the cut; and that, or their order.
AFTER_CUT: Mapping[str, type[Pass]] = MappingProxyType(dict(COMPENSATION) | dict(SPARSITY))
AFTER: Mapping[str, type[Pass]] = MappingProxyType({Portable.name: Portable} | dict(AFTER_CUT))
PASSES: Mapping[str, type[Pass]] = MappingProxyType(
    {p.name: p for p in (Couple, CountCost, Modularity, Slim, Portable)}
    | dict(REWRITES)
    | dict(CRITERIA)
    | dict(ALLOCATORS)
    | dict(AFTER_CUT)
)


def rewrites_of(before: Iterable[Pass]) -> tuple[Pass, ...]:
    """Of the passes before the cut those that restructure, which anybody can repeat."""
    return tuple(step for step in before if step.name in REWRITES)


def repairs_of(before: Iterable[Pass]) -> tuple[Pass, ...]:
    """Of the passes before the cut those that repair what the rewrites made, which take data."""
    return tuple(step for step in before if step.name not in REWRITES)


def may_change(steps: Iterable[Pass], graph: Graph) -> frozenset[str]:
    """The weights of a slim graph that these passes may change: what each of them declares."""
    kinds = {kind.name: kind for kind in (*ALL_COMPENSATION, Sparsify)}
    return frozenset(name for step in steps if step.name in kinds for name in kinds[step.name].may_change(graph))
