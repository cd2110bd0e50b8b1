"""How operators that only move data are written in ONNX, in any operator set since 7."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from secateur.ir.graph import Node, Sym
from secateur.ir.infer_movement import slice_range
from secateur.ir.ops import END
from secateur.ir.shuffles import grid_of, is_permutation

from .emitter import Emitter, Rule

LAST = (1 << 63) - 1  # what ONNX files write for "to the end"


def _reshape(e: Emitter, node: Node) -> None:
    e.add("Reshape", [e.ins(node)[0], e.ints(node.attrs["shape"])], e.outs(node))


def _flatten(e: Emitter, node: Node) -> None:
    shape, start, end = e.shape(node), node.attrs["start"], node.attrs["end"]
    if start == 1 and end == len(shape) - 1:
        e.add("Flatten", e.ins(node), e.outs(node), axis=1)
        return
    merged, tail = shape[start : end + 1], shape[end + 1 :]
    target: list[int] = [0] * start
    if not any(isinstance(d, Sym) for d in tail):
        target += [-1, *map(int, tail)]
    else:
        open_dims = [i for i, d in enumerate(tail) if isinstance(d, Sym)]
        if len(open_dims) > 1 or any(isinstance(d, Sym) for d in merged):
            raise e.unsupported(node, "several sizes after the flattened axes may vary: export at a fixed size")
        target += [math.prod(map(int, merged)), *(-1 if i in open_dims else int(d) for i, d in enumerate(tail))]
    e.add("Reshape", [e.ins(node)[0], e.ints(target)], e.outs(node))


def _transpose(e: Emitter, node: Node) -> None:
    e.add("Transpose", e.ins(node), e.outs(node), perm=node.attrs["perm"])


def _squeeze(e: Emitter, node: Node) -> None:
    if node.attrs["axes"]:
        kind = "Squeeze" if node.op == "squeeze" else "Unsqueeze"
        e.axes(kind, e.ins(node)[0], node.attrs["axes"], 13, e.outs(node)[0])
    else:
        e.add("Identity", e.ins(node), e.outs(node))


def _expand(e: Emitter, node: Node) -> None:
    e.needs(node, 8, "Expand")
    target = [1 if d == -1 else d for d in node.attrs["shape"]]
    e.add("Expand", [e.ins(node)[0], e.ints(target)], e.outs(node))


def _tile(e: Emitter, node: Node) -> None:
    e.add("Tile", [e.ins(node)[0], e.ints(node.attrs["repeats"])], e.outs(node))


def _concat(e: Emitter, node: Node) -> None:
    e.add("Concat", e.ins(node), e.outs(node), axis=node.attrs["axis"])


def _split(e: Emitter, node: Node) -> None:
    axis, sizes, x = node.attrs["axis"], node.attrs["sizes"], e.ins(node)[0]
    if e.opset >= 13:
        e.add("Split", [x, e.ints(sizes)], e.outs(node), axis=axis)
    else:
        plain = e.static(node, sizes, "where it is split")
        e.add("Split", [x], e.outs(node), axis=axis, split=list(plain))


def cut(
    e: Emitter, node: Node, x: str, axes: Sequence[int], starts: Sequence[int], ends: Sequence[int],
    steps: Sequence[int], out: list[str] | None = None,
) -> str:  # fmt: skip
    """A slice of ``x``; a step other than 1 is a Gather where Slice has none yet."""
    first = [_far(s) for s in starts]
    last = [_far(s) for s in ends]
    if e.opset >= 10:
        given = [x, e.ints(first), e.ints(last), e.ints(axes)]
        return e.add("Slice", given if all(s == 1 for s in steps) else [*given, e.ints(steps)], out)
    first, last = list(e.static(node, first, "where it begins")), list(e.static(node, last, "where it ends"))
    if all(s == 1 for s in steps):
        return e.add("Slice", [x], out, axes=list(axes), starts=first, ends=last)
    shape = e.shape(node)
    for i, (axis, start, end, step) in enumerate(zip(axes, starts, ends, steps, strict=True)):
        (size,) = e.static(node, [shape[axis]], "the size of a strided slice")
        index = e.ints(slice_range(size, start, end, step))
        x = pick(e, x, index, axis, len(shape), out if i == len(axes) - 1 else None)
    return x


def pick(e: Emitter, x: str, index: str, axis: int, rank: int, out: list[str] | None = None) -> str:
    """A Gather. Its axis is counted from the end where the opset has that.

    OpenVINO (2026.4.1) leaves a permutation of axis 1 out if a convolution follows, and computes something else.
    """
    return e.add("Gather", [x, index], out, axis=axis - rank if e.opset >= 11 else axis)


def _far(position: int) -> int:
    if position >= END:
        return LAST
    return -LAST if position <= -END else position


def _slice(e: Emitter, node: Node) -> None:
    a = node.attrs
    if not a["axes"]:
        e.add("Identity", e.ins(node), e.outs(node))
        return
    cut(e, node, e.ins(node)[0], a["axes"], a["starts"], a["ends"], a["steps"], e.outs(node))


def _flip(e: Emitter, node: Node) -> None:
    axes = node.attrs["axes"]
    if not axes:
        e.add("Identity", e.ins(node), e.outs(node))
        return
    many = len(axes)
    cut(e, node, e.ins(node)[0], axes, [END] * many, [-END] * many, [-1] * many, e.outs(node))


def _roll(e: Emitter, node: Node) -> None:
    x, shape = e.ins(node)[0], e.shape(node)
    moves = list(zip(node.attrs["axes"], node.attrs["shifts"], strict=True))
    moves = [(axis, shift) for axis, shift in moves if shift % max(int(shape[axis]), 1)]
    if not moves:
        e.add("Identity", [x], e.outs(node))
    for i, (axis, shift) in enumerate(moves):
        # A plain shift counts from either end, whatever the size.
        place = -shift if isinstance(shape[axis], Sym) else -(shift % int(shape[axis]))
        tail = cut(e, node, x, [axis], [place], [END], [1])
        head = cut(e, node, x, [axis], [0], [place], [1])
        x = e.add("Concat", [tail, head], e.outs(node) if i == len(moves) - 1 else None, axis=axis)


def _gather(e: Emitter, node: Node) -> None:
    """A Gather; a permutation that is a grid turned over as channel shuffles are written."""
    x, index = e.ins(node)
    order = e.graph.weights.get(node.inputs[1] or "")
    size = e.shape(node)[node.attrs["axis"]]
    if (
        order is not None
        and type(size) is int
        and node.inputs[0] not in e.graph.weights
        and is_permutation(order, size)
    ):
        groups = grid_of(order)
        if groups is not None:
            _shuffle(e, node, x, groups)
            return
    kind = e.dtype(node, 1)
    place = index if kind in ("i64", "i32") else e.cast(index, kind, "i64")
    pick(e, x, place, node.attrs["axis"], len(e.shape(node, 0)), e.outs(node))


def _shuffle(e: Emitter, node: Node, x: str, groups: int) -> None:
    """Reshape, transpose and reshape back, as channel shuffles are written."""
    shape, axis = e.followed[str(node.inputs[0])], node.attrs["axis"]
    lead = [0 if isinstance(d, Sym) else d for d in shape[:axis]]
    size, tail = shape[axis], list(shape[axis + 1 :])
    back: list[int] = [*lead, size, *tail]
    if sum(isinstance(d, Sym) for d in tail) > 1:
        tail = [-1]  # Reshape finds one size: what lies after the channels stays together
    elif any(isinstance(d, Sym) for d in tail):
        tail = [-1 if isinstance(d, Sym) else d for d in tail]
        back = [*lead, size, *tail]
    split = e.add("Reshape", [x, e.ints([*lead, groups, size // groups, *tail])])
    perm = [*range(axis), axis + 1, axis, *range(axis + 2, axis + 2 + len(tail))]
    e.add("Reshape", [e.add("Transpose", [split], perm=perm), e.ints(back)], e.outs(node))


def _pad(e: Emitter, node: Node) -> None:
    pads, mode, value = node.attrs["pads"], node.attrs["mode"], node.attrs["value"] or 0.0
    x = e.ins(node)[0]
    if mode == "wrap" and e.opset < 19:
        _wrap(e, node)
    elif e.opset < 11:
        e.add("Pad", [x], e.outs(node), pads=e.static(node, pads, "how much"), mode=mode, value=float(value))
    else:
        fill = [e.scalar(value, e.dtype(node))] if mode == "constant" else []
        e.add("Pad", [x, e.ints(pads), *fill], e.outs(node), mode=mode)


def _wrap(e: Emitter, node: Node) -> None:
    """Circular padding as slices of the input set next to it."""
    x, pads, rank = e.ins(node)[0], node.attrs["pads"], len(e.shape(node))
    axes = [i for i in range(rank) if pads[i] or pads[rank + i]]
    for k, axis in enumerate(axes):
        parts = [x]
        if pads[axis]:
            parts.insert(0, cut(e, node, x, [axis], [-pads[axis]], [END], [1]))
        if pads[rank + axis]:
            parts.append(cut(e, node, x, [axis], [0], [pads[rank + axis]], [1]))
        x = e.add("Concat", parts, e.outs(node) if k == len(axes) - 1 else None, axis=axis)
    if not axes:
        e.add("Identity", [x], e.outs(node))


def _depth_to_space(e: Emitter, node: Node) -> None:
    x, block, mode = e.ins(node)[0], node.attrs["block"], node.attrs["mode"]
    if mode == "CRD" and e.opset >= 11:
        e.add("DepthToSpace", [x], e.outs(node), blocksize=block, mode=mode)
        return
    if mode == "CRD":
        order = np.arange(e.shape(node)[1]).reshape(-1, block * block).T
        x = pick(e, x, e.ints(order.reshape(-1).tolist()), 1, 4)
    e.add("DepthToSpace", [x], e.outs(node), blocksize=block)


def _space_to_depth(e: Emitter, node: Node) -> None:
    x, block = e.ins(node)[0], node.attrs["block"]
    if node.attrs["mode"] == "DCR":
        e.add("SpaceToDepth", [x], e.outs(node), blocksize=block)
        return
    deep = e.add("SpaceToDepth", [x], blocksize=block)
    order = np.arange(e.shape(node)[1] * block * block).reshape(block * block, -1).T
    pick(e, deep, e.ints(order.reshape(-1).tolist()), 1, 4, e.outs(node))


def _resize(e: Emitter, node: Node) -> None:
    a, x, shape = node.attrs, e.ins(node)[0], e.shape(node)
    d = len(a["size"] if a["size"] is not None else a["scales"])
    lead = len(shape) - d
    if e.opset < 11:
        _old_resize(e, node, lead)
        return
    attrs = {"mode": a["mode"], "coordinate_transformation_mode": a["coordinate"]}
    if a["mode"] == "nearest":
        attrs["nearest_mode"] = a["rounding"]
    roi = "" if e.opset >= 13 else e.const(np.zeros(0, np.float32))
    if a["size"] is None:
        scales = e.const(np.array([1.0] * lead + list(a["scales"]), np.float32))
        e.add("Resize", [x, roi, scales], e.outs(node), **attrs)
        return
    if any(isinstance(n, Sym) for n in shape[:lead]):
        head = e.add("Slice", [e.add("Shape", [x]), e.ints([0]), e.ints([lead]), e.ints([0])])
        sizes = e.add("Concat", [head, e.ints(a["size"])], axis=0)
    else:
        sizes = e.ints([*shape[:lead], *a["size"]])
    empty = "" if e.opset >= 13 else e.const(np.zeros(0, np.float32))
    e.add("Resize", [x, roi, empty, sizes], e.outs(node), **attrs)


def _old_resize(e: Emitter, node: Node, lead: int) -> None:
    a, shape = node.attrs, e.shape(node)
    if a["coordinate"] != "asymmetric" or a["mode"] not in ("nearest", "linear"):
        e.needs(node, 11, f"resizing with {a['coordinate']} coordinates")
    scales = a["scales"]
    if scales is None:
        spatial = e.static(node, shape[lead:], "the size of its input")
        scales = [s / n for s, n in zip(a["size"], spatial, strict=True)]
    if a["mode"] == "nearest" and a["rounding"] != "floor" and any(s != int(s) for s in scales):
        e.needs(node, 11, f"resizing with {a['rounding']}")
    full = [1.0] * lead + [float(s) for s in scales]
    kind = "Resize" if e.opset == 10 else "Upsample"
    if e.opset >= 9:
        e.add(kind, [e.ins(node)[0], e.const(np.array(full, np.float32))], e.outs(node), mode=a["mode"])
    else:
        e.add(kind, e.ins(node), e.outs(node), mode=a["mode"], scales=full)


MOVES: dict[str, Rule] = {
    "reshape": _reshape, "flatten": _flatten, "transpose": _transpose, "squeeze": _squeeze, "unsqueeze": _squeeze,
    "expand": _expand, "tile": _tile, "concat": _concat, "split": _split, "slice": _slice, "flip": _flip,
    "roll": _roll, "gather": _gather, "pad": _pad, "depth_to_space": _depth_to_space,
    "space_to_depth": _space_to_depth, "resize": _resize,
}  # fmt: skip
