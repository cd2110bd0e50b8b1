"""``slim``: cut the weights and adjust the operators that mention widths.

The only pass that removes channels. It accepts any keep mask that satisfies the constraints and
refuses others by name. The law it obeys: on any input, ``slim(graph, keep)`` equals ``graph`` with the
dropped channels set to zero at the consumers' inputs.

Before (unit 1 of ``c1`` is dropped)::

    %c1 = conv(%x, @c1.w) ... : f32[1, 4, 8, 8]
    %y = conv(%c1, @c2.w) ... : f32[1, 2, 8, 8]
    weights @c1.w f32[4, 3, 3, 3], @c2.w f32[2, 4, 3, 3]

After::

    %c1 = conv(%x, @c1.w) ... : f32[1, 3, 8, 8]
    %y = conv(%c1, @c2.w) ... : f32[1, 2, 8, 8]
    weights @c1.w f32[3, 3, 3, 3], @c2.w f32[2, 3, 3, 3]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import ELEMENTWISE, Array, Graph, Node, PassError, Source, Value, dtype_of, infer_node, prune_dead
from secateur.passes.context import in_context
from secateur.passes.coupling.keep import check_keep
from secateur.passes.notes import Coupling, KeepMask, Mixing, Slot, Survivors
from secateur.passes.recipe.build import recipe_of

from .slim_movement import ADJUST, Widths


@dataclass(frozen=True, slots=True)
class Slim:
    """Remove the channels that the graph's ``KeepMask`` note drops."""

    name: ClassVar[str] = "slim"

    def __call__(self, graph: Graph) -> Graph:
        keep = graph.note(KeepMask)
        if keep is None:
            raise PassError("slim needs a keep mask: run an allocation (uniform, global) before it")
        return in_context(slim(graph, keep.mask), original=graph)


def slim(graph: Graph, keep: Array) -> Graph:
    """The graph without the units that ``keep`` (bool[coupling.size]) drops.

    The result carries a ``Recipe`` note. Raises PassError if the mask breaks a constraint, drops a
    frozen unit or empties a weight.
    """
    coupling = _coupling(graph)
    check_keep(coupling, keep)
    if keep.all():
        return graph.with_note(recipe_of(graph, coupling, keep))
    weights = cut_weights(graph.weights, coupling, keep)
    out = _rewrite(graph, coupling, keep, weights)
    return out.with_note(recipe_of(graph, coupling, keep))


def slim_shapes(graph: Graph, keep: Array) -> Graph:
    """The same rewrite with weights that have shapes and no data: for counting, in little time."""
    coupling = _coupling(graph)
    shapes = {name: list(w.shape) for name, w in graph.weights.items()}
    survive = Survivors(keep)
    for slot in coupling.slots:
        live = survive(slot.units)
        shapes[slot.weight][slot.axis] = int(live.sum()) // slot.groups
    weights = {
        name: w if tuple(shapes[name]) == w.shape or _may_index(w) else _hollow(shapes[name], w)
        for name, w in graph.weights.items()
    }
    return _rewrite(graph, coupling, keep, weights)


def _may_index(array: Array) -> bool:
    """Integers that say where to read; those of one byte are a quantised layer's."""
    return array.dtype.kind in "iu" and array.dtype.itemsize > 1


def _hollow(shape: list[int], like: Array) -> Array:
    return np.broadcast_to(np.zeros((), like.dtype), shape)


def _coupling(graph: Graph) -> Coupling:
    coupling = graph.note(Coupling)
    if coupling is None:
        raise PassError("slim needs the coupling: run couple before it")
    return coupling


def cut_weights(weights: Mapping[str, Array], coupling: Coupling, keep: Array) -> dict[str, Array]:
    """Every weight with its dropped positions taken out; untouched ones are shared, not copied."""
    out, survive = dict(weights), Survivors(keep)
    by_weight: dict[str, list[Slot]] = {}
    for slot in coupling.slots:
        by_weight.setdefault(slot.weight, []).append(slot)
    for name, slots in by_weight.items():
        # Grouped input axes first: they count groups by the rows that are still all there.
        for slot in sorted(slots, key=lambda s: s.groups == 1):
            live = survive(slot.units)
            if live.all():
                continue
            out[name] = _cut_grouped(out[name], slot, live) if slot.groups > 1 else _take(out[name], slot.axis, live)
    return out


def _take(array: Array, axis: int, live: Array) -> Array:
    return np.take(array, np.flatnonzero(live), axis=axis)


def _cut_grouped(array: Array, slot: Slot, live: Array) -> Array:
    """Cut axis 1 of ``[O, I/g, ..]``: each group of rows keeps its own columns."""
    per_group = live.reshape(slot.groups, -1)
    kept = np.nonzero(per_group)[1].reshape(slot.groups, -1)
    rows = array.shape[0] // slot.groups
    index = np.repeat(kept, rows, axis=0)
    tail = (1,) * (array.ndim - 2)
    return np.take_along_axis(array, index.reshape(*index.shape, *tail), axis=1)


def _rewrite(graph: Graph, coupling: Coupling, keep: Array, weights: dict[str, Array]) -> Graph:
    """Mend every node whose operands changed, and derive all shapes anew."""
    widths = Widths(graph, coupling, Survivors(keep), weights)
    mixing = {(m.node, m.input): m for m in coupling.mixing}
    modes: dict[str, list[Mixing]] = {}
    for m in mixing.values():
        if not widths.live_units(m.units).all():
            modes.setdefault(m.node, []).append(m)
    known: dict[str, Value] = {v.name: v for v in graph.inputs}
    nodes: list[Node] = []

    def emit(node: Node) -> None:
        inputs = [None if i is None else known.get(i) or _as_value(i, weights) for i in node.inputs]
        try:
            outputs = infer_node(node, inputs)
        except ValueError as error:
            raise PassError(f"slim: {node.op} {node.source} does not fit its slim operands: {error}") from error
        known.update((v.name, v) for v in outputs)
        nodes.append(Node(node.op, node.inputs, outputs, node.attrs, node.source))

    for node in graph.nodes:
        full = any(m.mode == "expand" for m in modes.get(node.name, ()))
        adjust = None if full else ADJUST.get(node.op)
        pieces = adjust(widths, node) if adjust else [node]
        for m in modes.get(node.name, ()):
            pieces = _MODES[m.mode](widths, pieces, m)
        for piece in pieces:
            emit(piece)
    return prune_dead(graph.rewrite(nodes=nodes, weights=weights))


def _as_value(name: str, weights: Mapping[str, Array]) -> Value:
    return Value(name, weights[name].shape, dtype_of(weights[name]))


def _mean(widths: Widths, pieces: list[Node], m: Mixing) -> list[Node]:
    """The mean over the original number of channels, dropped ones counting as zero."""
    *before, node = pieces
    live = widths.live_units(m.units)
    factor = widths.constant(f"{node.name}.share", np.asarray(live.sum() / live.size, np.float32), node.out.dtype)
    full = Value(f"{node.name}.kept", node.out.shape, node.out.dtype)
    inner = Node(node.op, node.inputs, (full,), node.attrs, node.source)
    return [*before, inner, Node("mul", (full.name, factor), node.outputs, {}, node.source)]


def _expand(widths: Widths, pieces: list[Node], m: Mixing) -> list[Node]:
    """Put zeros where channels were dropped, run the node at full width, gather what lives."""
    *before, node = pieces
    name, live = node.inputs[m.input], widths.live_units(m.units)
    assert name is not None
    rank = len(widths.graph.value(name).shape)
    count = int(live.sum())
    pads = [0] * (2 * rank)
    pads[rank + m.axis] = 1
    index = np.where(live, np.cumsum(live) - 1, count)
    padded = Value(f"{node.name}.padded{m.input}", (), "f32")
    wide = Value(f"{node.name}.wide{m.input}", (), "f32")
    where = widths.constant(f"{node.name}.spread{m.input}", index.astype(np.int64), "i64")
    source = Source(f"{node.label}.expand")
    before = [
        *before,
        Node("pad", (name,), (padded,), {"pads": tuple(pads), "mode": "constant", "value": 0.0}, source),
        Node("gather", (padded.name, where), (wide,), {"axis": m.axis}, source),
    ]
    inputs = tuple(wide.name if i == m.input else n for i, n in enumerate(node.inputs))
    track = widths.coupling.channels.get(node.name)
    if track is None or widths.live_units(track.units).all() or node.op in NARROW or _across(node, rank, m, track.axis):
        return [*before, Node(node.op, inputs, node.outputs, node.attrs, node.source)]
    full = Value(f"{node.name}.full", (), "f32")
    kept = np.flatnonzero(widths.live_units(track.units))
    pick = widths.constant(f"{node.name}.pick", kept, "i64")
    return [
        *before,
        Node(node.op, inputs, (full,), node.attrs, node.source),
        Node("gather", (full.name, pick), node.outputs, {"axis": track.axis}, Source(f"{node.label}.gather")),
    ]


def _across(node: Node, rank: int, m: Mixing, axis: int) -> bool:
    """Does arithmetic widen an operand along another axis than that of its result's channels? Others make it narrow."""
    return node.op in ELEMENTWISE and m.axis + len(node.out.shape) - rank != axis


# Their outputs are as narrow as weights, or the operands that stay narrow, make them.
NARROW = frozenset({"conv", "conv_transpose", "linear", "matmul", "einsum"})


def _pick(widths: Widths, pieces: list[Node], m: Mixing) -> list[Node]:
    """Take the channels that live out of an operand that has them all."""
    *before, node = pieces
    name = node.inputs[m.input]
    assert name is not None
    few = Value(f"{node.name}.few{m.input}", (), "f32")
    kept = widths.constant(f"{node.name}.pick{m.input}", np.flatnonzero(widths.live_units(m.units)), "i64")
    gather = Node("gather", (name, kept), (few,), {"axis": m.axis}, Source(f"{node.label}.pick"))
    inputs = tuple(few.name if i == m.input else n for i, n in enumerate(node.inputs))
    return [*before, gather, Node(node.op, inputs, node.outputs, node.attrs, node.source)]


def _own(widths: Widths, pieces: list[Node], m: Mixing) -> list[Node]:
    """Hand a reader its own channels out of those that some reader keeps; nothing where these are the same."""
    *before, node = pieces
    name = node.inputs[m.input]
    track = widths.track(name)
    assert track is not None
    there, mine = widths.live_units(track.units), widths.live_units(m.units)
    if np.array_equal(there, mine):
        return pieces
    few = Value(f"{node.name}.own{m.input}", (), "f32")
    kept = widths.constant(few.name, (np.cumsum(there) - 1)[mine], "i64")
    gather = Node("gather", (name, kept), (few,), {"axis": m.axis}, Source(f"{node.label}.own"))
    inputs = tuple(few.name if i == m.input else n for i, n in enumerate(node.inputs))
    return [*before, gather, Node(node.op, inputs, node.outputs, node.attrs, node.source)]


def _as_is(widths: Widths, pieces: list[Node], m: Mixing) -> list[Node]:
    return pieces


_MODES = {"sum": _as_is, "kept": _as_is, "mean": _mean, "expand": _expand, "pick": _pick, "select": _pick, "own": _own}
