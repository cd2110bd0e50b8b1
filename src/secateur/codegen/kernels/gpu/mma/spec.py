"""A convolution or linear layer whose products tensor cores compute: of rounded numbers, added up in float32."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Self

from secateur.codegen.emit.gpu.matrices import COLUMNS, DEPTH, LEFT, PRUNED, RIGHT, ROWS, WARP
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
        """Bytes of two slices of both operands, all weights among them."""
        return 2 * 4 * WORDS * (self.outputs + self.pixels + 2 * GAP)


@dataclass(frozen=True)
class Tf32Choice(MmaChoice):
    """Of numbers in TF32."""


@dataclass(frozen=True)
class F16Choice(MmaChoice):
    """Of numbers in FP16."""


@dataclass(frozen=True)
class SparseTf32Choice(MmaChoice):
    """Of numbers in TF32, each second weight zero."""


@dataclass(frozen=True)
class SparseF16Choice(MmaChoice):
    """Of numbers in FP16, two weights of four zero."""


@dataclass(frozen=True)
class MmaConvSpec(GpuConvSpec):
    """A convolution by tiles. ``joined`` numbers make up a word; of ``pruned`` weights one is there.

    ``rate``: products in the time of one in float32: half of what NVIDIA states for A100 and H200, since on the latter
    ``mma.sync`` is not the fastest instruction.
    """

    joined: int = 1
    rate: int = 4
    pruned: int = 1

    @classmethod
    def of(cls, dense: GpuConvSpec) -> Self:
        """The dense convolution."""
        return cls(**{f.name: getattr(dense, f.name) for f in fields(GpuConvSpec)})

    @property
    def depth(self) -> int:
        """Numbers of the reduction, of a slice."""
        return WORDS * self.joined

    @property
    def rows(self) -> int:
        """Rows of words of a slice of the weights: those that are there, and a row that says which these are."""
        return WORDS if self.pruned == 1 else WORDS // self.pruned + 1

    @property
    def stored(self) -> int:
        """Words of weights, each of ``joined`` numbers, with those that say which are there."""
        return super().stored * self.rows // (WORDS * self.joined)

    @property
    def macs(self) -> int:
        """Multiply-accumulates with the weights that are there."""
        return super().macs // self.pruned

    @property
    def choice(self) -> type[MmaChoice]:
        """The kind of its choices, by which its type of numbers is known."""
        return CHOICES[self.joined, self.pruned]

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


@dataclass(frozen=True)
class SparseConvSpec(MmaConvSpec):
    """Half of the weights are zero, of each chunk that follows each other in the reduction.

    ``taps_first``: the reduction goes through all taps of an input before the next one, as weights lie; else through
    all inputs of a tap.
    """

    pruned: int = PRUNED
    taps_first: bool = False

    def by_tap(self, depth: int) -> bool:
        """Chunks may not be torn apart: whatever the depth."""
        return self.taps > 1 and not self.taps_first


@dataclass(frozen=True)
class SparseTf32ConvSpec(SparseConvSpec):
    """Of numbers rounded to TF32: of two weights one is there."""


@dataclass(frozen=True)
class SparseF16ConvSpec(SparseConvSpec):
    """Of numbers rounded to FP16: of four weights two are there."""

    joined: int = 2
    rate: int = 8


CHOICES: Mapping[tuple[int, int], type[MmaChoice]] = MappingProxyType(
    {(1, 1): Tf32Choice, (2, 1): F16Choice, (1, PRUNED): SparseTf32Choice, (2, PRUNED): SparseF16Choice}
)


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
    moved = spec.products.moved + (choice.parts * spec.outputs if choice.parts > 1 else 0)
    found = kernel_time(
        groups, choice.items, choice.rows * choice.columns * 4, (own + WORDS) * max(word_slots(spec, choice)),
        own * (choice.outputs * spec.rows / WORDS + choice.pixels * spec.joined), moved, target,
    )  # fmt: skip
    return found + joining(choice.parts, spec.outputs, target)


def word_slots(spec: MmaConvSpec, choice: MmaChoice) -> tuple[float, float]:
    """For a word of the reduction: slots of the multipliers, and those in which warps read shared memory."""
    products = choice.outputs * choice.pixels * spec.joined / (spec.rate * spec.pruned)
    left = choice.rows * (LEFT + (spec.pruned > 1)) / spec.pruned
    return products, choice.items * 4 * (left + choice.columns * RIGHT) / DEPTH
