"""``refit``: least squares on what is kept, so that each layer computes what it did (He et al., ICCV 2017, step ii)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from secateur.ir import Array, Graph, InputError
from secateur.passes.recipe import Recipe

from .layers import bias_of, solvable
from .original import EXAMPLES, kept_rows, noted, refuse_both
from .sums import Sums

if TYPE_CHECKING:
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
