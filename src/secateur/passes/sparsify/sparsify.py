"""``sparsify``: zeros in the weights of a network whose shapes stay as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from secateur.ir import Array, Graph, InputError
from secateur.passes.compensate.original import EXAMPLES, kept_rows, noted
from secateur.passes.context import context_of, in_context
from secateur.passes.recipe import Recipe

from .balanced import Balanced
from .blocks import pattern_of
from .darb import DARB, masks
from .fit import Quadratic, prune
from .layers import Place, places
from .n_of_m import NOfM
from .pattern import Mask, Pattern
from .rectangles import Rectangles
from .zeros import SparseRow, Sparsified

if TYPE_CHECKING:
    from secateur.passes.compensate.lockstep import Step

LANES = 8  # outputs of a balanced block where nobody knows the target's vectors


@dataclass(frozen=True)
class Sparsify:
    """Set a share of each layer's weights to zero, in a pattern that kernels can use.

    ``sparsity``: the share of zeros in each layer that takes part (see ``layers.places``), at least. ``block``: the
    pattern, as ``--block`` spells it; ``auto`` are balanced blocks of ``lanes`` outputs, a vector of the target.
    ``by``: "magnitude", or "moments": the second moments of each layer's inputs in calibration data say what a weight
    is worth, and what remains is solved for the original's outputs, layer after layer, on the outputs of the layers
    before it (without labels). Recurrent layers go by magnitude. ``across``: with ``darb`` and by magnitude, one budget
    for all layers.

    Before: ``y = conv(x, w)``. After: the same, with zeros in w.
    """

    name: ClassVar[str] = "sparsify"
    sparsity: float = 0.5
    block: str = "auto"
    by: str = "magnitude"
    lanes: int = 0
    protect: tuple[str, ...] = ()
    across: bool = False
    rounds: int = 3
    ridge: float = 1e-2
    positions: int = 64
    examples: int = EXAMPLES

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise InputError(
                f"sparsity {self.sparsity:g}: the share of weights that become zero, from 0 to below 1; a layer "
                "without any weight is better dropped, as with drop_layer"
            )
        if self.by not in ("magnitude", "moments"):
            raise InputError(f"sparsify{{by={self.by}}}: write magnitude or moments")
        if self.rounds < 1 or self.positions < 1 or self.examples < 1 or self.ridge < 0 or self.lanes < 0:
            raise InputError("sparsify: rounds, positions and examples are 1 or more, ridge and lanes 0 or more")
        pattern_of(self.block, self.lanes or LANES)
        if self.across and (self.block != DARB.name or self.by != "magnitude"):
            raise InputError("sparsify{across=true} is one budget for all rows of all layers: block=darb, by=magnitude")

    @property
    def data(self) -> bool:
        """Does it look at calibration data?"""
        return self.by == "moments"

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError for weights that are not finite, for a pattern that cannot express the share, and without
        data where it goes by moments.
        """  # fmt: skip
        if not self.sparsity:
            return graph
        pattern = pattern_of(self.block, self.lanes or context_of(graph).lanes or LANES)
        chosen = list(places(graph, self.protect))
        if not chosen:
            raise InputError(
                "sparsify: this network has no convolution, linear or recurrent layer with weights of its own that is "
                "wide enough; leave --sparsity out"
            )
        if self.by == "moments":
            weights, kept = self._by_moments(graph, chosen, pattern)
        else:
            weights, kept = self._by_magnitude(graph, chosen, pattern)
        rows = tuple(SparseRow(p.node.name, p.weight, float(1 - kept[p.weight].mean())) for p in chosen)
        found = noted(graph.rewrite(weights={**graph.weights, **weights}), self)
        outputs = {Balanced: "outputs", Rectangles: "rows"}.get(type(pattern))
        return found.with_note(Sparsified(self.block, rows, getattr(pattern, outputs) if outputs else 1))

    def _by_magnitude(
        self, graph: Graph, chosen: list[Place], pattern: Pattern
    ) -> tuple[dict[str, Array], dict[str, Mask]]:
        """The least squares of the weights themselves go."""
        squares = [_squares(p, graph.weights[p.weight]) for p in chosen]
        if self.across:
            kept = masks(squares, self.sparsity)
        else:
            kept = [pattern.mask(s, self.sparsity) for s in squares]
        named = {p.weight: m for p, m in zip(chosen, kept, strict=True)}
        return {p.weight: _masked(p, graph.weights[p.weight], named[p.weight]) for p in chosen}, named

    def _by_moments(
        self, graph: Graph, chosen: list[Place], pattern: Pattern
    ) -> tuple[dict[str, Array], dict[str, Mask]]:
        """Layer after layer, each on what those before it compute now."""
        from secateur.passes.compensate.lockstep import lockstep
        from secateur.passes.compensate.refit import bias_of, solvable

        by_node = {p.node.name: p for p in chosen if solvable(graph, p.node)}
        weights, kept = self._by_magnitude(graph, [p for p in chosen if p.node.name not in by_node], pattern)
        if not by_node:
            return weights, kept
        start = graph if context_of(graph).original is not None else in_context(graph, original=graph)
        recipe = graph.note(Recipe)
        for step in lockstep(start, self.name, self.examples, lambda n: n.name in by_node):
            place = by_node[step.node.name]
            step.slim.weights.update(weights)
            changed, kept[place.weight] = self._solved(step, place, recipe, pattern)
            bias = bias_of(step.node)
            weights[place.weight] = changed[0]
            if bias is not None:
                weights[bias] = changed[1]
            step.slim.weights.update(weights)
        return weights, kept

    def _solved(
        self, step: Step, place: Place, recipe: Recipe | None, pattern: Pattern
    ) -> tuple[tuple[Array, Array], Mask]:
        """((weight, bias), kept) of one layer."""
        from secateur.passes.compensate.refit import Sums, bias_of

        node, weight = step.node, step.slim.weights[place.weight]
        sums = Sums(node, weight, self.positions)
        rows = kept_rows(recipe, place.weight, 1 if place.transposed else 0)
        name = bias_of(node)
        bias = None if name is None else step.slim.weights[name]
        for number, (target, x) in enumerate(step.pairs(node.name, node.inputs[0] or "")):
            sums.add(number, x, target, rows, bias)
        second, product, first, lacking = sums.normal(self.ridge, bias is not None)
        now = sums.rows_of(weight).astype(np.float64)
        loss = Quadratic(second, product.transpose(0, 2, 1) + now @ second)
        solved, kept = prune(loss, now, pattern, self.sparsity, 1 if isinstance(pattern, NOfM) else self.rounds)
        fresh = weight[:0]
        if bias is not None:
            shift = (lacking - np.einsum("goc,gc->go", solved - now, first)).reshape(-1)
            fresh = (bias + shift.reshape(bias.shape)).astype(bias.dtype)
        return (sums.shaped(solved, weight), fresh), kept.reshape(-1, kept.shape[-1])

    @staticmethod
    def may_change(graph: Graph) -> frozenset[str]:
        """Weights of the layers that can take part, and biases of those that are solved."""
        from secateur.passes.compensate.refit import Refit

        return frozenset(p.weight for p in places(graph)) | Refit.may_change(graph)


def _squares(place: Place, array: Array) -> Array:
    squares: Array = place.rows(array).astype(np.float64) ** 2
    return squares


def _masked(place: Place, array: Array, kept: Mask) -> Array:
    return place.shaped(np.where(kept, place.rows(array), 0), array)
