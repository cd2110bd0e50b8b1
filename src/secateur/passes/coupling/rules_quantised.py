"""Quantised layers: integer products whose weights, scales, zero points and biases are cut as those of any layer.

A channel that is gone is at its zero point where it is read: exactly what a zero becomes. What the law masks is the
weight of its reader (columns at 0, where its zero point is 0), else the float value that is quantised. Where a layer
chooses the scale of its input by what it sees, zeros must not widen that range, so there the input is always masked;
ranges hold 0 in any case. Hidden units of an LSTM feed such a range at every step: all gates of those that are gone are
masked, so that they stay at 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from secateur.ir import RESHAPES, Array, Node
from secateur.ir.opaque import onnx_attributes
from secateur.ir.quantised import CONCAT, DYNAMIC, ELEMENTWISE, QuantisedLayer, operand, quantised_layer, rows_axis

from .flow import Flow, Tracks
from .recorded import RawMixing, Track

MOVES = RESHAPES | {"transpose", "identity", "max_pool", "slice"}
GATES = 4
STATES = (5, 6)  # of an LSTM: what it starts from
PEEPHOLES = 7


def quantised(flow: Flow, node: Node) -> Tracks | None:
    """The tracks of a quantised node's outputs, None where this is none, or not one whose channels can be followed."""
    target, layer = str(node.attrs["target"]), quantised_layer(node)
    if layer is not None:
        rule = {"conv": _conv, "matmul": _matmul, "lstm": _lstm}[layer.kind]
        return rule(flow, node, layer) if flow.is_const(str(node.inputs[layer.weight])) else None
    if target == DYNAMIC:
        flow.mix(node, 0, "sum")
        return [flow.track(node.inputs[0]), None, None]
    if target in ELEMENTWISE:
        return _elementwise(flow, node, [node.inputs[i] for i in ELEMENTWISE[target]])
    return _concat(flow, node) if target == CONCAT else None


def _conv(flow: Flow, node: Node, layer: QuantisedLayer) -> Tracks | None:
    attrs = onnx_attributes(node)
    weight, groups = str(node.inputs[layer.weight]), int(attrs.get("group", 1))
    count, width = flow.shape(weight)[:2]
    track = flow.track(node.inputs[layer.x])
    if attrs.get("channels_last", 0) or (track is not None and track.axis == 0):
        return None
    if track is not None and track.axis > 1:
        flow.whole(node, layer.x)
        track = None
    if groups > 1:
        return _groupwise(flow, node, layer, track, groups) if width == 1 or count == groups else None
    rows = _rows(flow, node, layer, 0, count)
    if track is not None:
        _columns(flow, node, layer, 1, track.atoms)
    return [None if rows is None else Track(1, rows)]


def _groupwise(flow: Flow, node: Node, layer: QuantisedLayer, track: Track | None, groups: int) -> Tracks | None:
    """Depthwise: a group is kept or goes as a whole."""
    if track is None:
        flow.blocked[node.name] = "its groups read channels that nothing can remove"
        return [None]
    weight = str(node.inputs[layer.weight])
    grid = track.atoms.reshape(groups, -1)
    flow.tie(np.repeat(grid[:, 0], grid.shape[1] - 1), grid[:, 1:].reshape(-1), node)
    atoms = np.repeat(grid[:, 0], flow.shape(weight)[0] // groups)
    flow.assign(weight, 0, atoms, node)
    _parameters(flow, node, layer, atoms)
    return [Track(1, atoms)]


def _matmul(flow: Flow, node: Node, layer: QuantisedLayer) -> Tracks | None:
    weight, track = str(node.inputs[layer.weight]), flow.track(node.inputs[layer.x])
    if len(flow.shape(weight)) != 2 or int(onnx_attributes(node).get("transA", 0)):
        return None
    last, axis = len(node.out.shape) - 1, rows_axis(node, layer)
    if track is not None and track.axis != last:
        flow.blocked[node.name] = "its input carries channels along another axis"
        return [track]
    rows = _rows(flow, node, layer, axis, flow.shape(weight)[axis])
    if track is not None:
        _columns(flow, node, layer, 1 - axis, track.atoms)
    return [None if rows is None else Track(last, rows)]


def _rows(flow: Flow, node: Node, layer: QuantisedLayer, axis: int, count: int) -> Array | None:
    """Fresh atoms for the output channels."""
    if count == 1:
        flow.blocked[node.name] = "it has a single output channel"
        return None
    atoms = flow.fresh(count)
    flow.assign(str(node.inputs[layer.weight]), axis, atoms, node, "out")
    _parameters(flow, node, layer, atoms)
    return atoms


def _parameters(flow: Flow, node: Node, layer: QuantisedLayer, atoms: Array) -> None:
    """Scales, zero points and biases with an entry for each output channel."""
    for name in filter(None, (operand(node, i) for i in layer.rows)):
        if flow.shape(name)[-1:] == (len(atoms),) and len(atoms) > 1:
            if flow.is_const(name):
                flow.assign(name, len(flow.shape(name)) - 1, atoms, node)
            else:
                flow.freeze(atoms, f"{_title(node)} reads computed scales or biases")


def _columns(flow: Flow, node: Node, layer: QuantisedLayer, axis: int, atoms: Array) -> None:
    """Input columns, and what the law puts to zero for them."""
    weight = str(node.inputs[layer.weight])
    flow.assign(weight, axis, atoms, node, "in")
    maker = _quantiser(flow, node.inputs[layer.x])
    if layer.ranged:
        flow.mix(node, layer.x, "sum")
    elif maker is not None and maker.attrs["target"] == DYNAMIC:
        return  # it is masked itself
    elif weight in flow.graph.weights and _centred(flow, node, layer):
        flow.mixing.append(RawMixing(node, layer.weight, axis, atoms, "sum"))
    elif maker is not None:
        flow.mix(maker, 0, "sum")
    else:
        flow.freeze(atoms, f"{_title(node)} reads it with a weight whose zero point is not 0")


def _quantiser(flow: Flow, name: str | None) -> Node | None:
    """The node that quantised this value, if nothing but movement lies between."""
    maker = flow.graph.producer.get(name or "")
    while maker is not None and maker.op in MOVES:
        maker = flow.graph.producer.get(maker.inputs[0] or "")
    known = maker is not None and maker.op == "opaque" and maker.attrs["target"] in (DYNAMIC, "ai.onnx::QuantizeLinear")
    return maker if known else None


def _centred(flow: Flow, node: Node, layer: QuantisedLayer) -> bool:
    """Does 0 stand for 0 in the weights?"""
    zeros = [operand(node, i) for i in layer.zeros]
    return all(name is None or (name in flow.graph.weights and not flow.graph.weights[name].any()) for name in zeros)


def _lstm(flow: Flow, node: Node, layer: QuantisedLayer) -> Tracks | None:
    """Hidden units with their columns of every gate in both directions; input features are rows of the weight."""
    weight, recurrent, bias = str(node.inputs[1]), str(node.inputs[2]), operand(node, 3)
    hidden = flow.shape(recurrent)[1]
    known = [n for n in (weight, recurrent, bias) if n is not None]
    plain = all(n in flow.graph.weights for n in known) and operand(node, PEEPHOLES) is None
    if not plain or not _centred(flow, node, layer) or hidden == 1:
        return None
    track = flow.track(node.inputs[0])
    if track is not None and track.axis == 2:
        flow.assign(weight, 1, track.atoms, node, "in")
        flow.mix(node, 0, "sum")
    elif track is not None:
        flow.whole(node, 0)
    units = flow.fresh(hidden)
    gates = np.tile(units, GATES)
    flow.assign(weight, 2, gates, node, "out")
    flow.assign(recurrent, 2, gates, node)
    flow.assign(recurrent, 1, units, node, "in")
    masks: list[tuple[int, int, Array]] = [(1, 2, gates), (2, 2, gates)]
    if bias is not None:
        flow.assign(bias, 1, np.tile(units, 2 * GATES), node)
        masks.append((3, 1, np.tile(units, 2 * GATES)))
    _parameters(flow, node, layer, gates)
    flow.mixing += [RawMixing(node, i, axis, atoms, "sum") for i, axis, atoms in masks]
    for i in STATES:
        _state(flow, node, i, units)
    tracks = [Track(3, units), Track(2, units), Track(2, units)]
    return [t if len(v.shape) > t.axis else None for t, v in zip(tracks, node.outputs, strict=False)]  # some unnamed


def _state(flow: Flow, node: Node, i: int, units: Array) -> None:
    """What a hidden unit starts from is cut or picked, and zero for those that are gone."""
    name = operand(node, i)
    if name is None:
        return
    track = flow.track(name)
    if (track is not None and track.axis == 2) or flow.is_const(name):
        flow.meet(units, name, 2, node)
        flow.mixing.append(RawMixing(node, i, 2, units, "sum"))
    elif track is None:
        flow.mixing.append(RawMixing(node, i, 2, units, "select"))
    else:
        flow.freeze(units, f"{_title(node)} starts from %{name}, whose channels lie along another axis")


def _elementwise(flow: Flow, node: Node, names: Sequence[str | None]) -> Tracks | None:
    """Channel by channel; two operands are tied."""
    if onnx_attributes(node).get("channels_last", 0):
        return None
    rank = len(node.out.shape)
    tracks = [flow.track(name) for name in names]
    track = next((t for t in tracks if t is not None), None)
    if track is None:
        return [None]
    if len(names) == 1:
        return [track] if track.axis < 2 or node.out.shape == flow.shape(names[0]) else None
    if any(len(flow.shape(name)) != rank for name in names):
        return None
    for name in names:
        if flow.shape(name)[track.axis] == len(track.atoms):
            flow.meet(track.atoms, str(name), track.axis, node)
    return [track]


def _concat(flow: Flow, node: Node) -> Tracks | None:
    names = [str(name) for name in node.inputs[2::3]]
    axis = int(onnx_attributes(node)["axis"]) % len(node.out.shape)
    tracks = [flow.track(name) for name in names]
    if any(t is not None and t.axis != axis for t in tracks):
        return None
    parts = [
        np.zeros(flow.shape(n)[axis], np.int64) if t is None else t.atoms for n, t in zip(names, tracks, strict=True)
    ]
    atoms = np.concatenate(parts)
    return [Track(axis, atoms) if atoms.any() else None]


def _title(node: Node) -> str:
    return f"{str(node.attrs['target']).rpartition('::')[2]} {node.label}"
