"""The sums from which a layer's weights are solved: second moments, and their products with what outputs lack."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from secateur.ir import Array, Node

from .original import channel_axis

if TYPE_CHECKING:
    import torch

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # that are tried where held-out examples choose
SAME = 1e-10  # of the outputs' squares: a gap that is rounding alone
Written = Callable[[Mapping[str, Array]], dict[str, Array]]  # a network's weights, to those that a solution changes
Solution = tuple[Array | None, Array, Written]  # changes of a layer's weight and bias, None where nothing lacks


class Sums:
    """Second moments of a layer's inputs, and their products with what its outputs lack."""

    def __init__(self, node: Node, weight: Array, positions: int) -> None:
        self.node, self.positions = node, positions
        self.transposed = bool(node.attrs.get("transposed", False))
        self.groups = int(node.attrs.get("groups", 1))
        self.kernel = weight.shape[2:]
        self.axis = channel_axis(node)
        self.weight = self.rows_of(weight).astype(np.float64)  # [groups, o, columns]
        groups, outs, columns = self.weight.shape
        self.second, self.first = np.zeros((groups, columns, columns)), np.zeros((groups, columns))
        self.product, self.lacking = np.zeros((groups, columns, outs)), np.zeros((groups, outs))
        self.count = 0
        self.gap = self.size = 0.0

    def rows_of(self, weight: Array) -> Array:
        """[groups, outputs, columns]."""
        matrix = weight.T if self.transposed else weight
        return matrix.reshape(self.groups, matrix.shape[0] // self.groups, -1)

    def shaped(self, rows: Array, like: Array) -> Array:
        """The inverse, in the type of the weight."""
        matrix = rows.reshape(like.shape[::-1] if self.transposed else like.shape)
        return np.ascontiguousarray(matrix.T if self.transposed else matrix).astype(like.dtype)

    def add(self, number: int, x: torch.Tensor, target: torch.Tensor, rows: Array | None, bias: Array | None) -> None:
        """One batch: the slim network's input, the original's output."""
        import torch

        from secateur.passes.sweep.unfold import draw_places, extent, points, windows

        sizes = extent(x, self.node, self.kernel, self.axis)
        places = draw_places(sizes, self.positions, np.random.default_rng(number))
        u = windows(x, self.node, self.kernel, self.axis, places)
        y = points(target, self.axis, places)
        y = y if rows is None else y[:, torch.from_numpy(rows)]
        u3 = u.reshape(len(u), self.groups, -1).permute(1, 0, 2).double().numpy()
        y3 = y.reshape(len(y), self.groups, -1).permute(1, 0, 2).double().numpy()
        if bias is not None:
            y3 = y3 - bias.astype(np.float64).reshape(self.groups, 1, -1)
        gap = y3 - u3 @ self.weight.transpose(0, 2, 1)
        self.count += u3.shape[1]
        self.second += u3.transpose(0, 2, 1) @ u3
        self.first += u3.sum(1)
        self.product += u3.transpose(0, 2, 1) @ gap
        self.lacking += gap.sum(1)
        self.gap, self.size = self.gap + float((gap**2).sum()), self.size + float((y3**2).sum())

    def join(self, others: Sums) -> None:
        """Take in what another saw of the same layer."""
        for name in ("second", "first", "product", "lacking", "count", "gap", "size"):
            setattr(self, name, getattr(self, name) + getattr(others, name))

    def error(self, change: Array, shift: Array) -> float:
        """The squared error of the outputs after a change of the weights and of the bias, over all places seen."""
        moved = shift.reshape(self.lacking.shape)
        quadratic = np.einsum("goc,gcd,god->", change, self.second, change, optimize=True)
        linear = np.einsum("goc,gco->", change, self.product) + np.einsum("go,go->", moved, self.lacking)
        both = np.einsum("go,goc,gc->", moved, change, self.first, optimize=True)
        return float(self.gap + quadratic - 2 * linear + 2 * both + self.count * (moved**2).sum())

    def change(self, ridge: float, with_bias: bool) -> tuple[Array | None, Array]:
        """(change of the weights [groups, outputs, columns], of the bias [groups * outputs]); None if nothing lacks."""
        shift = np.zeros(self.lacking.size)
        if self.gap <= SAME * self.size or not self.count:
            return None, shift
        damped, product, first, lacking = self.normal(ridge, with_bias)
        change = np.linalg.solve(damped, product).transpose(0, 2, 1)
        if with_bias:
            shift = (lacking - np.einsum("goc,gc->go", change, first)).reshape(-1)
        return change, shift

    def normal(self, ridge: float, with_bias: bool) -> tuple[Array, Array, Array, Array]:
        """The normal equations of the change: damped second moments, products, and the means of inputs and of gaps.

        Means over places; with a bias, which takes the means, the first two are of what varies.
        """
        count = max(self.count, 1)
        second, product = self.second / count, self.product / count
        first, lacking = self.first / count, self.lacking / count
        if with_bias:
            second = second - first[:, :, None] * first[:, None, :]
            product = product - first[:, :, None] * lacking[:, None, :]
        columns = second.shape[1]
        scale = np.einsum("gcc->g", self.second / count) / columns
        damped = second + np.eye(columns) * np.maximum(max(ridge, 1e-9) * scale, 1e-12)[:, None, None]
        return damped, product, first, lacking


class Form(Protocol):
    """What the weight of a layer is made of, and so how sums are solved for it."""

    def now(self, sums: Sums) -> Array:
        """f64[groups, outputs, columns]: by how much the weights as they are differ from those of the sums."""
        ...

    def solved(self, sums: Sums, ridge: float, with_bias: bool) -> Solution:
        """The changes from the weights of the sums, and what they are in the network."""
        ...


@dataclass(frozen=True)
class Single:
    """A weight of this name, which is free."""

    name: str

    def now(self, sums: Sums) -> Array:
        """The sums are of these weights."""
        return np.zeros_like(sums.weight)

    def solved(self, sums: Sums, ridge: float, with_bias: bool) -> Solution:
        """As ``Sums.change``."""
        change, shift = sums.change(ridge, with_bias)

        def written(weights: Mapping[str, Array]) -> dict[str, Array]:
            like = weights[self.name]
            return {} if change is None else {self.name: sums.shaped(sums.rows_of(like) + change, like)}

        return change, shift, written


def chosen(judge: Sums, now: Array, solved: Callable[[float], tuple[Array | None, Array]]) -> float | None:
    """The ridge whose solution errs least on ``judge``; None where none errs less than the change ``now``."""
    best: float | None = None
    least = judge.error(now, np.zeros(judge.lacking.size))
    for ridge in RIDGES:
        change, shift = solved(ridge)
        if change is not None and (error := judge.error(change, shift)) < least:
            best, least = ridge, error
    return best
