"""Operators that contract, window or reduce: where channels begin and where they end."""

from __future__ import annotations

import numpy as np

from secateur.ir import REDUCE, Array, Node

from .flow import Flow, Rule, Tracks
from .inner import linear_across
from .recorded import Track
from .rules_opaque import opaque


def _weight(flow: Flow, node: Node) -> str | None:
    """The weight operand if it is a constant; otherwise the node reads all that it reads whole."""
    name = node.inputs[1]
    assert name is not None
    if flow.is_const(name):
        return name
    flow.whole(node)
    flow.blocked[node.name] = f"{node.op} {node.label} computes its weights from data"
    return None


def _columns(flow: Flow, node: Node, weight: str, axis: int, atoms: Array, groups: int = 1) -> None:
    """Input columns of a consumer. A weight that is computed cannot be masked: the input is instead."""
    if weight in flow.graph.weights:
        flow.slot(weight, axis, atoms, "in", node, groups)
        if flow.replaced(weight, node):  # the original has no such weight to mask: a recipe names the input, too
            flow.mix(node, 0, "sum")
    elif groups == 1:
        flow.assign(weight, axis, atoms, node, "in")
        flow.mix(node, 0, "sum")
    else:
        flow.whole(node, 0)


def _rows(flow: Flow, node: Node, weight: str, axis: int, count: int) -> Array | None:
    """Fresh atoms for the output channels, with the weight's rows and the bias."""
    if count == 1:
        flow.blocked[node.name] = "it has a single output channel"
        return None
    atoms = flow.fresh(count)
    flow.assign(weight, axis, atoms, node, "out")
    _bias(flow, node, atoms)
    return atoms


def _bias(flow: Flow, node: Node, atoms: Array) -> None:
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        if flow.is_const(bias) and flow.shape(bias) == (len(atoms),):
            flow.assign(bias, 0, atoms, node)
        elif flow.shape(bias) == (len(atoms),):
            flow.freeze(atoms, f"{node.op} {node.label} adds a computed bias")


def _contracted(flow: Flow, node: Node) -> Track | None:
    """What the weight contracts; channels that lie along a spatial axis are seen whole there."""
    track = flow.track(node.inputs[0])
    if track is None or track.axis <= 1:
        return track
    flow.whole(node, 0)
    return None


def _batched(flow: Flow, node: Node, track: Track) -> Tracks:
    """Channels folded into the batch: the layer treats each alike."""
    flow.blocked[node.name] = "its input carries channels along the batch"
    return [track]


def _conv(flow: Flow, node: Node) -> Tracks:
    weight = _weight(flow, node)
    if weight is None:
        return [None]
    track = _contracted(flow, node)
    count, width, groups = flow.shape(weight)[0], flow.shape(weight)[1], node.attrs["groups"]
    if track is not None and track.axis == 0:
        return _batched(flow, node, track)
    if groups > 1 and (width == 1 or count == groups):
        return _groupwise(flow, node, weight, track, 0, count // groups)
    rows = _rows(flow, node, weight, 0, count)
    if groups > 1 and rows is not None:
        flow.constrain(node, "out", rows, groups)
    if track is not None:
        _columns(flow, node, weight, 1, track.atoms, groups)
        if groups > 1:
            flow.constrain(node, "in", track.atoms, groups)
    elif groups == 1:
        flow.reads_full(node, weight, 1, 1)
    return [None if rows is None else Track(1, rows)]


def _groupwise(flow: Flow, node: Node, weight: str, track: Track | None, axis: int, fan_out: int) -> Tracks:
    """Depthwise, and groups with one channel on either side: a group is kept or goes as a whole."""
    groups = node.attrs["groups"]
    if track is None:
        flow.blocked[node.name] = "its groups read channels that nothing can remove"
        return [None]
    grid = track.atoms.reshape(groups, -1)
    flow.tie(np.repeat(grid[:, 0], grid.shape[1] - 1), grid[:, 1:].reshape(-1), node)
    atoms = np.repeat(grid[:, 0], fan_out)
    flow.assign(weight, axis, atoms if axis == 0 and node.op == "conv" else track.atoms, node)
    _bias(flow, node, atoms)
    return [Track(1, atoms)]


def _conv_transpose(flow: Flow, node: Node) -> Tracks:
    weight = _weight(flow, node)
    if weight is None:
        return [None]
    track = _contracted(flow, node)
    (width, fan_out), groups = flow.shape(weight)[:2], node.attrs["groups"]
    if track is not None and track.axis == 0:
        return _batched(flow, node, track)
    if groups > 1:
        if width == groups or fan_out == 1:
            return _groupwise(flow, node, weight, track, 0, fan_out)
        return _transposed_groups(flow, node, weight, track, fan_out)
    rows = _rows(flow, node, weight, 1, fan_out)
    if track is not None:
        _columns(flow, node, weight, 0, track.atoms)
    else:
        flow.reads_full(node, weight, 0, 1)
    return [None if rows is None else Track(1, rows)]


def _transposed_groups(flow: Flow, node: Node, weight: str, track: Track | None, fan_out: int) -> Tracks:
    """Groups of several channels: each has rows of its own on axis 0 and columns of its own on axis 1."""
    groups = node.attrs["groups"]
    if weight not in flow.graph.weights or flow.replaced(weight, node):
        flow.whole(node, 0)
        flow.blocked[node.name] = "a transposed convolution with groups whose weight is computed"
        return [None]
    rows = flow.fresh(fan_out * groups)
    flow.slot(weight, 1, rows, "out", node, groups)
    flow.constrain(node, "out", rows, groups)
    _bias(flow, node, rows)
    if track is not None:
        flow.slot(weight, 0, track.atoms, "in", node)
        flow.constrain(node, "in", track.atoms, groups)
    return [Track(1, rows)]


def _linear(flow: Flow, node: Node) -> Tracks:
    weight, track = _weight(flow, node), flow.track(node.inputs[0])
    if weight is None:
        return [None]
    last = len(node.out.shape) - 1
    row_axis = 1 if node.attrs["transposed"] else 0
    if track is not None and track.axis != last:
        return linear_across(flow, node, track, _linear_rows)
    behind = flow.seconds.get(str(node.inputs[0]))
    made: Tracks
    if behind is not None:  # the layer after hidden units along another axis: its outputs have the channels again
        made = linear_across(flow, node, behind, _linear_rows)
    else:
        made = _linear_rows(flow, node)
    if track is not None:
        _columns(flow, node, weight, 1 - row_axis, track.atoms)
    else:
        flow.reads_full(node, weight, 1 - row_axis, last)
    return made


def _linear_rows(flow: Flow, node: Node) -> Tracks:
    last = len(node.out.shape) - 1
    rows = _rows(flow, node, str(node.inputs[1]), 1 if node.attrs["transposed"] else 0, node.out.shape[last])
    return [None if rows is None else Track(last, rows)]


def _letters(node: Node, ranks: list[int]) -> tuple[list[str], str]:
    if node.op == "einsum":
        terms, out = node.attrs["equation"].split("->")
        return terms.split(","), out
    batch = "abcdefgh"[: max(ranks) - 2] if max(ranks) > 2 else ""
    left = "k" if ranks[0] == 1 else batch[len(batch) - (ranks[0] - 2) :] + "mk"
    right = "k" if ranks[1] == 1 else batch[len(batch) - (ranks[1] - 2) :] + "kn"
    return [left, right], batch + ("m" if ranks[0] > 1 else "") + ("n" if ranks[1] > 1 else "")


def _contraction(flow: Flow, node: Node) -> Tracks:
    """matmul and einsum of activations: each letter is an axis; shared letters tie their channels.

    A matrix of channels by channels, as linear attention makes it, carries those of the longer axis; the other operand
    is read at full width, and whatever contracts that axis picks.
    """
    names = [i for i in node.inputs if i is not None]
    terms, out = _letters(node, [len(flow.shape(n)) for n in names])
    tracks = [flow.track(n) for n in names]
    labelled: dict[str, Track] = {}
    for term, track in zip(terms, tracks, strict=True):
        if track is not None:
            if term.count(term[track.axis]) > 1:
                flow.whole(node)  # a diagonal of it
                return [None]
            best = labelled.get(term[track.axis])
            if best is None or len(best.atoms) < len(track.atoms):
                labelled[term[track.axis]] = track
    left = sorted((c for c in labelled if c in out), key=lambda c: -len(labelled[c].atoms))
    for letter, master in labelled.items():
        if letter in left[1:]:
            along = (t is not None and term[t.axis] == letter for term, t in zip(terms, tracks, strict=True))
            flow.whole(node, *(i for i, mine in enumerate(along) if mine))
        else:
            _tie_letter(flow, node, letter, master, names, terms, out)
    for index, (term, track) in enumerate(zip(terms, tracks, strict=True)):
        if track is not None and term[track.axis] not in out:
            flow.mix(node, index, "sum")
    if not left:
        labelled = _made(flow, node, names, terms, out)
        left = list(labelled)
    if not left:
        return [None]
    track = Track(out.index(left[0]), labelled[left[0]].atoms)
    return [track if len(track.atoms) == node.out.shape[track.axis] else None]


def _made(flow: Flow, node: Node, names: list[str], terms: list[str], out: str) -> dict[str, Track]:
    """The longest axis of the result that a constant operand alone has: its channels are rows of that weight."""
    found = {
        letter: (name, axis)
        for name, term in zip(names, terms, strict=True)
        if flow.is_const(name)
        for axis, letter in enumerate(term)
        if letter in out and sum(letter in other for other in terms) == 1 and term.count(letter) == 1
    }
    sizes = {letter: flow.shape(name)[axis] for letter, (name, axis) in found.items()}
    letter = max(sizes, key=lambda k: sizes[k], default="")
    if sizes.get(letter, 1) == 1 or len(found) == len(set(out)):
        return {}
    name, axis = found[letter]
    rows = flow.fresh(sizes[letter])
    flow.assign(name, axis, rows, node, "out")
    return {letter: Track(axis, rows)}


def _tie_letter(
    flow: Flow, node: Node, letter: str, master: Track, names: list[str], terms: list[str], out: str
) -> None:
    """Tie what lies along an axis, or pick it from a full operand."""
    kept = letter in out  # the result has that axis, too
    for name, term in zip(names, terms, strict=True):
        if letter not in term:
            continue
        axis, track = term.index(letter), flow.track(name)
        if flow.shape(name)[axis] != len(master.atoms):
            if track is not None and track.axis == axis:
                flow.freeze(track.atoms, f"{node.op} {node.label} repeats it")
        elif (
            track is not None
            and track.axis != axis
            and not kept
            and not flow.is_const(name)
            and term[track.axis] in out
        ):
            flow.pick(node, name, axis, master.atoms)
        else:
            flow.meet(master.atoms, name, axis, node)


def _pool(flow: Flow, node: Node) -> Tracks:
    track = flow.track(node.inputs[0])
    size = node.attrs.get("kernel") or node.attrs["size"]
    if track is None or track.axis < len(node.out.shape) - len(size):
        return [track]
    flow.mix(node, 0, "expand")
    return [track if node.out.shape[track.axis] == len(track.atoms) else None]


def _resize(flow: Flow, node: Node) -> Tracks:
    track = flow.track(node.inputs[0])
    size = node.attrs["size"] or node.attrs["scales"]
    if track is None or track.axis < len(node.out.shape) - len(size):
        return [track]
    flow.whole(node, 0)
    return [None]


GATES = {"lstm": 4, "gru": 3, "rnn": 1}
_REDUCTION_MODE = {"reduce_sum": "sum", "reduce_l1": "sum", "reduce_l2": "sum", "reduce_mean": "mean"}


def _reduce(flow: Flow, node: Node) -> Tracks:
    track = flow.track(node.inputs[0])
    if track is None:
        return [None]
    axes = node.attrs["axes"] if "axes" in node.attrs else (node.attrs["axis"],)
    if track.axis in axes:
        flow.mix(node, 0, _REDUCTION_MODE.get(node.op, "expand"))
        return [None]
    if node.attrs["keepdims"]:
        return [track]
    return [track.moved(track.axis - sum(a < track.axis for a in axes))]


def _recurrent(flow: Flow, node: Node) -> Tracks:
    """Hidden units, each with its rows of every gate in both directions; input features are columns of weights."""
    weight, recurrent, *rest = node.inputs[1:]
    assert weight is not None and recurrent is not None
    bias = rest[0] if rest else None
    _features(flow, node, weight)
    size, gates = node.attrs["hidden"], GATES[node.op]
    if size == 1 or not all(flow.is_const(i) for i in (weight, recurrent, bias) if i is not None):
        flow.whole(node, *range(4, len(node.inputs)))
        flow.blocked[node.name] = "it has a single hidden unit" if size == 1 else "it computes its weights from data"
        return [None] * len(node.outputs)
    units = flow.fresh(size)
    flow.assign(weight, 1, np.tile(units, gates), node, "out")
    flow.assign(recurrent, 1, np.tile(units, gates), node)
    flow.assign(recurrent, 2, units, node, "in")
    if bias is not None:
        flow.assign(bias, 1, np.tile(units, 2 * gates), node)
    for state in rest[1:]:
        if state is not None:
            flow.meet(units, state, 2, node)
    tracks: Tracks = [Track(3, units), Track(2, units), Track(2, units)]
    return tracks[: len(node.outputs)]


def _features(flow: Flow, node: Node, weight: str) -> None:
    """What a recurrent layer reads: a linear layer's columns, or all of it where channels lie along another axis."""
    track = flow.track(node.inputs[0])
    if track is not None and track.axis == 2 and flow.is_const(weight):
        flow.assign(weight, 2, track.atoms, node, "in")
        flow.mix(node, 0, "sum")
    elif track is not None:
        flow.whole(node, 0)


COMPUTE: dict[str, Rule] = {
    "conv": _conv, "conv_transpose": _conv_transpose, "linear": _linear,
    "matmul": _contraction, "einsum": _contraction,
    "max_pool": _pool, "avg_pool": _pool, "adaptive_avg_pool": _pool, "adaptive_max_pool": _pool,
    "resize": _resize, **dict.fromkeys(REDUCE | {"argmax", "argmin"}, _reduce),
    "lstm": _recurrent, "gru": _recurrent, "rnn": _recurrent,
    "opaque": opaque,
}  # fmt: skip
