"""Element-wise operators and normalisations: operands share their channels."""

from __future__ import annotations

import numpy as np

from secateur.ir import BINARY, COMPARE, UNARY, Node

from .flow import Flow, Rule, Tracks
from .recorded import Track


def _unary(flow: Flow, node: Node) -> Tracks:
    name, track = str(node.inputs[0]), flow.track(node.inputs[0])
    if track is not None and name in flow.pushed:
        flow.used(name, track.axis, node.name)
        flow.pushed.update(v.name for v in node.outputs)
    return [track]


def _elementwise(flow: Flow, node: Node) -> Tracks:
    """Operands that are full along the channel axis are tied; those that broadcast are left alone.

    Channels along another axis are seen at full width there, and all are where an operand has both axes.
    """
    names = [i for i in node.inputs if i is not None]
    rank = len(node.out.shape)
    found = [(name, flow.track(name), rank - len(flow.shape(name))) for name in names]
    labelled = [(t.axis + lead, t) for _, t, lead in found if t is not None]
    if not labelled:
        return [None]

    def parts(axis: int) -> tuple[set[str], set[str]]:
        """The operands with channels along another axis than this, and those that are full along it."""
        across = {name for name, t, lead in found if t is not None and t.axis + lead != axis}
        size = node.out.shape[axis]
        return across, {name for name, _, lead in found if axis >= lead and flow.shape(name)[axis - lead] == size}

    axis = max(labelled, key=lambda item: (not set.intersection(*parts(item[0])), len(item[1].atoms)))[0]
    size = node.out.shape[axis]
    master = next((t for a, t in labelled if a == axis and len(t.atoms) == size), None)
    if master is None:
        flow.whole(node)
        return [None]
    across, full = parts(axis)
    for name in across:
        if flow.is_const(name) or name in flow.pushed:
            flow.used(name, flow.tracks[name].axis, node.name)
    if across & full:
        flow.whole(node)
        return [None]
    for i, operand in enumerate(node.inputs):
        if operand in across:
            flow.mix(node, i, "expand")
    for name, _, lead in found:
        if name in full:
            flow.meet(master.atoms, name, axis - lead, node)
    return [Track(axis, master.atoms)]


def _prelu(flow: Flow, node: Node) -> Tracks:
    track, slope = flow.track(node.inputs[0]), node.inputs[1]
    if track is None or slope is None or len(flow.shape(slope)) != 1:
        return _elementwise(flow, node)
    if track.axis == 1 and flow.shape(slope)[0] == len(track.atoms) > 1:
        flow.assign(slope, 0, track.atoms, node)
    return [track]


def _batch_norm(flow: Flow, node: Node) -> Tracks:
    track = flow.track(node.inputs[0])
    if track is not None and track.axis == 1:
        for name in node.inputs[1:]:
            if name is not None and flow.shape(name) == (len(track.atoms),):
                flow.assign(name, 0, track.atoms, node)
    return [track]


def _trailing_norm(flow: Flow, node: Node) -> Tracks:
    track, dims = flow.track(node.inputs[0]), node.attrs["dims"]
    if track is None:
        return [None]
    local = track.axis - (len(node.out.shape) - dims)
    if local >= 0:
        flow.mix(node, 0, "kept")
        for name in node.inputs[1:]:
            if name is not None:
                flow.assign(name, local, track.atoms, node)
    return [track]


def _channel_norm(flow: Flow, node: Node) -> Tracks:
    track = flow.track(node.inputs[0])
    groups = node.attrs.get("groups", node.out.shape[1])
    if track is None:
        return [None]
    if track.axis != 1:
        flow.mix(node, 0, "expand")
        return [track]
    if groups == 1:
        flow.mix(node, 0, "kept")
    elif groups < len(track.atoms):
        # Statistics run over whole groups of channels: those live and die together.
        grid = track.atoms.reshape(groups, -1)
        flow.tie(np.repeat(grid[:, 0], grid.shape[1] - 1), grid[:, 1:].reshape(-1), node)
    for name in node.inputs[1:]:
        if name is not None:
            flow.assign(name, 0, track.atoms, node)
    return [track]


def _lrn(flow: Flow, node: Node) -> Tracks:
    track = flow.track(node.inputs[0])
    if track is not None and track.axis == 1:
        flow.mix(node, 0, "expand")
    return [track]


def _along_axis(flow: Flow, node: Node) -> Tracks:
    """Softmax and cumulative sums: another axis passes through, the channel axis is seen whole."""
    track = flow.track(node.inputs[0])
    if track is not None and track.axis == node.attrs["axis"]:
        flow.mix(node, 0, "expand")
    return [track]


ELEMENTWISE_RULES: dict[str, Rule] = {
    **dict.fromkeys(UNARY, _unary), "cast": _unary,
    **dict.fromkeys(BINARY | COMPARE | {"where"}, _elementwise),
    "prelu": _prelu, "batch_norm": _batch_norm,
    "layer_norm": _trailing_norm, "rms_norm": _trailing_norm,
    "group_norm": _channel_norm, "instance_norm": _channel_norm, "lrn": _lrn,
    "softmax": _along_axis, "log_softmax": _along_axis, "cumsum": _along_axis,
}  # fmt: skip
