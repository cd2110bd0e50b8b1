"""Sums over examples, one accumulator for each kind of need: float32 products in a batch, float64 between batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, Protocol

import numpy as np
import torch

from secateur.ir import Array, Graph
from secateur.passes.notes import Coupling

from .needs import (  # fmt: skip
    Examples,
    ExampleSums,
    Gates,
    GateSums,
    InputMoments,
    Moments,
    Need,
    Pooled,
    Ranks,
    Reach,
    ReadSite,
    Result,
    WeightGradients,
    strip_starts,
)
from .read_sites import channel_axis, read_sites, units_at, window
from .unfold import draw_places, extent, windows

Tensor = torch.Tensor
Join = Literal["sum", "min", "max", "concat"]  # how arrays of several processes become one


class Accumulator(Protocol):
    """Adds batches up. ``state`` lists arrays to be joined over processes, with how: sum, min, max or concat.

    ``add`` gets the batch's number, its examples, and of these what the need is about: the values at its site, the
    derivatives f[examples, positions] by gates at every site, the sum of the gradients of a weight, or the sums of
    squares f[examples, channels] of derivatives of a projection with the sum of squares of what was projected.
    """

    def add(self, number: int, examples: int, seen: Any) -> None: ...

    def state(self) -> list[tuple[Join, Array]]: ...

    def result(self, state: Sequence[Array]) -> Result: ...


class _Examples:
    def __init__(self, need: Examples, graph: Graph, coupling: Coupling, seed: int) -> None:
        self.axis, units = units_at(graph, coupling, need.site)
        size = len(units)
        self.count = np.zeros(1)
        self.total, self.squares, self.zeros = np.zeros(size), np.zeros(size), np.zeros(size)
        self.least, self.most = np.full(size, np.inf), np.full(size, -np.inf)

    def add(self, number: int, examples: int, seen: Tensor) -> None:
        x = _rows(seen, self.axis)  # [positions, values]
        self.count += x.shape[1]
        self.total += x.sum(1, dtype=torch.float64).numpy()
        # Squares in float32 are exact to 1e-7 each; their sum is not.
        self.squares += (x * x).sum(1, dtype=torch.float64).numpy()
        self.zeros += (x == 0).sum(1).numpy()
        self.least = np.minimum(self.least, x.amin(1).numpy())
        self.most = np.maximum(self.most, x.amax(1).numpy())

    def state(self) -> list[tuple[Join, Array]]:
        sums: list[tuple[Join, Array]] = [("sum", a) for a in (self.count, self.total, self.squares, self.zeros)]
        return [*sums, ("min", self.least), ("max", self.most)]

    def result(self, state: Sequence[Array]) -> ExampleSums:
        count, total, squares, zeros, least, most = state
        return ExampleSums(float(count[0]), total, squares, zeros, least, most)


class _Pooled:
    def __init__(self, need: Pooled, graph: Graph, coupling: Coupling, seed: int) -> None:
        self.axis, units = units_at(graph, coupling, need.site)
        self.parts: list[Array] = [np.zeros((0, len(units)), np.float32)]

    def add(self, number: int, examples: int, seen: Tensor) -> None:
        others = [a for a in range(1, seen.dim()) if a != self.axis]
        self.parts.append((seen.mean(others) if others else seen).float().numpy().copy())

    def state(self) -> list[tuple[Join, Array]]:
        return [("concat", np.concatenate(self.parts))]

    def result(self, state: Sequence[Array]) -> Array:
        return state[0]


class _Ranks:
    def __init__(self, need: Ranks, graph: Graph, coupling: Coupling, seed: int) -> None:
        self.axis, units = units_at(graph, coupling, need.site)
        self.total, self.examples = np.zeros(len(units)), np.zeros(1)

    def add(self, number: int, examples: int, seen: Tensor) -> None:
        maps = seen.movedim(self.axis, 1).float()  # [examples, positions, height, width]
        self.total += torch.linalg.matrix_rank(maps).sum(0, dtype=torch.float64).numpy()
        self.examples += examples

    def state(self) -> list[tuple[Join, Array]]:
        return [("sum", self.total), ("sum", self.examples)]

    def result(self, state: Sequence[Array]) -> Array:
        total, examples = state
        mean: Array = total / max(float(examples[0]), 1.0)
        return mean


class _InputMoments:
    def __init__(self, need: InputMoments, graph: Graph, coupling: Coupling, seed: int) -> None:
        self.need, self.node, self.seed = need, graph.producer[need.site.node], seed
        self.groups, self.taps = window(graph, need.site)
        self.kernel = graph.weights[self.node.inputs[1] or ""].shape[2:]
        self.axis, units = units_at(graph, coupling, need.site)
        columns = len(units) // self.groups * self.taps
        self.starts = strip_starts(columns, self.taps)
        ends = [*self.starts[1:], columns]
        self.strips = [np.zeros((self.groups, b - a, columns - a)) for a, b in zip(self.starts, ends, strict=True)]
        self.first, self.rows = np.zeros((self.groups, columns)), np.zeros(1)

    def add(self, number: int, examples: int, seen: Tensor) -> None:
        rng = np.random.default_rng((self.seed, number))
        places = draw_places(extent(seen, self.node, self.kernel, self.axis), self.need.positions, rng)
        u = windows(seen, self.node, self.kernel, self.axis, places)
        u = u.reshape(len(u), self.groups, -1).transpose(0, 1)  # [groups, rows, columns]
        self.rows += u.shape[1]
        self.first += u.sum(1, dtype=torch.float64).numpy()
        for start, strip in zip(self.starts, self.strips, strict=True):
            for total, part in zip(strip, u, strict=True):
                total += (part[:, start : start + strip.shape[1]].T @ part[:, start:]).numpy()

    def state(self) -> list[tuple[Join, Array]]:
        return [("sum", a) for a in (self.first, self.rows, *self.strips)]

    def result(self, state: Sequence[Array]) -> Moments:
        first, rows, *strips = state
        return Moments(tuple(strips), first, float(rows[0]), self.taps)


class _Gates:
    def __init__(self, need: Gates, graph: Graph, coupling: Coupling, seed: int) -> None:
        self.size = coupling.size
        self.units = {site: units_at(graph, coupling, site)[1] for site in read_sites(graph, coupling)}
        numbers = np.unique(coupling.domain[~coupling.frozen]).tolist()
        self.domains = {p: np.flatnonzero((coupling.domain == p) & ~coupling.frozen) for p in numbers}
        self.products = {p: np.zeros((len(u), len(u))) for p, u in self.domains.items()}
        self.total, self.absolute, self.squares = (np.zeros(self.size) for _ in range(3))
        self.examples = np.zeros(1)

    def add(self, number: int, examples: int, seen: Mapping[ReadSite, Tensor]) -> None:
        a = torch.zeros(examples, self.size + 1)  # the last column takes the positions without a unit
        for site, derivatives in seen.items():
            units = self.units[site]
            a.index_add_(1, torch.from_numpy(np.where(units < 0, self.size, units)), derivatives)
        rows = a[:, : self.size].numpy().astype(np.float64)
        self.examples += len(rows)
        self.total += rows.sum(0)
        self.absolute += np.abs(rows).sum(0)
        self.squares += (rows * rows).sum(0)
        for domain, units in self.domains.items():
            part = rows[:, units]
            self.products[domain] += part.T @ part

    def state(self) -> list[tuple[Join, Array]]:
        return [("sum", a) for a in (self.total, self.absolute, self.squares, self.examples, *self.products.values())]

    def result(self, state: Sequence[Array]) -> GateSums:
        total, absolute, squares, examples, *products = state
        return GateSums(total, absolute, squares, dict(zip(self.domains, products, strict=True)), float(examples[0]))


class _WeightGradients:
    def __init__(self, need: WeightGradients, graph: Graph, coupling: Coupling, seed: int) -> None:
        self.total = np.zeros(graph.weights[need.weight].shape)
        self.examples = np.zeros(1)

    def add(self, number: int, examples: int, seen: Tensor) -> None:
        self.total += seen.numpy()
        self.examples += examples

    def state(self) -> list[tuple[Join, Array]]:
        return [("sum", self.total), ("sum", self.examples)]

    def result(self, state: Sequence[Array]) -> Array:
        mean: Array = state[0] / max(float(state[1][0]), 1.0)
        return mean


class _Reach:
    def __init__(self, need: Reach, graph: Graph, coupling: Coupling, seed: int) -> None:
        self.total = np.zeros(int(graph.value(need.node).shape[channel_axis(graph, need.node)]))
        self.energy = np.zeros(1)

    def add(self, number: int, examples: int, seen: tuple[Tensor, float]) -> None:
        self.total += seen[0].sum(0, dtype=torch.float64).numpy()
        self.energy += seen[1]

    def state(self) -> list[tuple[Join, Array]]:
        return [("sum", self.total), ("sum", self.energy)]

    def result(self, state: Sequence[Array]) -> Array:
        share: Array = state[0] / max(float(state[1][0]), np.finfo(np.float64).tiny)
        return share


def _rows(x: Tensor, axis: int) -> Tensor:
    return x.movedim(axis, 0).reshape(x.shape[axis], -1).float()


ACCUMULATORS: Mapping[type, Callable[..., Accumulator]] = MappingProxyType(
    {
        Examples: _Examples, Pooled: _Pooled, Ranks: _Ranks, InputMoments: _InputMoments, Gates: _Gates,
        WeightGradients: _WeightGradients, Reach: _Reach,
    }
)  # fmt: skip


def accumulator(need: Need, graph: Graph, coupling: Coupling, seed: int) -> Accumulator:
    """A new accumulator for a need."""
    return ACCUMULATORS[type(need)](need, graph, coupling, seed)
