"""Two layers that a rewrite made of one, solved as their product: what no layer by itself can make up for.

``low_rank``, ``grouped`` and ``separable`` leave a window and a 1x1 after it, and the best first factor of the weights
is not the best for what flows through (Zhang et al., "Accelerating Very Deep Convolutional Networks for Classification
and Detection", TPAMI 2016). With second moments A of the inputs and the weights W that would compute the outputs best,
the product of rank r that errs least is P P' W, P the first r eigenvectors of W A W': their asymmetric reconstruction
without the ReLU, asymmetric as the inputs are the slim network's and the outputs the original's. Where the window has
groups there is no closed form: each factor is solved in turns, the second exactly, the first by conjugate gradients.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from secateur.ir import Array, Graph, Node
from secateur.passes.recipe import Recipe

from .layers import bias_of, solvable
from .original import kept_rows
from .sums import SAME, Solution, Sums

if TYPE_CHECKING:
    from .lockstep import Step

TURNS, STEPS = 6, 24  # each factor is solved so many times, the first in so many steps of conjugate gradients
NO_DIRECTION = 1e-6  # of the largest: below that the square, which is what is solved for, is rounding
NO_SPREAD = 1e-12  # of the mean moment: what is added where a factor's own moments are solved


@dataclass(frozen=True)
class Pair:
    """``first`` and the ``second`` layer that alone reads it, a 1x1; together one convolution or linear layer."""

    first: Node
    second: Node

    @property
    def whole(self) -> Node:
        """The one layer that computes what both do, with an ungrouped weight [O, I, *k]."""
        attrs = {**self.first.attrs, "groups": 1} if self.first.op == "conv" else {}
        return dataclasses.replace(self.second, inputs=(self.first.inputs[0], *self.second.inputs[1:]), attrs=attrs)

    def factors(self, weights: Mapping[str, Array]) -> Matrices:
        """The two weights as matrices."""
        one, two = (_upright(weights[str(n.inputs[1])].astype(np.float64), n) for n in (self.first, self.second))
        groups = int(self.first.attrs.get("groups", 1))
        return Matrices(one.reshape(groups, len(one) // groups, -1), two.reshape(len(two), -1))

    def weights_of(self, found: Matrices, like: Mapping[str, Array]) -> dict[str, Array]:
        """The matrices as the two weights, of the types that these have."""
        made = {}
        for node, matrix in ((self.first, found.first), (self.second, found.second)):
            old = like[str(node.inputs[1])]
            upright = matrix.reshape(_upright(old, node).shape)
            made[str(node.inputs[1])] = np.ascontiguousarray(_upright(upright, node)).astype(old.dtype)
        return made

    def wanted(self, step: Step, recipe: Recipe | None) -> Array:
        """[O, I, *k]: the weight of the layer that the two were made of, at the channels that are left.

        Where that is not known (groups that were cut, a batch norm that was folded first), the product as it is.
        """
        weights, before = step.slim.weights, step.dense_node
        found = self.factors(weights)
        kernel = weights[str(self.first.inputs[1])].shape[2:]
        shape = (len(found.second), found.first.shape[0] * found.first.shape[2] // max(1, math.prod(kernel)), *kernel)
        old = step.dense.graph.weights.get(before.inputs[1] or "")
        if old is not None and before.op == self.second.op and before.attrs.get("groups", 1) == 1:
            old = _upright(old, before)
            for axis, node in ((0, self.second), (1, self.first)):
                turned = bool(node.attrs.get("transposed", False))
                rows = kept_rows(recipe, str(node.inputs[1]), 1 - axis if turned else axis)
                old = old if rows is None or rows.ndim > 1 else old.take(rows, axis)
            if old.shape == shape:
                return old
        return found.product().reshape(shape)


@dataclass(frozen=True, eq=False)
class Matrices:
    """Factors as matrices: ``first`` f64[groups, rank, columns of a group], ``second`` f64[outputs, groups * rank]."""

    first: Array
    second: Array

    def product(self) -> Array:
        """f64[outputs, groups * columns]."""
        groups, rank, _ = self.first.shape
        parts = self.second.reshape(len(self.second), groups, rank)
        result: Array = np.einsum("ogr,grc->ogc", parts, self.first, optimize=True).reshape(len(self.second), -1)
        return result

    def nearest(self, wanted: Array, second: Array) -> Matrices:
        """The factors of these sizes whose product errs least from the weights ``wanted``.

        ``second`` f64[columns, columns]: the moments of the inputs, by which errors of the weights count.
        """
        groups, rank, _ = self.first.shape
        return _truncated(wanted, second, rank) if groups == 1 else _in_turns(self, wanted, second)


@dataclass(frozen=True, eq=False)
class Product:
    """A weight that is the product of a pair's two, which are ``factors`` as they are (``sums.Form``)."""

    pair: Pair
    factors: Matrices

    def now(self, sums: Sums) -> Array:
        """By how much the product as it is differs from the weight of the sums."""
        change: Array = self.factors.product()[None] - sums.weight
        return change

    def solved(self, sums: Sums, ridge: float, with_bias: bool) -> Solution:
        """The nearest product to the weights that a layer without a bottleneck would have."""
        shift = np.zeros(sums.lacking.size)
        if not sums.count or sums.error(self.now(sums), shift) <= SAME * sums.size:
            return None, shift, lambda weights: {}
        damped, product, first, lacking = sums.normal(ridge, with_bias)
        wanted = sums.weight[0] + np.linalg.solve(damped[0], product[0]).T
        found = self.factors.nearest(wanted, damped[0])
        change = found.product() - sums.weight[0]
        if with_bias:
            shift = lacking[0] - change @ first[0]
        return change[None], shift, lambda weights: self.pair.weights_of(found, weights)


def pair_of(graph: Graph, node: Node, given: Graph | None) -> Pair | None:
    """The pair that ends in a layer, where the network before the rewrites has that one alone; None for others."""
    first = could_pair(graph, node)
    if first is None or given is None or node.name not in given.producer or first.name in given.producer:
        return None
    return Pair(first, node)


def could_pair(graph: Graph, node: Node) -> Node | None:
    """The layer that a linear layer or plain 1x1 alone reads, if their product could be one layer's weight."""
    first = graph.producer.get(node.inputs[0] or "")
    if first is None or first.op != node.op or first.name in graph.outputs or not solvable(graph, node):
        return None
    own = solvable(graph, first, depthwise=True) and len(graph.users[first.name]) == 1 and bias_of(first) is None
    return first if own and _mixes(graph, node) else None


def _mixes(graph: Graph, node: Node) -> bool:
    """Is this a linear layer or a plain 1x1?"""
    plain = {"stride": 1, "pad": 0, "groups": 1}
    ones = all(np.all(np.equal(node.attrs.get(name, value), value)) for name, value in plain.items())
    return node.op == "linear" or (ones and max(graph.weights[str(node.inputs[1])].shape[2:]) == 1)


def _upright(weight: Array, node: Node) -> Array:
    """[outputs, ..]; the same the other way round."""
    return weight.T if node.attrs.get("transposed", False) else weight


def _truncated(wanted: Array, second: Array, rank: int) -> Matrices:
    """The closed form of one group. Both factors get half of each direction's size, so that steps have one scale.

    Where a cut left fewer outputs than the rank, the directions beyond them are zero.
    """
    basis = _directions(wanted, second)[:, :rank]
    basis = np.pad(basis, ((0, 0), (0, rank - basis.shape[1])))
    first = basis.T @ wanted
    root = np.sqrt(np.maximum(np.linalg.norm(first, axis=1), np.finfo(np.float64).tiny))
    return Matrices((first / root[:, None])[None], basis * root)


def _directions(wanted: Array, second: Array) -> Array:
    """f64[outputs, n]: the eigenvectors of W A W', the largest first.

    With fewer columns than outputs they follow from L' W' W L, A = L L', which is as small as the inputs: s^2 its
    values and V its vectors, they are W L V / s. Where s is rounding alone there is no direction.
    """
    if len(second) >= len(wanted):
        return np.linalg.eigh(wanted @ second @ wanted.T)[1][:, ::-1]
    half = wanted @ np.linalg.cholesky(second)
    squares, vectors = np.linalg.eigh(half.T @ half)
    sizes = np.sqrt(np.maximum(squares[::-1], 0.0))
    known = sizes > NO_DIRECTION * max(float(sizes[0]), np.finfo(np.float64).tiny)
    result: Array = half @ vectors[:, ::-1] * np.divide(1.0, sizes, out=np.zeros_like(sizes), where=known)
    return result


def _in_turns(start: Matrices, wanted: Array, second: Array) -> Matrices:
    """Alternating least squares from ``start``."""
    groups, rank, columns = start.first.shape
    moments = second.reshape(groups, columns, -1)
    aims = wanted @ second
    first, mix = start.first, start.second

    def between(x: Array) -> Array:
        """f64[groups * rank, all columns]: the moments of what the first layer gives with its inputs."""
        result: Array = np.einsum("grc,gcd->grd", x, moments, optimize=True).reshape(groups * rank, -1)
        return result

    def own(x: Array) -> Array:
        """Of f64[groups * rank, all columns] the columns of each row's group."""
        parts = x.reshape(groups, rank, groups, columns)
        result: Array = np.einsum("grgc->grc", parts)
        return result

    def times(square: Array, x: Array) -> Array:
        return own(square @ between(x))

    for _ in range(TURNS):
        crossed = between(first)
        inner = np.einsum("xgc,grc->xgr", crossed.reshape(len(crossed), groups, columns), first, optimize=True)
        gram = inner.reshape(groups * rank, groups * rank)
        damp = NO_SPREAD * max(float(np.trace(gram)) / len(gram), np.finfo(np.float64).tiny)
        mix = np.linalg.solve(gram + damp * np.eye(len(gram)), crossed @ wanted.T).T
        square = mix.T @ mix
        first = _descended(first, own(mix.T @ aims), partial(times, square))
    return Matrices(first, mix)


def _descended(x: Array, aim: Array, times: Callable[[Array], Array]) -> Array:
    """``x`` after some steps of conjugate gradients towards the x whose ``times`` is the aim."""
    lacks = aim - times(x)
    way, size = lacks, float((lacks * lacks).sum())
    for _ in range(STEPS):
        if size <= np.finfo(np.float64).eps ** 2 * float((aim * aim).sum()):
            break
        moved = times(way)
        along = float((way * moved).sum())
        if along <= 0:
            break
        x, lacks = x + size / along * way, lacks - size / along * moved
        size, before = float((lacks * lacks).sum()), size
        way = lacks + size / before * way
    return x
