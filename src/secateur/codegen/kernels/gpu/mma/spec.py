"""A convolution or linear layer whose products tensor cores compute: of rounded numbers, added up in float32."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Self

from secateur.codegen.emit.gpu.matrices import COLUMNS, DEPTH, LEFT, RIGHT, ROWS, WARP
from secateur.codegen.kernels.gpu.conv.spec import GpuConvSpec
from secateur.codegen.kernels.gpu.conv.tiles import PARTS, in_parts, joining, kernel_time
from secateur.codegen.targets import Target

WORDS = 16  # of the reduction, of a slice
GAP = 8  # words after each row, so that the lanes of a warp read from different banks
TILES = ((128, 128, 2, 4), (128, 64, 2, 4), (64, 128, 2, 4), (64, 64, 2, 4), (32, 64, 1, 4), (32, 32, 1, 4))


@dataclass(frozen=True)
class MmaChoice:
    """A group computes ``outputs`` x ``pixels``, each of its warps ``rows`` x ``columns`` small matrices of them.

    ``parts``: so many groups share a reduction, and a kernel after it adds what they found.
    """

    outputs: int
    pixels: int
    rows: int
    columns: int
    parts: int = 1

    @property
    def across(self) -> int:
        """Warps along the pixels."""
        return self.pixels // (self.columns * COLUMNS)

    @property
    def items(self) -> int:
        """Work items of a group."""
        return WARP * self.across * (self.outputs // (self.rows * ROWS))

    @property
    def shared(self) -> int:
        """Bytes of two slices of both operands."""
        return 2 * 4 * WORDS * (self.outputs + self.pixels + 2 * GAP)


@dataclass(frozen=True)
class Tf32Choice(MmaChoice):
    """Of numbers in TF32."""


@dataclass(frozen=True)
class F16Choice(MmaChoice):
    """Of numbers in FP16."""


@dataclass(frozen=True)
class MmaConvSpec(GpuConvSpec):
    """A convolution by tiles. ``joined`` numbers make up a word.

    ``rate``: products in the time of one in float32: half of what NVIDIA states for A100 and H200, since on the latter
    ``mma.sync`` is not the fastest instruction.
    """

    joined: int = 1
    rate: int = 4

    @classmethod
    def of(cls, dense: GpuConvSpec) -> Self:
        """The dense convolution."""
        return cls(**{f.name: getattr(dense, f.name) for f in fields(GpuConvSpec)})

    @property
    def depth(self) -> int:
        """Numbers of the reduction, of a slice."""
        return WORDS * self.joined

    @property
    def choice(self) -> type[MmaChoice]:
        """The kind of its choices, by which its type of numbers is known."""
        return F16Choice if self.joined == 2 else Tf32Choice

    def estimate(self, target: Target) -> float:
        """Time in multiply-accumulates of a multiprocessor in float32, counted."""
        return time(self, next(space(self, target)), target)


@dataclass(frozen=True)
class Tf32ConvSpec(MmaConvSpec):
    """Of numbers rounded to TF32: ten bits after the first, and the exponents of float32."""


@dataclass(frozen=True)
class F16ConvSpec(MmaConvSpec):
    """Of numbers rounded to FP16: ten bits after the first, up to 65504."""

    joined: int = 2
    rate: int = 8


def space(spec: MmaConvSpec, target: Target) -> Iterator[MmaChoice]:
    """The choices, the default first: each tile with the best number of parts."""
    tiles = (spec.choice(*sizes) for sizes in TILES)
    fitting = [tile for tile in tiles if tile.items <= target.group and tile.shared <= target.shared]
    shared = [in_parts(tile, spec.slices(spec.depth), PARTS) for tile in fitting]
    best = [min(choices, key=lambda c: time(spec, c, target)) for choices in shared]
    yield from sorted(best, key=lambda c: time(spec, c, target))


def time(spec: MmaConvSpec, choice: MmaChoice, target: Target) -> float:
    """As of a tile in float32; a warp reads the words of all its small matrices for each eight of the reduction."""
    groups = spec.groups * -(-spec.co // choice.outputs) * -(-spec.pixels // choice.pixels) * choice.parts
    own = WORDS * -(-spec.slices(spec.depth) // choice.parts)
    products = choice.outputs * choice.pixels * spec.joined / spec.rate
    reads = choice.items * 4 * (choice.rows * LEFT + choice.columns * RIGHT) / DEPTH
    moved = spec.products.moved + (choice.parts * spec.outputs if choice.parts > 1 else 0)
    found = kernel_time(groups, choice.items, choice.rows * choice.columns * 4, (own + WORDS) * max(products, reads),
                        own * (choice.outputs + choice.pixels * spec.joined), moved, target)  # fmt: skip
    return found + joining(choice.parts, spec.outputs, target)
