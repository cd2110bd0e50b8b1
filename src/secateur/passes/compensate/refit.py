"""``refit``: least squares on what is kept, so that each layer computes what it did (He et al., ICCV 2017, step ii)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from secateur.ir import Array, Graph, InputError
from secateur.passes.context import context_of
from secateur.passes.recipe import Recipe

from .layers import Join, bias_of, join_of, sink, solvable
from .original import EXAMPLES, channel_axis, kept_rows, noted, refuse_both
from .pairs import Pair, Product, could_pair, pair_of
from .sums import Form, Single, Sums, chosen

if TYPE_CHECKING:
    from torch import Tensor

    from .lockstep import Step

AUTO = "auto"
RIDGE = 1e-2
HELD = 4  # of so many examples one judges the ridges
LEAST = 2 * HELD  # examples: with fewer nothing is held out


@dataclass(frozen=True)
class Refit:
    """Solve the weights of every layer that lost inputs, or follows one that did, for the original's outputs.

    From the input to the output: a layer's inputs are those of the slim network with all layers before it refitted,
    its targets the original's outputs (channel pruning, He et al. 2017, without their alternation). The change of the
    weights is solved in exact Gram form, in float64, with a ridge of ``ridge`` times the mean second moment towards
    the weights as they are: with few data little changes. ``ridge`` "auto" solves on three quarters of the examples
    with ridges from 0.01 % to 100 %, and takes for each layer the one with the least error on the last quarter; where
    none is better than the weights as they are, these stay. ``positions``: places drawn in each example's picture.

    ``intercepts``: what a layer's outputs lack on average goes into its bias, or, without one, into the mean of the
    batch norm that alone reads it. ``residual``: where a layer's output is added to something that was computed
    before, it is solved for the original's *sum*, so that it makes up for what the other branch gets wrong.

    The original is the network before its rewrites. Two layers that ``low_rank``, ``grouped`` or ``separable`` made of
    one are solved together (``pairs``), as in the asymmetric reconstruction of Zhang et al. (TPAMI 2016).

    Before: ``y = conv(x', w')`` with w' cut from w. After: the same shapes, w' such that y is nearest to conv(x, w).
    """

    name: ClassVar[str] = "refit"
    ridge: float | str = RIDGE
    positions: int = 64
    examples: int = EXAMPLES
    intercepts: bool = True
    residual: bool = False

    def __post_init__(self) -> None:
        """Raises InputError for a ridge that is a word, but for auto."""
        if isinstance(self.ridge, str) and self.ridge != AUTO:
            raise InputError(f"option 'ridge' of pass 'refit' is {self.ridge!r}; it takes a number, or auto")

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError without data, for numbers below 0, and after ``fold_constants``."""
        if (not isinstance(self.ridge, str) and self.ridge < 0) or self.positions < 1 or self.examples < 1:
            raise InputError(f"refit{{ridge={self.ridge},positions={self.positions},examples={self.examples}}}: "
                             "numbers must be positive")  # fmt: skip
        refuse_both(graph, self.name, "fold_constants")
        from .lockstep import lockstep

        recipe, weights = graph.note(Recipe), dict(graph.weights)
        layers = [n for n in graph.nodes if solvable(graph, n)]
        joins = {n.name: join_of(graph, n) for n in layers if self.residual}
        held = {name: join.other for name, join in joins.items() if join is not None}
        found = {n.name: pair_of(graph, n, context_of(graph).given) for n in layers}
        pairs = {name: pair for name, pair in found.items() if pair is not None}
        before, names = {name: pair.first.name for name, pair in pairs.items()}, set(found)
        steps = lockstep(graph, self.name, self.examples, lambda n: n.name in names, held, before, given=True)
        for step in steps:
            made = self._solved(graph, step, recipe, joins.get(step.node.name), pairs.get(step.node.name))
            for name, value in made.items():
                weights[name] = step.slim.weights[name] = value
        return noted(graph.rewrite(weights=weights), self)

    @staticmethod
    def may_change(graph: Graph) -> frozenset[str]:
        """Weights of the layers that are solved, and where their intercepts go."""
        layers = [node for node in graph.nodes if solvable(graph, node)]
        firsts = [first for n in layers if (first := could_pair(graph, n)) is not None]
        weights = {str(n.inputs[1]) for n in (*layers, *firsts)}
        return frozenset(weights | {name for n in layers for name, _ in sink(graph, n)})

    def _solved(
        self, graph: Graph, step: Step, recipe: Recipe | None, join: Join | None, pair: Pair | None
    ) -> dict[str, Array]:
        """The layer's new weight and what takes its intercept; nothing where it computes what it did already."""
        weights = step.slim.weights
        node = step.node if pair is None else pair.whole
        name, places = str(step.node.inputs[1]), sink(graph, step.node) if self.intercepts else []
        bias = weights[bias_of(node) or ""] if bias_of(node) else None
        like = weights[name] if pair is None else pair.wanted(step, recipe)
        fit, judge = (Sums(node, like, self.positions) for _ in range(2))
        auto = self.ridge == AUTO and sum(step.counts) >= LEAST
        seen = 0
        for number, (target, x) in enumerate(self._pairs(step, node.inputs[0] or "", recipe, join)):
            apart = [i for i in range(len(x)) if auto and (seen + i) % HELD == HELD - 1]
            here = [i for i in range(len(x)) if i not in set(apart)]
            for sums, rows in ((fit, here), (judge, apart)):
                if rows:
                    sums.add(number, x[rows], target[rows], None, bias)
            seen += len(x)
        form: Form = Single(name) if pair is None else Product(pair, pair.factors(weights))
        ridge = RIDGE if isinstance(self.ridge, str) else self.ridge
        if auto:
            best = chosen(judge, form.now(fit), lambda ridge: form.solved(fit, ridge, bool(places))[:2])
            if best is None:
                return {}
            ridge = best
            fit.join(judge)
        change, shift, written = form.solved(fit, ridge, bool(places))
        if change is None:
            return {}
        moved = {place: weights[place] + sign * shift.reshape(weights[place].shape) for place, sign in places}
        return {**written(weights), **{place: value.astype(weights[place].dtype) for place, value in moved.items()}}

    @staticmethod
    def _pairs(step: Step, read: str, recipe: Recipe | None, join: Join | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Batch by batch, what the layer is to put out and what it reads."""
        import torch

        node = step.node
        rows = kept_rows(recipe, str(node.inputs[1]), 1 if node.attrs.get("transposed", False) else 0)
        axis, taken = channel_axis(node), None if rows is None else torch.from_numpy(rows)
        other = None
        if join is not None and step.holds(join.other):
            other = step.pairs(join.other, join.other)
            scale = None if join.norm is None else torch.from_numpy(join.scale(step.slim.weights))
        for target, x in step.pairs(node.name, read):
            wanted = target if taken is None else target.index_select(axis, taken)
            if other is not None:
                theirs, mine = next(other)
                lacks = (theirs if taken is None else theirs.index_select(axis, taken)) - mine
                if scale is not None:
                    lacks = lacks * scale.reshape([-1 if a == axis else 1 for a in range(lacks.dim())])
                wanted = wanted + lacks
            yield wanted, x
