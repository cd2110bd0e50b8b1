"""Recurrent calls that stay what they are (LSTMs with projections): hidden units and projected outputs are cut there.

All layers and directions stand in one call whose states are stacked, so they have the same units and the same outputs.
The law masks operands of the call: columns that a unit or an output that is gone is read through.
"""

from __future__ import annotations

import numpy as np

from secateur.ir import Array, Node
from secateur.ir.torch_recurrent import Cell, RecurrentCall, recurrent_call

from .flow import Flow, Tracks
from .recorded import RawMixing, Track


def recurrent(flow: Flow, node: Node) -> Tracks | None:
    """The tracks of the call's outputs, None where it is no such call or its weights are computed."""
    call = recurrent_call(node)
    if call is None or not all(str(node.inputs[i]) in flow.graph.weights for c in call.cells for i in _operands(c)):
        return None
    first = call.cells[0]
    hidden = flow.shape(node.inputs[first.weight])[0] // call.gates
    units = flow.fresh(hidden) if hidden > 1 else np.zeros(hidden, np.int64)
    outputs = units
    if first.down is not None:
        count = flow.shape(node.inputs[first.down])[0]
        outputs = flow.fresh(count) if count > 1 else np.zeros(count, np.int64)
    features = _features(flow, node, call)
    for at, cell in enumerate(call.cells):
        _cell(flow, node, call, cell, units, outputs)
        if at < call.ways:
            if features is not None:
                _column(flow, node, cell.weight, features)
        else:
            _column(flow, node, cell.weight, np.tile(outputs, call.ways))
    for place, atoms in zip(call.states, (outputs, units), strict=False):
        if atoms.any():
            flow.meet(atoms, str(node.inputs[place]), 2, node)
    tracks: Tracks = [Track(2, np.tile(outputs, call.ways)), Track(2, outputs), Track(2, units)]
    return [t if t is not None and t.atoms.any() else None for t in tracks[: len(node.outputs)]]


def _operands(cell: Cell) -> list[int]:
    return [cell.weight, cell.recurrent, *cell.biases, *([] if cell.down is None else [cell.down])]


def _features(flow: Flow, node: Node, call: RecurrentCall) -> Array | None:
    """The channels of what the first layer reads; those along another axis are seen at full width."""
    track = flow.track(node.inputs[call.x])
    if track is None:
        return None
    if track.axis != 2:
        flow.whole(node, call.x)
        return None
    return track.atoms


def _cell(flow: Flow, node: Node, call: RecurrentCall, cell: Cell, units: Array, outputs: Array) -> None:
    """The rows of every gate, and the columns through which the step before is read."""
    gates = np.tile(units, call.gates)
    for place, role in ((cell.weight, "out"), (cell.recurrent, "tied"), *((b, "tied") for b in cell.biases)):
        if units.any():
            flow.slot(str(node.inputs[place]), 0, gates, role, node)
    _column(flow, node, cell.recurrent, outputs)
    if cell.down is not None:
        if outputs.any():
            flow.slot(str(node.inputs[cell.down]), 0, outputs, "out", node)
        _column(flow, node, cell.down, units)


def _column(flow: Flow, node: Node, place: int, atoms: Array) -> None:
    if atoms.any():
        flow.slot(str(node.inputs[place]), 1, atoms, "in", node)
        flow.mixing.append(RawMixing(node, place, 1, atoms, "sum"))
