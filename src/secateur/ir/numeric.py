"""Are two runs of a network the same, but for the roundings of its arithmetic?

An output is compared as a whole, by its largest number, and slice by slice along its channels, by the largest of each:
a channel of small values that is wrong drowns in the whole. A slice may also be small because its sum cancels, and then
holds rounding errors; what the network makes of a millionth of noise tells these from wrong ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from .graph import Array, Graph, Node, numpy_dtype
from .torch_origin import Integers

SLICE = 100  # tolerances of its own largest value by which one slice may be off
FLOOR = 1e-2  # tolerances of the whole output's largest value below which a slice is not looked at
NOISE = 1e-6  # relative change of weights and inputs that shows how a network hands on errors
RANGE = 3e-7  # absolute error of functions whose range is 1
SIZES = 8  # numbers at most that an operator may read as sizes, scales or a region
BOUNDED = frozenset({"sigmoid", "tanh", "softmax", "erf"})
SHARE = 16.0  # times what that noise does: no rounding goes beyond


def relative_error(want: Array, have: Array) -> float:
    """Largest absolute difference over the largest absolute reference value; inf if shapes or NaNs differ."""
    if want.shape != have.shape:
        return float("inf")
    if not want.size:
        return 0.0
    a, b = np.asarray(want, np.float64), np.asarray(have, np.float64)
    error = _all_finite(a, b)
    if error is not None:
        return error
    finite = np.isfinite(a)
    if not finite.any() or not np.array_equal(finite, np.isfinite(b)):
        return float("inf")  # differ, or nothing that could be compared
    return _all_finite(a[finite], b[finite]) or 0.0


def _all_finite(a: Array, b: Array) -> float | None:
    """The largest difference over the largest of a, or itself where a is zero; None unless all numbers are finite."""
    with np.errstate(invalid="ignore"):
        worst = np.abs(a - b).max()
    scale = max(a.max(), -a.min())
    if not np.isfinite(scale) or not np.isfinite(worst):
        return None
    return float(worst / scale) if scale > 0 else float(worst)


def difference(want: Array, have: Array) -> float:
    """As ``relative_error``, but text counts as 0 or inf, and what is infinite or NaN in both as the same."""
    if want.shape != have.shape or want.dtype.kind in "OSU":
        return 0.0 if want.shape == have.shape and np.array_equal(want, have) else float("inf")
    if want.dtype.kind in "fV" and want.size:
        a, b = np.asarray(want, np.float64), np.asarray(have, np.float64)
        error = _all_finite(a, b)
        if error is not None:
            return error
        if not np.isfinite(a).any():
            return 0.0 if np.array_equal(a, b, equal_nan=True) else float("inf")
        infinite = ~np.isfinite(a) | ~np.isfinite(b)
        if not np.array_equal(a[infinite], b[infinite], equal_nan=True):
            return float("inf")
    return relative_error(want, have)


@dataclasses.dataclass(frozen=True)
class Slice:
    """One index along an axis of an output, and how far it is off, as a share of its own largest value."""

    axis: int
    index: int
    error: float

    def __str__(self) -> str:
        return f"its slice {self.index} along axis {self.axis} is off by {self.error:.1e} of its own largest value"


def worst_slice(want: Array, have: Array, tolerance: float, moved: Array | None = None) -> Slice | None:
    """The slice along the channels that is furthest off, if any is by more than rounding.

    ``moved`` is the reference after ``NOISE``; without it, slices are doubtful and may yet hold rounding errors.
    """
    if want.ndim < 2 or want.dtype.kind not in "fV" or want.shape != have.shape or not want.size:
        return None
    a, b = np.asarray(want, np.float64), np.asarray(have, np.float64)
    with np.errstate(invalid="ignore"):
        off = np.abs(a - b)
    size = np.abs(a)
    if not np.isfinite(off.max()):
        finite = np.isfinite(off)
        size, off = np.where(finite, size, 0), np.where(finite, off, 0)
    noise = np.zeros((1,) * a.ndim)
    if moved is not None and moved.shape == want.shape:
        with np.errstate(invalid="ignore"):
            change = np.abs(np.asarray(moved, np.float64) - a)
        noise = np.where(np.isfinite(change), change, np.inf)
    found: list[Slice] = []
    for axis in sorted({1, want.ndim - 1}):
        rest = tuple(i for i in range(want.ndim) if i != axis)
        own, wrong, rough = (x.max(axis=rest) for x in (size, off, noise))
        limit = np.maximum(SLICE * tolerance * own, FLOOR * tolerance * size.max()) + SHARE * rough
        over = np.flatnonzero(wrong > limit)
        if len(over):
            at = int(over[np.argmax(wrong[over] / np.maximum(own[over], np.finfo(np.float64).tiny))])
            found.append(Slice(axis, at, float(wrong[at] / own[at]) if own[at] else float("inf")))
    return max(found, key=lambda s: s.error, default=None)


def doubtful(wants: Sequence[Array], haves: Sequence[Array], tolerance: float) -> bool:
    """Is any slice off by so much of its own values that noise has to decide?"""
    return any(worst_slice(a, b, tolerance) is not None for a, b in zip(wants, haves, strict=True))


def random_inputs(graph: Graph, seed: int, shapes: Mapping[str, Sequence[int]] | None = None) -> dict[str, Array]:
    """Standard normal floats; integers as in the example inputs, else zeros and ones.

    ``shapes`` by input name, where not the captured ones.
    """
    rng = np.random.default_rng(seed)
    note = graph.note(Integers)
    known = {} if note is None else note.examples
    out: dict[str, Array] = {}
    for value in graph.inputs:
        kind = numpy_dtype(value.dtype)
        shape = tuple(map(int, (shapes or {}).get(value.name, value.shape)))
        if value.name in known and known[value.name].shape == shape:
            out[value.name] = known[value.name]
        elif kind.kind in "iub":
            out[value.name] = rng.integers(0, 2, shape).astype(kind)
        else:
            out[value.name] = rng.standard_normal(shape).astype(kind)
    return out


def moved(graph: Graph, feed: Mapping[str, Array], seed: int = 0) -> tuple[Graph, dict[str, Array]]:
    """The network and its inputs after a relative change by ``NOISE`` of every number.

    Functions of bounded range are off by ``RANGE`` besides: runtimes compute them exactly to their range, and not to
    each result, so that a probability of 1e-4 may be off by 1e-3 of itself. Numbers that may be sizes (the step of a
    range, the scales of a resize) stay: a millionth more of them is another shape.
    """
    rng = np.random.default_rng(seed)

    def move(array: Array) -> Array:
        if array.dtype.kind != "f":
            return array
        by = max(NOISE, np.finfo(array.dtype).eps)
        changed: Array = (array * (1 + by * rng.choice((-1.0, 1.0), array.shape))).astype(array.dtype)
        return changed

    opaque = {i for node in graph.nodes if node.op == "opaque" for i in node.inputs}
    still = {n for n, w in graph.weights.items() if w.ndim == 0 or (n in opaque and w.size <= SIZES)}
    weights = {n: w if n in still else move(w) for n, w in graph.weights.items()}
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op not in BOUNDED or node.out.dtype not in ("f32", "f64"):
            nodes.append(node)
            continue
        raw, shift = dataclasses.replace(node.out, name=f"{node.name}.raw"), f"{node.name}.shift"
        weights[shift] = np.full((1,) * len(node.out.shape), RANGE * rng.choice((-1, 1)), numpy_dtype(node.out.dtype))
        nodes.append(dataclasses.replace(node, outputs=(raw,)))
        nodes.append(Node("add", (raw.name, shift), (node.out,), {}, node.source))
    return graph.rewrite(nodes=nodes, weights=weights), {n: move(x) for n, x in feed.items()}
