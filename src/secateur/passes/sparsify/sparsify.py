"""``sparsify``: zeros in the weights of a network whose shapes stay as they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from secateur.ir import Array, Graph, InputError
from secateur.passes.analysis.cost import cost
from secateur.passes.compensate.original import EXAMPLES, kept_rows, noted
from secateur.passes.context import context_of, in_context
from secateur.passes.recipe import Recipe

from .balanced import Balanced, Kernels
from .blocks import pattern_of
from .budget import divided
from .darb import DARB, masks
from .layers import Place, places
from .n_of_m import NOfM
from .pattern import Mask, Pattern
from .reach import reaches
from .rectangles import Rectangles
from .zeros import SparseRow, Sparsified

if TYPE_CHECKING:
    from secateur.passes.compensate.lockstep import Step

    from .normal import Normal
    from .recurrent import Recurrent

LANES = 8  # outputs of a balanced block where nobody knows the target's vectors


@dataclass(frozen=True)
class Sparsify:
    """Set a share of each layer's weights to zero, in a pattern that kernels can use.

    ``sparsity``: the share of zeros in each layer that takes part (see ``layers.places``), at least. ``block``: the
    pattern, as ``--block`` spells it; ``auto`` are balanced blocks of ``lanes`` outputs, a vector of the target, and
    ``kernels`` such blocks with all taps of an input, which Winograd's algorithm can leave out. ``whole``: layers that
    have the latter where the others have ``auto`` (globs).
    ``by``: "magnitude"; "shares": squares as shares of their row's sum, so that quiet outputs, and quiet units of
    recurrent layers, keep as much of what they have as loud ones; or "moments": the second moments of each layer's
    inputs in calibration data say what a weight is worth, and what remains is solved for the original's outputs, layer
    after layer, on the outputs of the layers before it (without labels); of recurrent layers for what enters the gates.

    ``across``: one budget for all layers, so that a layer that needs its weights more keeps more of them: by moments in
    any pattern (``budget``; recurrent layers keep to the share), else with ``darb`` alone. ``of`` "outputs", by
    moments: what a layer gets wrong counts by how far it moves the network's outputs, output by output (``reach``);
    blocks then keep what those outputs need that matter, and ``across`` compares layers by it, in place of by what each
    layer's own outputs lose of their energy. ``count`` "macs": ``sparsity`` is the share of the multiply-accumulates of
    these layers, of which early ones have many for each weight, so that the budget is one of work.

    Before: ``y = conv(x, w)``. After: the same, with zeros in w.
    """

    name: ClassVar[str] = "sparsify"
    sparsity: float = 0.5
    block: str = "auto"
    by: str = "magnitude"
    lanes: int = 0
    protect: tuple[str, ...] = ()
    across: bool = False
    of: Literal["layers", "outputs"] = "layers"
    count: Literal["weights", "macs"] = "weights"
    rounds: int = 3
    ridge: float = 1e-2
    positions: int = 64
    examples: int = EXAMPLES
    whole: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise InputError(
                f"sparsity {self.sparsity:g}: the share of weights that become zero, from 0 to below 1; a layer "
                "without any weight is better dropped, as with drop_layer"
            )
        if self.by not in ("magnitude", "shares", "moments"):
            raise InputError(f"sparsify{{by={self.by}}}: write magnitude, shares or moments")
        if self.of not in ("layers", "outputs"):
            raise InputError(f"sparsify{{of={self.of}}}: layers or outputs")
        if self.of == "outputs" and self.by != "moments":
            raise InputError("sparsify{of=outputs}: how far errors reach is seen on data; write by=moments as well")
        if self.count not in ("weights", "macs"):
            raise InputError(f"sparsify{{count={self.count}}}: weights or macs")
        if self.count == "macs" and not (self.across and self.by == "moments"):
            raise InputError(
                "sparsify{count=macs}: layers share one budget of multiply-accumulates by what they lose; write "
                "by=moments,across=true as well"
            )
        if self.rounds < 1 or self.positions < 1 or self.examples < 1 or self.ridge < 0 or self.lanes < 0:
            raise InputError("sparsify: rounds, positions and examples are 1 or more, ridge and lanes 0 or more")
        pattern = pattern_of(self.block, self.lanes or LANES)
        if self.across and self.by != "moments" and self.block != DARB.name:
            raise InputError(
                "sparsify{across=true} is one budget for all layers: sizes of weights of several layers compare only "
                "with block=darb; write by=moments"
            )
        if self.whole and self.block != Balanced.name:
            raise InputError(f"sparsify{{whole=..}}: layers of whole kernels next to block=auto, not {self.block}")
        if self.across and isinstance(pattern, NOfM):
            raise InputError(f"sparsify{{across=true}}: {self.block} has one share of zeros; leave across out")

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
        outputs = {Balanced: "outputs", Kernels: "outputs", Rectangles: "rows"}.get(type(pattern))
        return found.with_note(Sparsified(self.block, rows, getattr(pattern, outputs) if outputs else 1))

    def _by_magnitude(
        self, graph: Graph, chosen: list[Place], pattern: Pattern
    ) -> tuple[dict[str, Array], dict[str, Mask]]:
        """The least squares of the weights themselves go, or the least shares of a row's."""
        squares = [_squares(p, graph.weights[p.weight]) for p in chosen]
        if self.by == "shares":
            squares = [s / np.maximum(s.sum(1, keepdims=True), np.finfo(np.float64).tiny) for s in squares]
        if self.across and self.by != "moments":
            kept = masks(squares, self.sparsity)
        else:
            kept = [self._in(pattern, p, graph).mask(s, self.sparsity) for p, s in zip(chosen, squares, strict=True)]
        named = {p.weight: m for p, m in zip(chosen, kept, strict=True)}
        return {p.weight: _masked(p, graph.weights[p.weight], named[p.weight]) for p in chosen}, named

    def _by_moments(
        self, graph: Graph, chosen: list[Place], pattern: Pattern
    ) -> tuple[dict[str, Array], dict[str, Mask]]:
        """Layer after layer, each on what those before it compute now."""
        from secateur.passes.compensate.layers import solvable
        from secateur.passes.compensate.lockstep import lockstep

        by_node: dict[str, list[Place]] = {}
        for place in chosen:
            if solvable(graph, place.node) or (place.recurrent and len(graph.users[place.weight]) == 1):
                by_node.setdefault(place.node.name, []).append(place)
        weights, kept = self._by_magnitude(graph, [p for p in chosen if p.node.name not in by_node], pattern)
        if not by_node:
            return weights, kept
        start = graph if context_of(graph).original is not None else in_context(graph, original=graph)
        recipe = graph.note(Recipe)
        single = [place for of in by_node.values() for place in of if not place.recurrent]
        reach = reaches(start, single, self.examples) if self.of == "outputs" and single else {}

        def steps() -> Iterator[tuple[Step, Place]]:
            for step in lockstep(start, self.name, self.examples, lambda n: n.name in by_node):
                yield from ((step, place) for place in by_node[step.node.name])

        shares = dict.fromkeys((p.weight for of in by_node.values() for p in of), self.sparsity)
        if self.across and single:
            curves = {
                p.weight: self._normal(s, p, recipe, reach).curve(self._in(pattern, p, graph))
                for s, p in steps()
                if not p.recurrent
            }
            if self.count == "macs":
                work = {row.node: row.macs for row in cost(graph).layers}
                curves |= {p.weight: dataclasses.replace(curves[p.weight], size=work[p.node.name]) for p in single}
            shares |= divided(curves, self.sparsity)
        for step, place in steps():
            step.slim.weights.update(weights)
            normal = self._sums(step, place, recipe, reach)
            own = self._in(pattern, place, graph)
            weights[place.weight], shift, kept[place.weight] = normal.pruned(own, shares[place.weight], self.rounds)
            if normal.bias is not None:
                weights[normal.bias] = shift
            step.slim.weights.update(weights)
        return weights, kept

    def _in(self, pattern: Pattern, place: Place, graph: Graph) -> Pattern:
        """The pattern as it is in one layer."""
        array = graph.weights[place.weight]
        if isinstance(pattern, Balanced) and any(fnmatchcase(place.node.name, glob) for glob in self.whole):
            pattern = Kernels(pattern.outputs)
        return pattern.of(place.taps(array), place.rows(array).shape[1], place.units(array))

    def _sums(self, step: Step, place: Place, recipe: Recipe | None, reach: Mapping[str, Array]) -> Normal | Recurrent:
        """What a layer's outputs lack, or what enters the gates of a recurrent one."""
        if not place.recurrent:
            return self._normal(step, place, recipe, reach)
        from .recurrent import Recurrent

        return Recurrent.of(step, place, kept_rows(recipe, place.weight, 2), self.ridge)

    def _normal(self, step: Step, place: Place, recipe: Recipe | None, reach: Mapping[str, Array]) -> Normal:
        from .normal import Normal

        rows = kept_rows(recipe, place.weight, 1 if place.transposed else 0)
        return Normal.of(step, place, rows, self.positions, self.ridge, reach.get(place.weight))

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
