"""How operators that mention widths are adjusted when channels go.

``ADJUST[op](widths, node)`` gives the nodes that stand in the node's place. Survivors always form a
dense tensor (``flow.py`` ties what would not), so most operators need a new number at most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from secateur.ir import END, Array, Graph, Node, PassError, Sym
from secateur.ir.graph import numpy_dtype
from secateur.ir.infer_movement import reshaped, slice_range
from secateur.ir.opaque import onnx_attributes, with_onnx_attributes
from secateur.ir.quantised import quantised_layer
from secateur.ir.symbolic import in_proportion
from secateur.passes.notes import Channels, Coupling, Survivors


@dataclass(frozen=True, eq=False)
class Widths:
    """What survives, by value; new constants are added to ``weights``."""

    graph: Graph
    coupling: Coupling
    survive: Survivors
    weights: dict[str, Array]

    def live_units(self, units: Array) -> Array:
        return self.survive(units)

    def track(self, name: str | None) -> Channels | None:
        return None if name is None else self.coupling.channels.get(name)

    def live(self, name: str | None) -> Array | None:
        """bool per position of the value's channel axis, or None if it loses nothing."""
        track = self.track(name)
        if track is None:
            return None
        live = self.live_units(track.units)
        return None if live.all() else live

    def shape(self, name: str) -> tuple[int, ...]:
        """The slim shape of a value or weight."""
        if name in self.weights:
            return self.weights[name].shape
        shape = list(self.graph.values[name].shape)
        for track in (self.track(name), self.coupling.seconds.get(name)):
            live = None if track is None else self.live_units(track.units)
            if track is not None and live is not None and not live.all():
                shape[track.axis] = int(live.sum())
        return tuple(shape)

    def constant(self, name: str, array: Array, dtype: str) -> str:
        """A new weight that is not a parameter, which its name says."""
        name = f"const.{name}"
        while name in self.weights or name in self.graph.values:
            name += "_"
        self.weights[name] = np.asarray(array).astype(numpy_dtype(dtype))
        return name


Adjust = Callable[[Widths, Node], list[Node]]


def _conv(widths: Widths, node: Node) -> list[Node]:
    """Depthwise and similar lose whole groups; others keep their number of groups."""
    if node.attrs["groups"] == 1:
        return [node]
    x, w = node.inputs[0], node.inputs[1]
    assert x is not None and w is not None
    rows, fan_out = widths.graph.value(w).shape[:2]
    if node.op == "conv_transpose" and rows > node.attrs["groups"] and fan_out > 1:
        return [node]
    groups = widths.shape(x)[1] // _per_group(widths, node, w)
    return [node if groups == node.attrs["groups"] else node.with_attrs(groups=groups)]


def _per_group(widths: Widths, node: Node, weight: str) -> int:
    if node.op == "conv":
        return widths.shape(weight)[1]
    return widths.graph.value(weight).shape[0] // int(node.attrs["groups"])


def _group_norm(widths: Widths, node: Node) -> list[Node]:
    x, groups = node.inputs[0], node.attrs["groups"]
    live, track = widths.live(x), widths.track(x)
    if live is None or track is None or track.axis != 1 or groups == 1:
        return [node]
    return [node.with_attrs(groups=int(live.reshape(groups, -1)[:, 0].sum()))]


def _reshape(widths: Widths, node: Node) -> list[Node]:
    x = node.inputs[0]
    assert x is not None
    old, new = widths.shape(x), widths.shape(node.name)
    if new == node.out.shape and old == widths.graph.value(x).shape:
        return [node]
    target = list(node.attrs["shape"])
    for i, (want, was) in enumerate(zip(new, node.out.shape, strict=True)):
        if target[i] == 0 and (i >= len(old) or old[i] != want):
            target[i] = want
        elif target[i] > 0 and want != was:
            target[i] = in_proportion(target[i], want)
    try:
        fits = reshaped(old, target) == new
    except ValueError:
        fits = False
    if not fits:
        target = [in_proportion(d, n) if isinstance(d, Sym) else n for d, n in zip(target, new, strict=True)]
    return [node.with_attrs(shape=tuple(target))]


def _expand(widths: Widths, node: Node) -> list[Node]:
    new, target = widths.shape(node.name), list(node.attrs["shape"])
    for i, (want, was) in enumerate(zip(new, node.out.shape, strict=True)):
        if want != was and target[i] not in (-1, 1):
            target[i] = in_proportion(target[i], want)
    return [node.with_attrs(shape=tuple(target))]


def _split(widths: Widths, node: Node) -> list[Node]:
    axis = node.attrs["axis"]
    sizes = tuple(widths.shape(v.name)[axis] for v in node.outputs)
    if 0 in sizes:
        empty = node.outputs[sizes.index(0)].name
        raise PassError(f"slim: split {node.source} would leave nothing of %{empty}; keep at least one of its channels")
    return [node if sizes == node.attrs["sizes"] else node.with_attrs(sizes=sizes)]


def _slice(widths: Widths, node: Node) -> list[Node]:
    x, a = node.inputs[0], node.attrs
    live, track = widths.live(x), widths.track(x)
    if live is None or track is None or track.axis not in a["axes"]:
        return [node]
    k = a["axes"].index(track.axis)
    taken = np.asarray(slice_range(len(live), a["starts"][k], a["ends"][k], a["steps"][k]))
    place = (np.cumsum(live) - 1)[taken[live[taken]]]
    if not len(place):
        raise PassError(f"slim: slice {node.source} would be left with no channel; keep at least one of those it takes")
    steps = np.unique(np.diff(place))
    if len(steps) > 1 or (len(steps) == 1 and steps[0] < 0):
        return _pick(widths, node, x, track.axis, place, drop=k)
    step = int(steps[0]) if len(steps) else 1
    start, end = int(place[0]), int(place[-1]) + 1
    if end == live.sum() and a["ends"][k] >= END:
        end = END
    return [
        node.with_attrs(
            starts=_put(a["starts"], k, start), ends=_put(a["ends"], k, end), steps=_put(a["steps"], k, step)
        )
    ]


def _put(values: tuple[int, ...], k: int, value: int) -> tuple[int, ...]:
    return (*values[:k], value, *values[k + 1 :])


def _pick(widths: Widths, node: Node, x: str | None, axis: int, place: Array, drop: int) -> list[Node]:
    """Survivors follow no regular step: slice the other axes, then gather the channels."""
    index = widths.constant(f"{node.name}.index", place, "i64")
    rest = [i for i in range(len(node.attrs["axes"])) if i != drop]
    gather = Node("gather", (x, index), node.outputs, {"axis": axis}, node.source)
    if not rest:
        return [gather]
    inner = replace(node.out, name=f"{node.name}.sliced")
    attrs = {key: tuple(node.attrs[key][i] for i in rest) for key in ("axes", "starts", "ends", "steps")}
    return [
        Node("slice", (x,), (inner,), attrs, node.source),
        replace(gather, inputs=(inner.name, index)),
    ]


def _gather(widths: Widths, node: Node) -> list[Node]:
    x, axis = node.inputs[0], node.attrs["axis"]
    live, track = widths.live(x), widths.track(x)
    if live is None or track is None or track.axis != axis:
        return [node]
    index = widths.graph.weights[node.inputs[1] or ""]
    wanted = index % len(live)
    new = (np.cumsum(live) - 1)[wanted]
    out, out_live = widths.track(node.name), widths.live(node.name)
    if out is not None and out_live is not None:
        new = np.compress(out_live, new, axis=out.axis - axis)
    name = widths.constant(f"{node.name}.index", new, "i64")
    return [replace(node, inputs=(x, name))]


def _roll(widths: Widths, node: Node) -> list[Node]:
    x = node.inputs[0]
    live, track = widths.live(x), widths.track(x)
    if live is None or track is None or track.axis not in node.attrs["axes"]:
        return [node]
    position = np.arange(len(live))
    rest = [(s, a) for s, a in zip(node.attrs["shifts"], node.attrs["axes"], strict=True) if a != track.axis]
    for shift, axis in zip(node.attrs["shifts"], node.attrs["axes"], strict=True):
        if axis == track.axis:
            position = np.roll(position, shift)
    place = (np.cumsum(live) - 1)[position[live[position]]]
    index = widths.constant(f"{node.name}.index", place, "i64")
    gather = Node("gather", (x, index), node.outputs, {"axis": track.axis}, node.source)
    if not rest:
        return [gather]
    inner = replace(node.out, name=f"{node.name}.rolled")
    attrs = {"shifts": tuple(s for s, _ in rest), "axes": tuple(a for _, a in rest)}
    return [Node("roll", (x,), (inner,), attrs, node.source), replace(gather, inputs=(inner.name, index))]


def _pad(widths: Widths, node: Node) -> list[Node]:
    """What is cropped from the channels counts the survivors among them, and so does what is added to them."""
    live, track, after = widths.live(node.inputs[0]), widths.track(node.inputs[0]), widths.live(node.name)
    if track is None or (live is None and after is None):
        return [node]
    pads, rank = list(node.attrs["pads"]), len(node.out.shape)
    begin, end = pads[track.axis], pads[rank + track.axis]
    for at, pad, cropped, added in (
        (track.axis, begin, slice(0, -begin), slice(0, begin)),
        (rank + track.axis, end, slice(end, None), slice(-end, None)),
    ):
        side, part, sign = (live, cropped, -1) if pad < 0 else (after, added, 1)
        if pad and side is not None:
            pads[at] = sign * int(side[part].sum())
    return [node if tuple(pads) == tuple(node.attrs["pads"]) else node.with_attrs(pads=tuple(pads))]


def _recurrent(widths: Widths, node: Node) -> list[Node]:
    return [node.with_attrs(hidden=widths.shape(str(node.inputs[2]))[2])]


def _opaque(widths: Widths, node: Node) -> list[Node]:
    """A node of the file says nothing of widths, but for quantised layers; its results are as narrow as channels."""
    outputs = tuple(replace(v, shape=widths.shape(v.name)) for v in node.outputs)
    return [replace(_restated(widths, node), outputs=outputs)]


def _restated(widths: Widths, node: Node) -> Node:
    """Groups and hidden units as a quantised layer states them."""
    layer, attrs = quantised_layer(node), onnx_attributes(node)
    if layer is None:
        return node
    weight = str(node.inputs[layer.weight])
    if layer.kind == "lstm" and widths.shape(weight) != widths.graph.value(weight).shape:
        return with_onnx_attributes(node, hidden_size=widths.shape(weight)[2] // 4)
    if layer.kind == "conv" and int(attrs.get("group", 1)) > 1:
        groups = widths.shape(str(node.inputs[layer.x]))[1] // widths.shape(weight)[1]
        return node if groups == attrs["group"] else with_onnx_attributes(node, group=groups)
    return node


ADJUST: dict[str, Adjust] = {
    "lstm": _recurrent, "gru": _recurrent, "rnn": _recurrent, "opaque": _opaque,
    "conv": _conv, "conv_transpose": _conv, "group_norm": _group_norm, "reshape": _reshape,
    "expand": _expand, "split": _split, "slice": _slice, "gather": _gather, "roll": _roll, "pad": _pad,
}  # fmt: skip
