"""Constants meet channels: give the weights of a constant operand the atoms it is used with.

A layer scale stored as ``[C]`` and viewed as ``[C, 1, 1]``, a position bias gathered from a table, a
batch norm spelled out in arithmetic: the atoms come from the activation and are pushed back through
the chain of movement and element-wise operators to the stored weights.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from secateur.ir import ELEMENTWISE, Array, Node

from .flow import SUMS, Flow
from .recorded import Track
from .rules_movement import blocks
from .rules_opaque import backwards

Back = Callable[[Flow, Node, int, Array], "list[tuple[str, int, Array]] | None"]


def push_back(flow: Flow, name: str, axis: int, atoms: Array, node: Node, role: str) -> None:
    """Tie ``name`` along ``axis`` to ``atoms``; freeze them where the chain cannot be followed."""
    work = [(name, axis, atoms, node)]
    while work:
        name, axis, atoms, user = work.pop()
        if name in flow.graph.weights:
            flow.slot(name, axis, atoms, role, node, user=user.name)
            continue
        flow.used(name, axis, user.name)
        known, maker = flow.track(name), flow.graph.producer[name]
        other = flow.seconds.get(name)
        same = next((t for t in (known, other) if t is not None and t.axis == axis), None)
        if same is not None:
            flow.tie(same.atoms, atoms, node)
            continue
        if known is not None and (other is not None or not (maker.op in ELEMENTWISE or maker.op in _TWO_AXES)):
            flow.freeze(known.atoms, f"constant %{name} is used with channels along two axes")
            flow.freeze(atoms, f"constant %{name} is used with channels along two axes")
            continue
        (flow.tracks if known is None else flow.seconds)[name] = Track(axis, atoms)
        if known is None:
            flow.pushed.add(name)
        if maker.op == "split" and axis == maker.attrs["axis"] and maker.inputs[0] in flow.graph.weights:
            flow.part(str(maker.inputs[0]), axis, _padded(maker, name, atoms), node, role, maker.name)
            continue
        rule = _BACK.get(maker.op) or (_elementwise if maker.op in ELEMENTWISE else None)
        steps = rule(flow, maker, axis, atoms) if rule else None
        if steps is None:
            flow.freeze(atoms, f"{maker.op} {maker.label} computes a constant of fixed width")
        else:
            work.extend((*step, maker) for step in steps)


def _elementwise(flow: Flow, node: Node, axis: int, atoms: Array) -> list[tuple[str, int, Array]]:
    out = []
    rank = len(node.out.shape)
    for name in node.inputs:
        if name is None:
            continue
        shape = flow.shape(name)
        local = axis - (rank - len(shape))
        if local >= 0 and shape[local] == len(atoms) and len(atoms) > 1:
            out.append((name, local, atoms))
    return out


def _reshape(flow: Flow, node: Node, axis: int, atoms: Array) -> list[tuple[str, int, Array]] | None:
    name = node.inputs[0]
    assert name is not None
    old, new = flow.shape(name), node.out.shape
    for before, after in blocks(new, old):  # backwards: from the result to the operand
        if axis in before and len(after):
            view = [1] * len(before)
            view[axis - before.start] = -1
            full = np.broadcast_to(atoms.reshape(view), [new[k] for k in before])
            track = flow.single_axis(full.reshape([old[k] for k in after]), node, after.start)
            return [] if track is None else [(name, track.axis, track.atoms)]
    return None


def _transpose(flow: Flow, node: Node, axis: int, atoms: Array) -> list[tuple[str, int, Array]]:
    return [(str(node.inputs[0]), node.attrs["perm"][axis], atoms)]


def _squeeze(flow: Flow, node: Node, axis: int, atoms: Array) -> list[tuple[str, int, Array]]:
    rank = len(flow.shape(node.inputs[0]))
    kept = [k for k in range(rank) if k not in node.attrs["axes"]]
    return [(str(node.inputs[0]), kept[axis], atoms)]


def _unsqueeze(flow: Flow, node: Node, axis: int, atoms: Array) -> list[tuple[str, int, Array]]:
    if axis in node.attrs["axes"]:
        return []
    return [(str(node.inputs[0]), axis - sum(a < axis for a in node.attrs["axes"]), atoms)]


def _expand(flow: Flow, node: Node, axis: int, atoms: Array) -> list[tuple[str, int, Array]] | None:
    shape = flow.shape(node.inputs[0])
    local = axis - (len(node.out.shape) - len(shape))
    if local < 0 or shape[local] == 1:  # repeated: it is only made narrower
        return []
    return [(str(node.inputs[0]), local, atoms)] if shape[local] == len(atoms) else None


def _gather(flow: Flow, node: Node, axis: int, atoms: Array) -> list[tuple[str, int, Array]] | None:
    at, rank = node.attrs["axis"], len(flow.shape(node.inputs[1]))
    if at <= axis < at + rank:
        return None
    return [(str(node.inputs[0]), axis if axis < at else axis - rank + 1, atoms)]


def _passing(flow: Flow, node: Node, axis: int, atoms: Array) -> list[tuple[str, int, Array]] | None:
    """Movement along other axes only."""
    if flow.shape(node.inputs[0])[axis] != len(atoms):
        return None
    if node.op in ("roll", "flip") and axis in node.attrs["axes"]:
        return None
    return [(str(node.inputs[0]), axis, atoms)]


def _concat(flow: Flow, node: Node, axis: int, atoms: Array) -> list[tuple[str, int, Array]]:
    out, start = [], 0
    for name in node.inputs:
        assert name is not None
        size = flow.shape(name)[axis]
        part = atoms[start : start + size] if axis == node.attrs["axis"] else atoms
        out.append((name, axis, part))
        start += size
    return out


def _summed(flow: Flow, node: Node, axis: int, atoms: Array) -> list[tuple[str, int, Array]]:
    """An axis that a sum leaves alone. Those that it takes are settled when it is known what lies along them."""
    axes = sorted(a % len(flow.shape(node.inputs[0])) for a in node.attrs["axes"])
    if not node.attrs["keepdims"]:
        for a in axes:
            axis += a <= axis
    return [] if axis in axes else [(str(node.inputs[0]), axis, atoms)]


def _padded(node: Node, name: str, atoms: Array) -> Array:
    """The atoms of one part of a split, with zeros where the others lie."""
    index = [v.name for v in node.outputs].index(name)
    sizes = node.attrs["sizes"]
    return np.pad(atoms, (sum(sizes[:index]), sum(sizes[index + 1 :])))


def _matmul(flow: Flow, node: Node, axis: int, atoms: Array) -> list[tuple[str, int, Array]] | None:
    """Rows of the left operand, columns of the right; both are matrices."""
    if len(node.out.shape) != 2 or any(len(flow.shape(i)) != 2 for i in node.inputs):
        return None
    return [(str(node.inputs[axis]), axis, atoms)]


# What makes constants with channels along two axes, rows and columns of a weight: each axis goes its own way back.
_TWO_AXES = frozenset({"transpose", "matmul", "opaque", "cast"})
_BACK: dict[str, Back] = {
    "matmul": _matmul, "opaque": backwards, **dict.fromkeys(SUMS, _summed),
    "reshape": _reshape, "flatten": _reshape, "transpose": _transpose, "squeeze": _squeeze,
    "unsqueeze": _unsqueeze, "expand": _expand, "gather": _gather, "concat": _concat,
    "slice": _passing, "roll": _passing, "flip": _passing, "pad": _passing,
}  # fmt: skip
