"""A kernel family: all that the rest of code generation knows of one kind of kernel."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .program import Frozen

if TYPE_CHECKING:
    from tvm import tirx

    from secateur.codegen.targets import Target
    from secateur.ir import Graph, Node

    from .axes import Axes
    from .fusion import Chain
    from .placement import Placement
    from .program import Argument, Choice, Spec, Weight
    from .tensors import Blocked, Floats, Ints


# Metadata of a spec's field that came after its first records: these stand for workloads in which it is 0.
LATE: Mapping[str, bool] = MappingProxyType({"late": True})


class Workload(Frozen, Protocol):
    """A spec that can be tuned."""

    @property
    def macs(self) -> int: ...
    @property
    def threads(self) -> int: ...
    @property
    def computes(self) -> Hashable: ...
    @property
    def title(self) -> str: ...
    def estimate(self, target: Target) -> float: ...
    def workload(self) -> Workload: ...


Arrays = tuple[list[NDArray[np.float32] | NDArray[np.int32]], int]
Kernel = tuple[Workload, "Choice | None"]  # a spec that can be tuned, and how it is tiled
Accepts = Callable[["Axes", "Node", tuple[int, ...]], bool]
Planner = Callable[["Placement", "Chain"], "Blocked"]


@dataclass(frozen=True)
class Template:
    """How a kind of kernel is written, and what of it can be tuned.

    ``build(spec, choice, target)`` makes the function; ``space(spec, target)`` lists the choices, the default first
    (None: there is nothing to choose); ``arrays(spec, target)`` makes arguments to time it on, and where in the first
    of them the kernel begins; after the first come ``constants`` arguments, weights and biases, if it has any.
    ``revision`` is what tuning records are kept under: it rises when the code or the space changes, and older records
    are not used any more. ``then``: on a GPU, the kernel of the same operands that is launched after it, if its choice
    takes one.
    """

    build: Callable[[Any, Any, Target], tirx.PrimFunc]
    space: Callable[[Any, Target], Iterable[Any]] | None = None
    arrays: Callable[[Any, Target], Arrays] | None = None
    revision: int = 1
    constants: int = 2
    then: Callable[[Any, Any, Target], tirx.PrimFunc | None] | None = None


@dataclass(frozen=True)
class Head:
    """An operator that can head a chain.

    ``accepts(axes, node, shape of the first input)``: is the node of the kind that the family computes?
    ``plan(placement, chain)`` writes the calls and returns where the result lies. ``halo(graph, node)``: the zeros that
    its kernel reads around the first input, None where it reads none.
    """

    accepts: Accepts
    plan: Planner
    halo: Callable[[Graph, Node], int] | None = None


@dataclass(frozen=True)
class Standalone:
    """An operator planned by itself with all its outputs: ``accepts(placement, node)``, ``plan(placement, node)``."""

    accepts: Callable[[Placement, Node], bool]
    plan: Callable[[Placement, Node], None]


class Alternative(Protocol):
    """Another algorithm for a dense convolution: which specs it offers, and what its call begins with."""

    def alternatives(self, spec: Any, x: Blocked, reads: Ints, weight: Floats, target: Target) -> Sequence[Workload]:
        """Specs that compute the same as the dense ``spec``, promise to be faster and are exact enough."""
        ...

    def arguments(
        self,
        placement: Placement,
        spec: Any,
        choice: Any,
        x: Blocked,
        reads: Ints,
        weight: Floats,
        bias: Weight,
        corner: int,
    ) -> list[Argument]:
        """The first arguments of the call. ``corner``: from the first pixel to the first that is read."""
        ...


@dataclass(frozen=True, eq=False)
class Family:
    """One kind of kernel, in the folder of its name: ``spec.py``, ``plan.py`` and ``template.py``.

    ``choices`` has each kind of spec with the kind of its choice, None where there is nothing to choose. ``heads`` are
    the operators that it computes, ``nodes`` those with several outputs, ``alternative`` what it offers in place of a
    dense convolution; if it ``sums_pixels``, only where an image is a sample. ``sparse``: it leaves weights out that
    are zero. ``exact`` is False where its rounding depends on more than the order of a sum, so that a library which is
    too coarse does without it. ``dtype`` is what it multiplies: other than float32 only where that is asked for.
    """

    name: str
    choices: Mapping[type, type | None]
    heads: Mapping[str, Head] = field(default_factory=lambda: MappingProxyType({}))
    nodes: Mapping[str, Standalone] = field(default_factory=lambda: MappingProxyType({}))
    alternative: Alternative | None = None
    exact: bool = True
    sums_pixels: bool = False
    sparse: bool = False
    dtype: str = "f32"


def choices(families: Iterable[Family]) -> Mapping[type, type]:
    """The kinds of spec that are tuned, each with the kind of its choice.

    Raises ValueError where two kinds of spec share one kind of choice, by which a kernel is known once it is chosen.
    """
    found = {s: c for family in families for s, c in family.choices.items() if c is not None}
    if len(set(found.values())) < len(found):
        raise ValueError("two kinds of spec have one kind of choice: it would not say which of them was chosen")
    return MappingProxyType(found)


def heads(families: Iterable[Family]) -> Mapping[str, Head]:
    """By operator: what can head a chain. Raises ValueError where two families claim one operator."""
    found: dict[str, Head] = {}
    for family in families:
        for op, head in family.heads.items():
            if op in found:
                raise ValueError(f"two kernel families compute '{op}'")
            found[op] = head
    return MappingProxyType(found)


def accepted(families: Iterable[Family]) -> Mapping[str, Accepts]:
    """By operator: whether a node is of a kind that some family computes."""
    return MappingProxyType({op: head.accepts for op, head in heads(families).items()})


def family_of(spec: Spec, families: Iterable[Family]) -> Family | None:
    """The family that a spec is of; None for what TVM's own library computes."""
    return next((family for family in families if type(spec) in family.choices), None)


def exact_families(families: Iterable[Family]) -> tuple[Family, ...]:
    """Those whose rounding depends on the order of sums alone."""
    return tuple(family for family in families if family.exact)
