"""What planning and building ask of a kind of machine: where values lie, which kernels there are, how they are called.

Planning knows no kernel and no memory: it is handed a backend. ``codegen.backends`` has them by target.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from secateur.codegen.library import Library, built
from secateur.codegen.metadata import Metadata
from secateur.codegen.targets import Target
from secateur.ir import Graph

from .family import Family, Template
from .placement import Placement
from .program import Choose, Program, TensorSpec

if TYPE_CHECKING:
    from typing import Self

    import tvm


@dataclass(frozen=True, eq=False)
class Compiled:
    """Machine code, constants, and the size in 4-byte words of the arena that a caller must provide."""

    module: tvm.runtime.Module
    weights: NDArray[np.float32]
    tables: NDArray[np.int32]
    arena_words: int

    def library(self, metadata: Metadata) -> Library:
        """A library of it."""
        return built(metadata, self.module, self.weights, self.tables)


class Assembled(Protocol):
    """A program as code: what of it a library's metadata says, and the library."""

    @property
    def arena_words(self) -> int: ...

    def library(self, metadata: Metadata) -> Library:
        """A library of it. Raises InputError where that takes a tool that is missing."""
        ...


class Backend(Protocol):
    """A kind of machine, as planning and building see it."""

    @property
    def families(self) -> tuple[Family, ...]:
        """The kernels that a plan may use, a row for each family."""
        ...

    @property
    def templates(self) -> Mapping[type, Template]:
        """How each kind of spec of the families is written. TVM is imported for it."""
        ...

    def exact(self, layers: Collection[str] | None = None) -> Self:
        """The same without families whose rounding depends on more than the order of sums.

        ``layers``: in these alone, by their labels.
        """
        ...

    def placement(self, graph: Graph, target: Target, threads: int, choose: Choose | None) -> Placement:
        """Where the values of a graph lie while it is planned, with the program that is written meanwhile."""
        ...

    def by_library(self, spec: TensorSpec) -> bool:
        """Does TVM's operator library, or a kernel that copies, compute this on such a machine?"""
        ...

    def assemble(self, program: Program, graph: Graph, target: Target) -> Assembled:
        """The code of a program."""
        ...
