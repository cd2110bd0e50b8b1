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
from typing import Any

import numpy as np

from secateur.ir import Array, Graph, InputError, Node, Value, numpy_dtype

from .recipe import Recipe

Run = Callable[[Graph, Mapping[str, Array]], Sequence[Array]]
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Verification:
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

    def to_dict(self) -> dict[str, Any]:
        """The fields as the report has them; of the last four those that say something."""
        found = dataclasses.asdict(self)
        bare = {f.name for f in dataclasses.fields(self) if f.default is not dataclasses.MISSING}
        return {name: x for name, x in found.items() if name not in bare or x not in ("function", (), None)}


def check(
    original: Graph,
    slim: Graph,
    recipe: Recipe,
    *,
    run: Run,
    seed: int = 0,
    inputs: int = 2,
    given: Sequence[Mapping[str, Array]] = (),
    tolerance: float = TOLERANCE,
) -> Verification:
    """Compare ``slim`` with the masked original on random and given inputs, at the outputs and at ``probes``.

    ``run`` executes a graph. Where the reference is not finite, so must the slim network be.
    """
    taps = probes(original, slim, recipe)
    names = [t.value for t in taps]
    count = len(original.outputs)
    inexact = any(m.get("statistics") for m in recipe.mixing)
    feeds = [random_inputs(original, seed + i) for i in range(inputs)] + list(given)
    # One graph after the other: the masked weights are gone before the slim network is loaded.
    expected = _run_all(masked(original, recipe), names, feeds, run)
    worst = 0.0
    for wanted, actual in zip(expected, _run_all(slim, names, feeds, run), strict=True):
        full = [*wanted[:count], *(t.of(e) for t, e in zip(taps, wanted[count:], strict=True))]
        for want, have in zip(full, actual, strict=True):
            worst = max(worst, relative_error(want, have))
    passed = worst <= tolerance
    return Verification("inexact" if inexact else "exact", passed, worst, len(feeds), "masked original")


def distance(
    original: Graph,
    slim: Graph,
    recipe: Recipe,
    *,
    run: Run,
    seed: int = 0,
    inputs: int = 2,
    given: Sequence[Mapping[str, Array]] = (),
) -> float:
    """How far the outputs of ``slim`` are from those of the masked original, on the inputs that ``check`` uses."""
    feeds = [random_inputs(original, seed + i) for i in range(inputs)] + list(given)
    expected = _run_all(masked(original, recipe), (), feeds, run)
    found = _run_all(slim, (), feeds, run)
    pairs = (pair for want, have in zip(expected, found, strict=True) for pair in zip(want, have, strict=True))
    return max(relative_error(want, have) for want, have in pairs)


def _run_all(
    graph: Graph, probed: Sequence[str], feeds: Sequence[Mapping[str, Array]], run: Run
) -> list[Sequence[Array]]:
    """The outputs and the probed values, for each feed."""
    watched = graph.rewrite(outputs=[*graph.outputs, *probed])
    return [run(watched, feed) for feed in feeds]


_PROBES = 8  # layers looked at besides the outputs


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


_ROWS = {"conv": 0, "linear": 0, "conv_transpose": 1}  # the weight axis of a layer's outputs


def relative_error(want: Array, have: Array) -> float:
    """Largest absolute difference over the largest absolute reference value; inf if shapes or NaNs differ."""
    if want.shape != have.shape:
        return float("inf")
    if not want.size:
        return 0.0
    a, b = np.asarray(want, np.float64), np.asarray(have, np.float64)
    if not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return float("inf")
    finite = np.isfinite(a)
    if not finite.any():
        return float("inf")  # nothing that could be compared
    scale = np.abs(a[finite]).max()
    difference = np.abs(a[finite] - b[finite]).max()
    return float(difference / scale) if scale > 0 else float(difference)


def random_inputs(graph: Graph, seed: int) -> dict[str, Array]:
    """Standard normal floats, zeros and ones for the rest."""
    rng = np.random.default_rng(seed)
    out: dict[str, Array] = {}
    for value in graph.inputs:
        kind = numpy_dtype(value.dtype)
        if kind.kind in "iub":
            out[value.name] = rng.integers(0, 2, value.shape).astype(kind)
        else:
            out[value.name] = rng.standard_normal(value.shape).astype(kind)
    return out


def masked(graph: Graph, recipe: Recipe) -> Graph:
    """The original with the dropped channels zeroed where they are consumed."""
    weights = dict(graph.weights)
    for node in graph.nodes:
        _zero_columns(node, recipe, graph, weights)
    nodes: list[Node] = []
    mixing: dict[str, list[Mapping[str, Any]]] = {}
    for m in recipe.mixing:
        mixing.setdefault(m["node"], []).append(m)
    known = {n.name for n in graph.nodes}
    if set(mixing) - known:
        raise InputError(f"recipe: network '{graph.name}' has no node {sorted(set(mixing) - known)[0]!r}")
    for node in graph.nodes:
        entries = mixing.get(node.name)
        if not entries:
            nodes.append(node)
            continue
        for m in entries:
            before, node, after = _mask_input(graph, node, m, weights)
            nodes.extend(before)
        nodes.extend([node, *after])
    return graph.rewrite(nodes=nodes, weights=weights)


def _zero_columns(node: Node, recipe: Recipe, graph: Graph, weights: dict[str, Array]) -> None:
    axis = {"conv": 1, "linear": 0 if node.attrs.get("transposed") else 1, "conv_transpose": 0}.get(node.op)
    name = node.inputs[1] if axis is not None else None
    if name is None or name not in recipe.weights or axis not in recipe.weights[name]:
        return
    if node.op == "conv_transpose" and node.attrs["groups"] > 1:
        return  # depthwise: the axis counts groups, which go as a whole
    original = graph.weights[name]
    lists = recipe.weights[name][axis]
    mask = np.zeros(original.shape[:2], bool)
    if lists and isinstance(lists[0], list):
        rows = original.shape[0] // len(lists)
        for g, kept in enumerate(lists):
            mask[g * rows : (g + 1) * rows, kept] = True
    elif axis == 0:
        mask[lists] = True
    else:
        mask[:, lists] = True
    weights[name] = np.where(mask.reshape(*mask.shape, *(1,) * (original.ndim - 2)), original, 0).astype(
        original.dtype, copy=False
    )


def _mask_input(
    graph: Graph, node: Node, m: Mapping[str, Any], weights: dict[str, Array]
) -> tuple[list[Node], Node, list[Node]]:
    """Nodes before, the node itself and nodes after, so that it sees the missing channels as zero."""
    name = node.inputs[m["input"]]
    assert name is not None
    value, axis = graph.value(name), m["axis"]
    if m.get("statistics"):
        return _over_kept(graph, node, m, weights)
    keep = np.zeros(value.shape[axis], numpy_dtype(value.dtype))
    keep[m["kept"]] = 1
    mask = f"{node.name}.mask{m['input']}"
    weights[mask] = keep.reshape([-1 if i == axis else 1 for i in range(len(value.shape))])
    zeroed = Value(f"{node.name}.masked{m['input']}", value.shape, value.dtype)
    before = [Node("mul", (name, mask), (zeroed,), {}, node.source)]
    inputs = tuple(zeroed.name if i == m["input"] else n for i, n in enumerate(node.inputs))
    return before, dataclasses.replace(node, inputs=inputs), []


def _over_kept(
    graph: Graph, node: Node, m: Mapping[str, Any], weights: dict[str, Array]
) -> tuple[list[Node], Node, list[Node]]:
    """A normalisation whose statistics run over the kept channels; the others come out as zero."""
    kept, axis = np.asarray(m["kept"], np.int64), m["axis"]
    name = str(node.inputs[0])
    value = graph.value(name)
    size = value.shape[axis]
    index, spread = f"{node.name}.keptindex", f"{node.name}.spreadindex"
    weights[index] = kept
    back = np.full(size, len(kept), np.int64)
    back[kept] = np.arange(len(kept))
    weights[spread] = back

    def narrow(shape: tuple[int, ...], width: int) -> tuple[int, ...]:
        return (*shape[:axis], width, *shape[axis + 1 :])

    few = Value(f"{node.name}.few", narrow(value.shape, len(kept)), value.dtype)
    before = [Node("gather", (name, index), (few,), {"axis": axis}, node.source)]
    inputs: list[str | None] = [few.name]
    local = axis - (len(value.shape) - node.attrs["dims"]) if "dims" in node.attrs else 0
    for other in node.inputs[1:]:
        if other is None:
            inputs.append(None)
            continue
        shape = graph.value(other).shape
        part = Value(f"{node.name}.{len(inputs)}.few", (*shape[:local], len(kept), *shape[local + 1 :]), value.dtype)
        before.append(Node("gather", (other, index), (part,), {"axis": local}, node.source))
        inputs.append(part.name)
    inner = Value(f"{node.name}.inner", few.shape, value.dtype)
    padded = Value(f"{node.name}.innerpad", narrow(value.shape, len(kept) + 1), value.dtype)
    rank = len(value.shape)
    pads = tuple(1 if i == rank + axis else 0 for i in range(2 * rank))
    after = [
        Node("pad", (inner.name,), (padded,), {"pads": pads, "mode": "constant", "value": 0.0}, node.source),
        Node("gather", (padded.name, spread), node.outputs, {"axis": axis}, node.source),
    ]
    return before, dataclasses.replace(node, inputs=tuple(inputs), outputs=(inner,)), after
