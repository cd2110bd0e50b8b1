"""``refit``: least squares on what is kept, so that each layer computes what it did (He et al., ICCV 2017, step ii)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from secateur.ir import Array, Graph, InputError, Node
from secateur.passes.recipe import Recipe

from .original import EXAMPLES, channel_axis, kept_rows, noted, refuse_both

if TYPE_CHECKING:
    import torch

    from .lockstep import Step


@dataclass(frozen=True)
class Refit:
    """Solve the weights of every layer that lost inputs, or follows one that did, for the original's outputs.

    From the input to the output: a layer's inputs are those of the slim network with all layers before it refitted,
    its targets the original's outputs (channel pruning, He et al. 2017, without their alternation). The change of the
    weights is solved in exact Gram form, in float64, with a ridge of ``ridge`` times the mean second moment towards
    the weights as they are: with few data little changes. ``positions``: places drawn in each example's picture.

    Before: ``y = conv(x', w')`` with w' cut from w. After: the same shapes, w' such that y is nearest to conv(x, w).
    """

    name: ClassVar[str] = "refit"
    ridge: float = 1e-2
    positions: int = 64
    examples: int = EXAMPLES

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError without data, for numbers below 0, and after ``fold_constants``."""
        if self.ridge < 0 or self.positions < 1 or self.examples < 1:
            raise InputError(f"refit{{ridge={self.ridge:g},positions={self.positions},examples={self.examples}}}: "
                             "numbers must be positive")  # fmt: skip
        refuse_both(graph, self.name, "fold_constants")
        from .lockstep import lockstep

        recipe, weights = graph.note(Recipe), dict(graph.weights)
        for step in lockstep(graph, self.name, self.examples, lambda n: solvable(graph, n)):
            weight, bias = str(step.node.inputs[1]), bias_of(step.node)
            solved = self._solve(graph, step, recipe, weights)
            if solved is None:
                continue
            weights[weight] = step.slim.weights[weight] = solved[0]
            if bias is not None:
                weights[bias] = step.slim.weights[bias] = solved[1]
        return noted(graph.rewrite(weights=weights), self)

    @staticmethod
    def may_change(graph: Graph) -> frozenset[str]:
        """Weights and biases of the layers that are solved."""
        names = (name for node in graph.nodes if solvable(graph, node) for name in node.inputs[1:])
        return frozenset(name for name in names if name is not None)

    def _solve(
        self, graph: Graph, step: Step, recipe: Recipe | None, weights: dict[str, Array]
    ) -> tuple[Array, Array] | None:
        """(weight, bias) after the fit; None where the layer computes what it did already."""
        node, weight = step.node, weights[str(step.node.inputs[1])]
        moments = Sums(node, weight, self.positions)
        rows = kept_rows(recipe, str(node.inputs[1]), 1 if node.attrs.get("transposed", False) else 0)
        bias = weights[bias_of(node) or ""] if bias_of(node) else None
        for number, (target, x) in enumerate(step.pairs(node.name, node.inputs[0] or "")):
            moments.add(number, x, target, rows, bias)
        change, shift = moments.change(self.ridge, bias_of(node) is not None)
        if change is None:
            return None
        matrix = moments.rows_of(weight) + change
        fresh_bias = weight[:0] if bias is None else (bias + shift.reshape(bias.shape)).astype(bias.dtype)
        return moments.shaped(matrix, weight), fresh_bias


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

    def change(self, ridge: float, with_bias: bool) -> tuple[Array | None, Array]:
        """(change of the weights [groups, outputs, columns], of the bias [groups * outputs]); None if nothing lacks."""
        shift = np.zeros(self.lacking.size)
        if self.gap <= 1e-10 * self.size or not self.count:
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


def bias_of(node: Node) -> str | None:
    """The name of a layer's bias, if it has one."""
    return node.inputs[2] if len(node.inputs) > 2 else None


def solvable(graph: Graph, node: Node) -> bool:
    """A convolution or linear layer with weights of its own that mixes channels (a depthwise one cannot make up)."""
    if node.op not in ("conv", "linear") or node.inputs[1] not in graph.weights:
        return False
    weight = graph.weights[node.inputs[1] or ""]
    own = all(len(graph.users[n]) == 1 for n in node.inputs[1:] if n is not None)
    given = all(n is None or n in graph.weights for n in node.inputs[1:])
    depthwise = node.op == "conv" and weight.shape[1] == 1 and node.attrs["groups"] > 1
    return own and given and not depthwise and weight.dtype.kind == "f"
