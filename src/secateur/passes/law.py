"""The law, checked: the slim network equals the original with the dropped channels at zero.

The reference is built from the recipe alone: the missing input columns of every listed consumer are
set to zero in the original, and at nodes that mix channels without a weight the missing channels of
their input. Where a normalisation keeps statistics over the kept channels the result is ``inexact``,
and the reference normalises over the kept channels too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from secateur.ir import Array, Error, Graph, InputError, LawError
from secateur.ir.fields import Fields, Json
from secateur.ir.numeric import NOISE, difference, doubtful, moved, random_inputs, relative_error, worst_slice
from secateur.ir.precision import tolerance as tolerance_of
from secateur.ir.precision import widened, widened_feed

from .choices import behind, choices, discrete
from .masked import masked
from .recipe.recipe import Recipe

__all__ = ["Probe", "Verification", "check", "failure", "masked", "probes", "random_inputs", "relative_error"]

OWN = ("it is random", "it is unstable", "it overflows")  # beginnings of reasons that lie in the network
Feed = Mapping[str, Array]
Run = Callable[[Graph, Feed], Sequence[Array]]


@dataclass(frozen=True, eq=False)
class Verification(Fields):
    """The outcome, as the report prints it. ``max_rel_err`` is relative to the reference's largest value.

    ``compared`` says what was; ``changed`` are weights that were changed on purpose after the cut, ``distance`` is how
    far outputs are from the reference with them (relative), ``reason`` why the check did not pass.
    """

    law: str
    passed: bool
    max_rel_err: float
    inputs: int
    reference: str
    compared: str = "function"
    changed: tuple[str, ...] = ()
    distance: float | None = None
    reason: str | None = None

    def to_dict(self) -> dict[str, Json]:
        """The fields as the report has them; of the last four those that say something."""
        found = super().to_dict()
        bare = {f.name for f in dataclasses.fields(self) if f.default is not dataclasses.MISSING}
        return {name: x for name, x in found.items() if name not in bare or x not in ("function", [], None)}


def check(
    original: Graph,
    slim: Graph,
    recipe: Recipe,
    *,
    run: Run,
    seed: int = 0,
    inputs: int = 2,
    given: Sequence[Mapping[str, Array]] = (),
    tolerance: float | None = None,
) -> Verification:
    """Compare ``slim`` with the masked original on random and given inputs, at the outputs and at ``probes``.

    ``run`` executes a graph. Where the reference is not finite, so must the slim network be. Networks in half precision
    are compared in float32, since the law speaks of channels and not of roundings; ``tolerance`` is that of the type.
    """
    watched = probes(original, slim, recipe)
    inexact = any(m.statistics for m in recipe.mixing)
    feeds = [random_inputs(original, seed + i) for i in range(inputs)] + list(given)
    pair = _Pair(original, slim, recipe, watched, run)
    if pair.wide:
        feeds = [widened_feed(feed) for feed in feeds]
    limit = tolerance if tolerance is not None else tolerance_of(original) if not pair.wide else tolerance_of(pair.slim)
    # One graph after the other: the masked weights are gone before the slim network is loaded.
    expected = pair.references(feeds)
    worst, reason = 0.0, ""
    for feed, wanted, actual in zip(feeds, expected, pair.slims(feeds), strict=True):
        error = max((relative_error(a, b) for a, b in zip(wanted, actual, strict=True)), default=0.0)
        if error > limit or doubtful(wanted, actual, limit):
            why = pair.reason(feed, wanted, actual, error, limit)
            reason, error = reason or why, 0.0 if pair.decided and not why else error
        worst = max(worst, error)
    law = "inexact" if inexact else "exact"
    compared = (
        f"function, after {pair.decided} as in the reference: roundings decide it" if pair.decided else "function"
    )
    return Verification(law, not reason, worst, len(feeds), "masked original", compared, reason=reason or None)


def failure(name: str, found: Verification) -> Error:
    """What to raise for a check that failed: InputError where the network's own nature is why, else LawError."""
    reason = found.reason or f"the two differ by {found.max_rel_err:.1e}"
    if reason.startswith(OWN):
        return InputError(
            f"'{name}' cannot be checked: {reason}; nothing was written. Take out what makes it so, or say in Python "
            "that it shall not be checked: verify=False"
        )
    return LawError(
        f"'{name}': the slim network is not the {found.reference}: {reason} (relative, {found.inputs} inputs); nothing "
        "was written. This is a fault in secateur: please report it with the model, or protect the layers that "
        "`secateur inspect` ties in an unexpected way"
    )


def distance(
    original: Graph,
    slim: Graph,
    recipe: Recipe,
    *,
    run: Run,
    seed: int = 0,
    inputs: int = 2,
    given: Sequence[Feed] = (),
) -> float:
    """How far the outputs of ``slim`` are from those of the masked original, on the inputs that ``check`` uses."""
    feeds = [random_inputs(original, seed + i) for i in range(inputs)] + list(given)
    pair = _Pair(original, slim, recipe, (), run)
    if pair.wide:
        feeds = [widened_feed(feed) for feed in feeds]
    pairs = zip(pair.references(feeds), pair.slims(feeds), strict=True)
    return max(relative_error(a, b) for wanted, actual in pairs for a, b in zip(wanted, actual, strict=True))


class _Pair:
    """The masked original and the slim network, both in float32 where that can be."""

    def __init__(self, original: Graph, slim: Graph, recipe: Recipe, watched: Sequence[Probe], run: Run) -> None:
        wide = [widened(original), widened(slim)]
        self.wide = all(g is not None for g in wide)
        self.original, self.slim = (
            w if self.wide and w is not None else g for w, g in zip(wide, (original, slim), strict=True)
        )
        self.recipe, self.probes, self.run = recipe, watched, run
        self.decided = ""  # the first node that roundings decide, where everything else is right

    def references(self, feeds: Sequence[Feed], change: bool = False) -> list[list[Array]]:
        """What the slim network must give: outputs and probed values, for each feed. ``change``: after some noise."""
        graph = self._watched(masked(self.original, self.recipe))
        count = len(self.original.outputs)
        found = [self.run(*(moved(graph, feed) if change else (graph, feed))) for feed in feeds]
        return [[*f[:count], *(t.of(e) for t, e in zip(self.probes, f[count:], strict=True))] for f in found]

    def slims(self, feeds: Sequence[Feed]) -> list[list[Array]]:
        """What it gives."""
        graph = self._watched(self.slim)
        return [list(self.run(graph, feed)) for feed in feeds]

    def _watched(self, graph: Graph) -> Graph:
        return graph.rewrite(outputs=[*graph.outputs, *(t.value for t in self.probes)])

    def reason(self, feed: Feed, wanted: Sequence[Array], actual: Sequence[Array], error: float, limit: float) -> str:
        """The cause of a difference; nothing where it is the rounding of small numbers."""
        (again,) = self.references([feed])
        own = max(difference(a, b) for a, b in zip(wanted, again, strict=True))
        if own > limit:
            return f"it is random: the same input gives outputs that differ by {own:.1e}, so nothing can be compared"
        if error == float("inf") and not all(np.isfinite(a).all() for a in wanted if a.dtype.kind == "f"):
            return "it overflows: on inputs of ordinary size some of its values are infinite or NaN"
        (noisy,) = self.references([feed], change=True)
        swing = max(difference(a, b) for a, b in zip(wanted, noisy, strict=True))
        if error > limit:
            unstable = swing >= error / 10  # then only a true choice excuses it: else small errors grow in every node
            self.decided = self.decided or self._decided(feed, wanted, actual, limit, unstable)
            if self.decided:
                return ""
            if unstable:
                return f"it is unstable: {NOISE:g} of noise on weights and inputs moves its own outputs by {swing:.1e}"
            return f"the two differ by {error:.1e}"
        names = [*self.original.outputs, *(t.value for t in self.probes)]
        for name, want, have, noise in zip(names, wanted, actual, noisy, strict=True):
            found = worst_slice(want, have, limit, noise)
            if found is not None:
                return f"in '{name}' {found}"
        return ""

    def _decided(
        self, feed: Feed, wanted: Sequence[Array], actual: Sequence[Array], limit: float, unstable: bool
    ) -> str:
        """The first node whose result roundings decide, where all others are right; see ``choices``.

        ``unstable``: noise alone moves the outputs as far, and nodes that are no choices may not be taken for one.
        """
        made = choices(masked(self.original, self.recipe), self.slim, feed, self.run, limit)
        if made is None or (unstable and not (made and all(map(discrete, made)))):
            return ""
        hidden, count = behind(self.slim, made), len(self.original.outputs)
        # A layer that is off is not a choice among equals, whatever hides it.
        layers = zip(self.probes, wanted[count:], actual[count:], strict=True)
        if any(difference(a, b) > limit for probe, a, b in layers if probe.value not in hidden):
            return ""
        # With every value asked for a runtime may add in another order, so that nothing differs.
        return next((f"{n.attrs.get('target', n.op)} '{n.label}'" for n in made), "the network")


_ROWS = {"conv": 0, "linear": 0, "conv_transpose": 1}  # the weight axis of a layer's outputs
_PROBES = 8  # layers looked at in addition to the outputs


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """A layer's output: which of its channels the slim network has, and along which axis."""

    value: str
    axis: int
    kept: Array | None

    def of(self, reference: Array) -> Array:
        return reference if self.kept is None else np.take(reference, self.kept, axis=self.axis)


def probes(original: Graph, slim: Graph, recipe: Recipe) -> list[Probe]:
    """A few layers from first to last whose outputs are compared as well.

    A saturated softmax or a classifier that was never trained gives the same output whatever went
    wrong before it; what the layers hold does not.
    """
    layers = [n for n in original.nodes if n.op in _ROWS and n.name in slim.values and n.inputs[1] in original.weights]
    step = max(1, len(layers) // _PROBES)
    found = []
    for node in layers[::-1][: step * _PROBES : step]:
        weight, transposed = str(node.inputs[1]), node.attrs.get("transposed", False)
        row = 1 if transposed else _ROWS[node.op]
        lists = recipe.weights.get(weight, {}).get(row)
        axis = len(node.out.shape) - 1 if node.op == "linear" else 1
        probe = Probe(node.name, axis, None if lists is None else np.asarray(lists, np.int64))
        shape = list(node.out.shape)
        if probe.kept is not None:
            shape[axis] = len(probe.kept)
        if slim.values[node.name].shape == tuple(shape):
            found.append(probe)
    return found
