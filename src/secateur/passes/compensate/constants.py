"""``fold_constants``: channels that are constant, as biases of the layers that read them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from secateur.ir import Array, Graph, InputError
from secateur.passes.context import context_of
from secateur.passes.recipe import Recipe
from secateur.passes.rewrite.fold_constants import fold_exact

from .layers import sink, solvable
from .original import EXAMPLES, channel_axis, kept_rows, noted, refuse_both

if TYPE_CHECKING:
    from .lockstep import Step


@dataclass(frozen=True)
class FoldConstants:
    """Fold constants into biases: before ``slim`` exactly, after it what removed channels contributed on average.

    Before ``slim`` and without data, nodes that read weights alone become weights, and a channel that a batch norm of
    scale zero or an empty filter holds at one number goes into its readers' biases where no padding lies next to it:
    the network computes what it did. After ``slim``, on calibration data: a channel whose batch norm scale is zero
    still emits act(beta), and so does one that never changes: removing it takes a constant away. The reader's bias
    gains the mean of that contribution over all its outputs, the border of a padded convolution included, where fewer
    taps see it; a reader without one hands it to the batch norm after it, as a smaller running mean. Exact for
    constant channels that linear layers, 1x1 and unpadded convolutions read; elsewhere the best constant. ``varying``
    False folds constant channels alone.

    Before: ``y = conv(x', w', b)``. After: ``y = conv(x', w', b + sum of w[:, removed] * mean)``.
    """

    name: ClassVar[str] = "fold_constants"
    varying: bool = True
    examples: int = EXAMPLES

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError after ``slim`` without data, and after ``refit``."""
        if self.examples < 1:
            raise InputError(f"fold_constants{{examples={self.examples}}}: give 1 or more")
        if context_of(graph).original is None:
            return fold_exact(graph)
        refuse_both(graph, self.name, "refit")
        from .lockstep import lockstep

        recipe, weights = graph.note(Recipe), dict(graph.weights)
        for step in lockstep(graph, self.name, self.examples, lambda n: solvable(graph, n) and bool(sink(graph, n))):
            for name, sign in sink(graph, step.node):
                shift = self._shift(step, recipe)
                if shift is not None:
                    old = weights[name]
                    weights[name] = (old + sign * shift.reshape(old.shape)).astype(old.dtype)
                    step.slim.weights[name] = weights[name]
        return noted(graph.rewrite(weights=weights), self)

    @staticmethod
    def may_change(graph: Graph) -> frozenset[str]:
        """Biases of the layers that read removed channels, or running means of the batch norms after those."""
        return frozenset(name for node in graph.nodes if solvable(graph, node) for name, _ in sink(graph, node))

    def _shift(self, step: Step, recipe: Recipe | None) -> Array | None:
        from secateur.passes.sweep.unfold import extent, windows

        name = str(step.node.inputs[1])
        kept = None if recipe is None else recipe.weights.get(name)
        transposed = bool(step.node.attrs.get("transposed", False))
        axis_in, axis_out = (0, 1) if transposed else (1, 0)
        if kept is None or axis_in not in kept:
            return None
        original = step.dense_node
        weight = step.dense.graph.weights[name].astype(np.float64)
        matrix = weight.T if transposed else weight
        groups = int(step.node.attrs.get("groups", 1))
        rows = matrix.reshape(groups, matrix.shape[0] // groups, -1)
        taps = rows.shape[2] // matrix.shape[1]
        dead = np.ones((groups, matrix.shape[1]), bool)
        for group, columns in enumerate(kept[axis_in] if groups > 1 else [kept[axis_in]]):
            dead[group, columns] = False
        total, square, count = np.zeros(groups * rows.shape[2]), np.zeros(groups * rows.shape[2]), 0
        axis = channel_axis(original)
        for x in step.original(original.inputs[0] or ""):
            places = np.arange(math.prod(extent(x, original, weight.shape[2:], axis)))
            u = windows(x, original, weight.shape[2:], axis, places).double().numpy()
            total, square, count = total + u.sum(0), square + (u * u).sum(0), count + len(u)
        mean = (total / count).reshape(groups, -1)
        if not self.varying:
            spread = (square / count).reshape(groups, -1) - mean**2
            mean = np.where(spread <= 1e-10 * (1 + mean**2), mean, 0.0)
        shift: Array = np.einsum("goc,gc->go", rows, mean * np.repeat(dead, taps, axis=1)).reshape(-1)
        out = kept_rows(recipe, name, axis_out)
        return shift if out is None else shift[out]
