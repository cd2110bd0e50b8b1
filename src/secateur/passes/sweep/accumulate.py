"""Sums over examples, one accumulator for each kind of need: float32 products in a batch, float64 between batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import torch

from secateur.ir import Array, Graph
from secateur.passes.analysis.notes import Coupling

from .needs import Examples, ExampleSums, Gates, GateSums, InputMoments, Moments, Need, Pooled, Tap, WeightGradients
from .taps import taps, units_at, window
from .unfold import draw_places, windows

Tensor = torch.Tensor
STRIP = 256  # columns of a second moment that are multiplied at a time


@dataclass(frozen=True)
class Frame:
    """What one batch showed: values and gradients at the taps, gradients of weights; the batch's number and size."""

    number: int
    examples: int
    values: Mapping[Tap, Tensor]
    gradients: Mapping[Tap, Tensor]
    weight_gradients: Mapping[str, Tensor]


class Accumulator(Protocol):
    """Adds frames up. ``state`` lists arrays to be joined over processes, with how: sum, min, max or concat."""

    def add(self, frame: Frame) -> None: ...

    def state(self) -> list[tuple[str, Array]]: ...

    def result(self, state: Sequence[Array]) -> Any: ...


class _Examples:
    def __init__(self, need: Examples, graph: Graph, coupling: Coupling, seed: int) -> None:
        self.tap = need.tap
        self.axis, units = units_at(graph, coupling, need.tap)
        size = len(units)
        self.count = np.zeros(1)
        self.total, self.squares, self.zeros = np.zeros(size), np.zeros(size), np.zeros(size)
        self.least, self.most = np.full(size, np.inf), np.full(size, -np.inf)

    def add(self, frame: Frame) -> None:
        x = _rows(frame.values[self.tap], self.axis)  # [positions, values]
        self.count += x.shape[1]
        self.total += x.sum(1, dtype=torch.float64).numpy()
        # Squares in float32 are exact to 1e-7 each; their sum is not.
        self.squares += (x * x).sum(1, dtype=torch.float64).numpy()
        self.zeros += (x == 0).sum(1).numpy()
        self.least = np.minimum(self.least, x.amin(1).numpy())
        self.most = np.maximum(self.most, x.amax(1).numpy())

    def state(self) -> list[tuple[str, Array]]:
        sums = [("sum", a) for a in (self.count, self.total, self.squares, self.zeros)]
        return [*sums, ("min", self.least), ("max", self.most)]

    def result(self, state: Sequence[Array]) -> ExampleSums:
        count, total, squares, zeros, least, most = state
        return ExampleSums(float(count[0]), total, squares, zeros, least, most)


class _Pooled:
    def __init__(self, need: Pooled, graph: Graph, coupling: Coupling, seed: int) -> None:
        self.tap = need.tap
        self.axis, units = units_at(graph, coupling, need.tap)
        self.parts: list[Array] = [np.zeros((0, len(units)), np.float32)]

    def add(self, frame: Frame) -> None:
        x = frame.values[self.tap]
        others = [a for a in range(1, x.dim()) if a != self.axis]
        self.parts.append((x.mean(others) if others else x).float().numpy().copy())

    def state(self) -> list[tuple[str, Array]]:
        return [("concat", np.concatenate(self.parts))]

    def result(self, state: Sequence[Array]) -> Array:
        return state[0]


class _InputMoments:
    def __init__(self, need: InputMoments, graph: Graph, coupling: Coupling, seed: int) -> None:
        self.need, self.node, self.seed = need, graph.producer[need.tap.node], seed
        self.groups, self.taps = window(graph, need.tap)
        self.kernel = graph.weights[self.node.inputs[1] or ""].shape[2:]
        self.axis, units = units_at(graph, coupling, need.tap)
        columns = len(units) // self.groups * self.taps
        self.second, self.first = np.zeros((self.groups, columns, columns)), np.zeros((self.groups, columns))
        self.rows = np.zeros(1)

    def add(self, frame: Frame) -> None:
        rng = np.random.default_rng((self.seed, frame.number))
        places = draw_places(self.node, self.axis, self.need.positions, rng)
        u = windows(frame.values[self.need.tap], self.node, self.kernel, self.axis, places)
        u = u.reshape(len(u), self.groups, -1).transpose(0, 1)  # [groups, rows, columns]
        self.rows += u.shape[1]
        self.first += u.sum(1, dtype=torch.float64).numpy()
        for total, part in zip(self.second, u, strict=True):
            for a in range(0, part.shape[1], STRIP):  # a symmetric matrix: strips from the diagonal on
                total[a : a + STRIP, a:] += (part[:, a : a + STRIP].T @ part[:, a:]).numpy()

    def state(self) -> list[tuple[str, Array]]:
        return [("sum", a) for a in (self.second, self.first, self.rows)]

    def result(self, state: Sequence[Array]) -> Moments:
        second, first, rows = state
        for total in second:
            for a in range(STRIP, total.shape[1], STRIP):
                total[a : a + STRIP, :a] = total[:a, a : a + STRIP].T
        return Moments(second, first, float(rows[0]), self.taps)


class _Gates:
    def __init__(self, need: Gates, graph: Graph, coupling: Coupling, seed: int) -> None:
        self.size = coupling.size
        self.at = {tap: units_at(graph, coupling, tap) for tap in taps(graph, coupling)}
        numbers = np.unique(coupling.pool[~coupling.frozen]).tolist()
        self.pools = {p: np.flatnonzero((coupling.pool == p) & ~coupling.frozen) for p in numbers}
        self.products = {p: np.zeros((len(u), len(u))) for p, u in self.pools.items()}
        self.total, self.absolute, self.squares = (np.zeros(self.size) for _ in range(3))
        self.examples = np.zeros(1)

    def add(self, frame: Frame) -> None:
        a = torch.zeros(frame.examples, self.size + 1)  # the last column takes the positions without a unit
        for tap, (axis, units) in self.at.items():
            product = frame.values[tap] * frame.gradients[tap]
            others = [d for d in range(1, product.dim()) if d != axis]
            per_position = product.sum(others) if others else product
            a.index_add_(1, torch.from_numpy(np.where(units < 0, self.size, units)), per_position.float())
        rows = a[:, : self.size].numpy().astype(np.float64)
        self.examples += len(rows)
        self.total += rows.sum(0)
        self.absolute += np.abs(rows).sum(0)
        self.squares += (rows * rows).sum(0)
        for pool, units in self.pools.items():
            part = rows[:, units]
            self.products[pool] += part.T @ part

    def state(self) -> list[tuple[str, Array]]:
        return [("sum", a) for a in (self.total, self.absolute, self.squares, self.examples, *self.products.values())]

    def result(self, state: Sequence[Array]) -> GateSums:
        total, absolute, squares, examples, *products = state
        return GateSums(total, absolute, squares, dict(zip(self.pools, products, strict=True)), float(examples[0]))


class _WeightGradients:
    def __init__(self, need: WeightGradients, graph: Graph, coupling: Coupling, seed: int) -> None:
        self.weight = need.weight
        self.total = np.zeros(graph.weights[need.weight].shape)
        self.examples = np.zeros(1)

    def add(self, frame: Frame) -> None:
        self.total += frame.weight_gradients[self.weight].numpy()
        self.examples += frame.examples

    def state(self) -> list[tuple[str, Array]]:
        return [("sum", self.total), ("sum", self.examples)]

    def result(self, state: Sequence[Array]) -> Array:
        mean: Array = state[0] / max(float(state[1][0]), 1.0)
        return mean


def _rows(x: Tensor, axis: int) -> Tensor:
    return x.movedim(axis, 0).reshape(x.shape[axis], -1).float()


ACCUMULATORS: Mapping[type, Any] = MappingProxyType(
    {
        Examples: _Examples, Pooled: _Pooled, InputMoments: _InputMoments, Gates: _Gates,
        WeightGradients: _WeightGradients,
    }
)  # fmt: skip


def accumulator(need: Need, graph: Graph, coupling: Coupling, seed: int) -> Accumulator:
    """A new accumulator for a need."""
    made: Accumulator = ACCUMULATORS[type(need)](need, graph, coupling, seed)
    return made
