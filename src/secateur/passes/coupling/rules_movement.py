"""How data movement carries atoms: it does to them what it does to the data."""

from __future__ import annotations

import numpy as np

from secateur.ir import Array, Node
from secateur.ir.infer_movement import slice_range

from .flow import Flow, Rule, Tracks
from .recorded import Track


def blocks(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[range, range]]:
    """Match a reshape's axes: the shortest runs of old and new axes with equal products."""
    out, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        a, b = i, j
        p = old[i] if i < len(old) else 1
        q = new[j] if j < len(new) else 1
        i, j = min(i + 1, len(old)), min(j + 1, len(new))
        while p != q:
            if p < q:
                p *= old[i]
                i += 1
            else:
                q *= new[j]
                j += 1
        out.append((range(a, i), range(b, j)))
    return out


def reshape_track(flow: Flow, node: Node, track: Track, old: tuple[int, ...], new: tuple[int, ...]) -> Track | None:
    """Carry a track through a reshape, touching only the axes that the channels' run is made of."""
    for before, after in blocks(old, new):
        if track.axis not in before:
            continue
        view = [1] * len(before)
        view[track.axis - before.start] = -1
        sizes = [old[k] for k in before]
        wide = [k for k in after if new[k] != 1]
        if len(wide) == 1 and all(s == 1 for k, s in zip(before, sizes, strict=True) if k != track.axis):
            return Track(wide[0], track.atoms)
        full = np.broadcast_to(track.atoms.reshape(view), sizes)
        spread = full.reshape([new[k] for k in after]) if len(after) else full.reshape(1)
        return flow.single_axis(spread, node, after.start) if len(after) else None
    return None


def _reshape(flow: Flow, node: Node) -> Tracks:
    track = flow.track(node.inputs[0])
    if track is None:
        return [None]
    return [reshape_track(flow, node, track, flow.shape(node.inputs[0]), node.out.shape)]


def _transpose(flow: Flow, node: Node) -> Tracks:
    track = flow.track(node.inputs[0])
    return [None if track is None else track.moved(node.attrs["perm"].index(track.axis))]


def _squeeze(flow: Flow, node: Node) -> Tracks:
    track = flow.track(node.inputs[0])
    if track is None:
        return [None]
    axes = node.attrs["axes"]
    if track.axis in axes:
        flow.whole(node, 0)
        return [None]
    return [track.moved(track.axis - sum(a < track.axis for a in axes))]


def _unsqueeze(flow: Flow, node: Node) -> Tracks:
    track = flow.track(node.inputs[0])
    if track is None:
        return [None]
    axis = track.axis
    for a in sorted(node.attrs["axes"]):
        axis += a <= axis
    return [track.moved(axis)]


def _expand(flow: Flow, node: Node) -> Tracks:
    track = flow.track(node.inputs[0])
    if track is None:
        return [None]
    axis = track.axis + len(node.out.shape) - len(flow.shape(node.inputs[0]))
    if len(track.atoms) != node.out.shape[axis]:
        flow.whole(node, 0)
        return [None]
    return [track.moved(axis)]


def _along(node: Node, track: Track, atoms: Array) -> Track | None:
    return Track(track.axis, atoms) if atoms.any() else None


def _tile(flow: Flow, node: Node) -> Tracks:
    track = flow.track(node.inputs[0])
    return [None if track is None else _along(node, track, np.tile(track.atoms, node.attrs["repeats"][track.axis]))]


def _pad(flow: Flow, node: Node) -> Tracks:
    track = flow.track(node.inputs[0])
    if track is None:
        return [None]
    pads, rank = node.attrs["pads"], len(node.out.shape)
    begin, end = pads[track.axis], pads[rank + track.axis]
    if not begin and not end:
        return [track]
    if node.attrs["mode"] != "constant":
        flow.whole(node, 0)
        return [None]
    atoms = track.atoms[max(0, -begin) : len(track.atoms) - max(0, -end)]
    if not atoms.any():
        return [None]
    # Padded channels may go with those that they are added to.
    added = flow.fresh(max(0, begin)), flow.fresh(max(0, end))
    flow.padding += added
    return [Track(track.axis, np.concatenate([added[0], atoms, added[1]]))]


def _roll(flow: Flow, node: Node) -> Tracks:
    track = flow.track(node.inputs[0])
    if track is None:
        return [None]
    atoms = track.atoms
    for shift, axis in zip(node.attrs["shifts"], node.attrs["axes"], strict=True):
        if axis == track.axis:
            atoms = np.roll(atoms, shift)
    return [Track(track.axis, atoms)]


def _flip(flow: Flow, node: Node) -> Tracks:
    track = flow.track(node.inputs[0])
    if track is None or track.axis not in node.attrs["axes"]:
        return [track]
    return [Track(track.axis, track.atoms[::-1])]


def _split(flow: Flow, node: Node) -> Tracks:
    track, axis = flow.track(node.inputs[0]), node.attrs["axis"]
    if track is None or track.axis != axis:
        return [track] * len(node.outputs)
    ends = np.cumsum(node.attrs["sizes"])[:-1]
    return [_along(node, track, part) for part in np.split(track.atoms, ends)]


def _slice(flow: Flow, node: Node) -> Tracks:
    track, a = flow.track(node.inputs[0]), node.attrs
    if track is None:
        return [None]
    atoms = track.atoms
    for axis, start, end, step in zip(a["axes"], a["starts"], a["ends"], a["steps"], strict=True):
        if axis == track.axis:
            atoms = atoms[np.asarray(slice_range(len(atoms), start, end, step), np.int64)]
    return [_along(node, track, atoms)]


def _gather(flow: Flow, node: Node) -> Tracks:
    track, axis = flow.track(node.inputs[0]), node.attrs["axis"]
    if track is None:
        return [None]
    rank = len(flow.shape(node.inputs[1]))
    if track.axis != axis:
        return [track.moved(track.axis + rank - 1 if track.axis > axis else track.axis)]
    index = flow.graph.weights.get(node.inputs[1] or "")
    if index is None or rank == 0:
        flow.whole(node, 0)
        return [None]
    return [flow.single_axis(track.atoms[index], node, axis)]


def _concat(flow: Flow, node: Node) -> Tracks:
    axis = node.attrs["axis"]
    found = [flow.track(i) for i in node.inputs]
    axes = {t.axis for t in found if t is not None}
    if not axes:
        return [None]
    if axes == {axis}:
        parts = [
            np.zeros(flow.shape(i)[axis], np.int64) if t is None else t.atoms
            for i, t in zip(node.inputs, found, strict=True)
        ]
        return [Track(axis, np.concatenate(parts))]
    if axis in axes or len(axes) > 1:
        flow.whole(node)
        return [None]
    (across,) = axes
    first = next(t for t in found if t is not None)
    for name in node.inputs:
        assert name is not None
        flow.meet(first.atoms, name, across, node)
    return [first]


def _depth_to_space(flow: Flow, node: Node) -> Tracks:
    track, r = flow.track(node.inputs[0]), node.attrs["block"]
    if track is None:
        return [None]
    if track.axis != 1:
        flow.whole(node, 0)
        return [None]
    if node.attrs["mode"] == "CRD":
        grid = track.atoms.reshape(-1, r * r)
    else:
        grid = track.atoms.reshape(r * r, -1).T
    first = np.ascontiguousarray(grid[:, 0])
    flow.tie(np.repeat(first, r * r - 1), grid[:, 1:].reshape(-1), node)
    return [Track(1, first)]


def _space_to_depth(flow: Flow, node: Node) -> Tracks:
    track, r = flow.track(node.inputs[0]), node.attrs["block"]
    if track is None:
        return [None]
    if track.axis != 1:
        flow.whole(node, 0)
        return [None]
    atoms = np.repeat(track.atoms, r * r) if node.attrs["mode"] == "CRD" else np.tile(track.atoms, r * r)
    return [Track(1, atoms)]


MOVEMENT: dict[str, Rule] = {
    "reshape": _reshape, "flatten": _reshape, "transpose": _transpose, "squeeze": _squeeze,
    "unsqueeze": _unsqueeze, "expand": _expand, "tile": _tile, "concat": _concat, "split": _split,
    "slice": _slice, "gather": _gather, "pad": _pad, "roll": _roll, "flip": _flip,
    "depth_to_space": _depth_to_space, "space_to_depth": _space_to_depth,
}  # fmt: skip
