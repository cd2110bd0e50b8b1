"""What a criterion can ask for, as plain values, and what it gets.

Everything is a sum over examples, so results of two halves of the data add up to that of the whole: that is what
several processes do. Sums are float64. Channels are counted by *position* along the axis of a read site; ``units_at``
says which unit lives at a position.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar

import numpy as np

from secateur.ir import Array

R = TypeVar("R")
STRIP = 256  # rows of a second moment that are multiplied and stored together


@dataclass(frozen=True, slots=True)
class ReadSite:
    """What a node reads through one of its inputs: the place where the law sets dropped channels to zero.

    ``input`` -1 stands for what the node puts out.
    """

    node: str
    input: int = 0


@dataclass(frozen=True, slots=True)
class Examples:
    """Per position of a site: how many values were seen, their sum, sum of squares, zeros, least and greatest."""

    site: ReadSite


@dataclass(frozen=True, slots=True)
class Pooled:
    """f32[examples, positions]: each example's mean over everything but the axis of a site."""

    site: ReadSite


@dataclass(frozen=True, slots=True)
class Ranks:
    """Per position of a site that reads pictures: the mean rank of its map over the examples, f64[positions]."""

    site: ReadSite


@dataclass(frozen=True, slots=True)
class InputMoments:
    """Second moments of the unfolded input of a convolution or linear layer, per group of channels.

    Of every example ``positions`` places are drawn (all where there are fewer): at each, the layer's window is a row
    of U, columns channel by channel and tap by tap.
    """

    site: ReadSite
    positions: int = 64


@dataclass(frozen=True, slots=True)
class Gates:
    """Derivatives of the loss by a gate of value 1 on every unit, example by example.

    The gate multiplies the unit wherever it is read, so its derivative is the sum of gradient times value over all
    read sites: what zeroing the unit there changes, to first order.
    """


@dataclass(frozen=True, slots=True)
class WeightGradients:
    """The mean gradient of the loss by a weight."""

    weight: str


@dataclass(frozen=True, slots=True)
class Reach:
    """How far errors in what a convolution or linear layer puts out reach: f64[channels].

    Errors of mean square e in channel o, drawn anew at each place, move the network's outputs by e times the number,
    as a share of the mean square of all outputs together: the squares of the derivatives of random projections of the
    outputs, added up over places (Hutchinson's estimate of the squares of the Jacobian).
    """

    node: str


Need = Examples | Pooled | Ranks | InputMoments | Gates | WeightGradients | Reach


@dataclass(frozen=True, eq=False)
class ExampleSums:
    """Result of ``Examples``; arrays f64[positions], ``count`` values per position."""

    count: float
    total: Array
    squares: Array
    zeros: Array
    least: Array
    most: Array

    @property
    def mean(self) -> Array:
        result: Array = self.total / max(self.count, 1)
        return result

    @property
    def variance(self) -> Array:
        result: Array = np.maximum(self.squares / max(self.count, 1) - self.mean**2, 0.0)
        return result


@dataclass(frozen=True, eq=False)
class Moments:
    """Result of ``InputMoments``: U'U in strips of rows, ``first`` f64[groups, c k], ``rows`` of U.

    ``taps`` is k, the number of taps of the window; channel j of a group has the columns j k .. (j+1) k. U'U is
    symmetric, so each strip f64[groups, m, c k - a] holds its rows a .. a+m from the diagonal on: half the memory.
    """

    strips: tuple[Array, ...]
    first: Array
    rows: float
    taps: int

    @property
    def second(self) -> Array:
        """f64[groups, c k, c k] = U'U, made anew at each call."""
        groups, columns = self.first.shape
        return _mirrored(self.strips, groups, columns)

    def by_channel(self, reduce: Callable[[Array, int], Array]) -> Array:
        """f64[groups, c, c], symmetric, from strips alone: U'U is never whole in memory.

        ``reduce`` gets f64[groups, m, k, n, k], m channels against the n from the first of them on, and the column
        where they begin; it returns f64[groups, m, n].
        """
        groups, columns = self.first.shape
        k, parts, start = self.taps, [], 0
        for strip in self.strips:
            _, rows, rest = strip.shape
            parts.append(reduce(strip.reshape(groups, rows // k, k, rest // k, k), start))
            start += rows
        return _mirrored(parts, groups, columns // k)


def strip_starts(columns: int, taps: int) -> tuple[int, ...]:
    """Where the strips of a second moment begin: whole channels of ``taps`` columns, about ``STRIP`` columns each."""
    return tuple(range(0, columns, max(1, STRIP // taps) * taps))


def _mirrored(strips: Sequence[Array], groups: int, columns: int) -> Array:
    whole, start = np.empty((groups, columns, columns)), 0
    for strip in strips:
        size = strip.shape[1]
        stop = start + size
        whole[:, start:stop, start:] = strip
        whole[:, stop:, start:stop] = strip[:, :, size:].transpose(0, 2, 1)
        corner = strip[:, :, :size]  # a product of floats, symmetric but for rounding
        whole[:, start:stop, start:stop] = np.triu(corner) + np.triu(corner, 1).transpose(0, 2, 1)
        start = stop
    return whole


@dataclass(frozen=True, eq=False)
class GateSums:
    """Result of ``Gates``; a[n, unit] are the derivatives of example n.

    ``total`` f64[units] = sum of a, ``absolute`` of abs(a), ``squares`` of a^2; ``products`` has for every domain the
    matrix A'A over its units in rising order.
    """

    total: Array
    absolute: Array
    squares: Array
    products: Mapping[int, Array]
    examples: float


Result = ExampleSums | Moments | GateSums | Array


@dataclass(frozen=True, eq=False)
class Statistics:
    """A note: what one sweep found. ``loss`` names the loss, None where no gradient was needed."""

    found: Mapping[Need, Result] = field(default_factory=dict)
    examples: int = 0
    loss: str | None = None

    def of(self, need: Need, kind: type[R]) -> R:
        """The result of a need, which the sweep was asked for. Raises KeyError."""
        result = self.found[need]
        assert isinstance(result, kind)
        return result


def _moments_bytes(need: InputMoments, sizes: Sizes) -> int:
    groups, columns, window = sizes.columns(need.site)
    starts = strip_starts(columns, window)
    ends = [*starts[1:], columns]
    return 8 * groups * (columns + sum((b - a) * (columns - a) for a, b in zip(starts, ends, strict=True)))


@dataclass(frozen=True)
class Sizes:
    """What the sizes of results depend on."""

    positions: Callable[[ReadSite], int]
    columns: Callable[[ReadSite], tuple[int, int, int]]  # groups, columns of U in each, taps of the window
    weight: Callable[[str], int]
    channels: Callable[[str], int]  # that a layer puts out
    domains: tuple[int, ...]
    examples: int


_BYTES: Mapping[type, Callable[..., int]] = MappingProxyType(
    {
        Examples: lambda n, s: 5 * 8 * s.positions(n.site),
        Pooled: lambda n, s: 4 * s.examples * s.positions(n.site),
        Ranks: lambda n, s: 8 * s.positions(n.site),
        InputMoments: _moments_bytes,
        Gates: lambda n, s: 8 * sum(3 * p + p * p for p in s.domains),
        WeightGradients: lambda n, s: 8 * s.weight(n.weight),
        Reach: lambda n, s: 8 * s.channels(n.node),
    }
)


def need_bytes(need: Need, sizes: Sizes) -> int:
    """Memory that the sweep holds for a need from beginning to end, in bytes."""
    return _BYTES[type(need)](need, sizes)
